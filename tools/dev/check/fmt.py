"""./dev fmt: applies the formats."""

from __future__ import annotations

from collections.abc import Sequence

from dev import run, say, setup, venv
from dev.check import main as check
from dev.check import programs, tree


def main(arguments: Sequence[str]) -> int:
    if arguments:
        raise say.Stop("fmt takes no arguments; it formats the whole tree")
    setup.require(check.GROUPS)
    files = programs.formatted(tree.whole())
    if files:
        run.logged(["clang-format-19", "-i", *files], "clang-format")
    ruff = venv.python().with_name("ruff")
    places = programs.python_places()
    run.logged([ruff, "check", "--quiet", "--fix", "--exit-zero", *places], "ruff-fix")
    run.logged([ruff, "format", "--quiet", *places], "ruff-format")
    say.note(f"formatted {len(files)} C++ files and the Python in {', '.join(places)}")
    return 0
