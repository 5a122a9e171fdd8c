"""./dev clean: removes build/; with --all everything put on the machine outside apt."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from dev import paths, say

ENTRIES = ("venv-*", "model-*", "model-*.part-*", "wheels-*", "ccache", "passed", "*.lock")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    say.note(f"removed {path}")


def _remove_cache() -> None:
    """Only what ./dev makes there; the folder itself goes if nothing else is in it."""
    cache = paths.cache()
    for pattern in ENTRIES:
        for path in sorted(cache.glob(pattern)):
            _remove(path)
    if cache.is_dir() and not any(cache.iterdir()):
        _remove(cache)


def main(arguments: Sequence[str]) -> int:
    unknown = [word for word in arguments if word != "--all"]
    if unknown:
        raise say.Stop(f"clean does not know {unknown[0]}", "it takes --all or nothing")
    if paths.BUILD.exists():
        _remove(paths.BUILD)
    if "--all" in arguments:
        _remove_cache()
        for path in sorted((paths.ROOT / "tools").rglob("__pycache__")):
            _remove(path)
    return 0
