"""./dev clean: removes build/; with --all everything put on the machine outside apt."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from demo.server import end_left_behind
from dev import engines, paths, say, store
from engine_env import scratch

# Nothing else: a person may have pointed $TERRACE_CACHE_DIR at a folder that holds more.
KINDS = (
    *("venv", "model", "gemma", "services", "prometheus", "chromium", "peers", "schemas", "plots"),
    *engines.kinds(),
)
KIND = rf"(?:{'|'.join(map(re.escape, KINDS))})"
ENTRY = re.compile(
    rf"{KIND}-[0-9a-f]{{16}}(\.(part|removed)-\d+)?|{KIND}\.lock|wheels-{KIND}|ccache|passed"
)
# Where Python's own caches may lie in the tree.
BYTE_CODE = ("bench", "deploy", "python", "tests", "tools", "docs")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    say.note(f"removed {path}")


def _outside_build() -> Iterator[Path]:
    """What ./dev puts into the cache folder, into the temporary folder and into the tree."""
    cache = paths.cache()
    if cache.is_dir():
        yield from sorted(path for path in cache.iterdir() if ENTRY.fullmatch(path.name))
    yield scratch()
    for place in BYTE_CODE:
        yield from sorted((paths.ROOT / place).rglob("__pycache__"))


def main(arguments: Sequence[str]) -> int:
    unknown = [word for word in arguments if word != "--all"]
    if unknown:
        raise say.Stop(f"clean does not know {unknown[0]}", "it takes --all or nothing")
    parts = [f"stack/{name}.log" for name in ("engine", "bridge", "prometheus")]
    logs = ("engine.log", "s3/server.log", *parts)
    ended = sum(end_left_behind(paths.BUILD / "demo" / log) for log in logs)
    if ended:
        say.note(f"ended {ended} processes of the demo")
    if paths.BUILD.exists():
        _remove(paths.BUILD)
    if "--all" in arguments:
        # Not below another ./dev that is just making an entry.
        with contextlib.ExitStack() as stack:
            for kind in KINDS:
                stack.enter_context(store.locked(kind))
            for path in _outside_build():
                if path.exists():
                    _remove(path)
        cache = paths.cache()
        if cache.is_dir() and not any(cache.iterdir()):
            _remove(cache)
    return 0
