"""Small trees on disk that the checks are run on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dev.check.tree import Tree


@pytest.fixture
def tree_of(tmp_path: Path) -> Callable[[dict[str, str]], Tree]:
    """Writes files below a scratch folder and returns them as a tree."""

    def make(files: dict[str, str]) -> Tree:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Tree(tmp_path, tuple(sorted(files)))

    return make
