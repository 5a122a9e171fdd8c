"""The files under check: what git tracks or would track."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dev import paths, run, say

CPP_SUFFIXES = (".h", ".cc", ".c", ".cu")


@dataclass(frozen=True)
class Tree:
    """A set of files below a root, read at most once each."""

    root: Path
    files: tuple[str, ...]
    _texts: dict[str, str] = field(default_factory=dict, compare=False)

    def text(self, path: str) -> str:
        if path not in self._texts:
            self._texts[path] = (self.root / path).read_text(errors="replace")
        return self._texts[path]

    def having(self, *suffixes: str) -> list[str]:
        return [path for path in self.files if path.endswith(suffixes)]

    def cpp(self) -> list[str]:
        return self.having(*CPP_SUFFIXES)

    def python(self) -> list[str]:
        return self.having(".py")


def room_of(path: str) -> str | None:
    """The room of a file below terrace/, else None."""
    parts = PurePosixPath(path).parts
    return parts[1] if len(parts) > 2 and parts[0] == "terrace" else None


def is_test(path: str) -> bool:
    """Tests and benches: they may include every room."""
    stem = PurePosixPath(path).stem
    outside = path.startswith(("tests/", "bench/", "fuzz/"))
    return outside or stem.endswith(("_test", "_bench", "_fuzz")) or room_of(path) == "testing"


@functools.cache
def whole() -> Tree:
    """This repository: tracked files and new ones that are not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    code, text = run.captured(command)
    if code != 0:
        raise say.Stop(f"git ls-files failed: {text.strip()}", "run inside a clone")
    names = sorted(name for name in text.split("\0") if name)
    return Tree(paths.ROOT, tuple(name for name in names if (paths.ROOT / name).is_file()))
