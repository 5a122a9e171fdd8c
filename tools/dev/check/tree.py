"""The files under check: what git tracks or would track."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dev import paths, run

UNTRACKED = (".git", "build", "dist", "__pycache__")
TEST_ENDINGS = ("_test", "_bench", "_fuzz", "_fixture", "_rig")
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
    """Tests, benches and their fixtures: they may include every room, no room may include them."""
    stem = PurePosixPath(path).stem.removesuffix("_internal")
    outside = path.startswith(("tests/", "bench/", "fuzz/"))
    return outside or stem.endswith(TEST_ENDINGS) or room_of(path) == "testing"


def _walked(root: Path) -> list[str]:
    """The files of a copy without git."""
    found = []
    for directory, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in UNTRACKED]
        below = Path(directory).relative_to(root)
        found += [str(below / name) for name in names if not name.endswith(".pyc")]
    return found


@functools.cache
def whole() -> Tree:
    """This repository: tracked files and new ones that are not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    code, text = run.captured(command)
    names = text.split("\0") if code == 0 else _walked(paths.ROOT)
    return Tree(paths.ROOT, tuple(sorted(n for n in names if n and (paths.ROOT / n).is_file())))
