"""What `./dev VERB --help` says, and that it does nothing else."""

import importlib
from typing import Any

import pytest

from dev import main
from dev.verbs import MODULES, VERBS

TOLD_HERE = [verb for verb in VERBS if verb not in main.EXPLAIN_THEMSELVES]


@pytest.mark.parametrize("verb", TOLD_HERE)
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_is_told_and_nothing_is_done(
    verb: str, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forbid(_arguments: Any) -> int:
        raise AssertionError(f"{verb} ran")

    monkeypatch.setattr(importlib.import_module(MODULES[verb]), "main", forbid)
    assert main.main([verb, word]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"  ./dev {verb}")
    assert f"./dev {verb}: " in printed
    assert printed.endswith("\n")


def test_of_a_verb_only_its_own_lines_are_told() -> None:
    lines = main.page_of("test").splitlines()
    assert [line for line in lines if "./dev " in line] == [
        line for line in lines if "./dev test" in line
    ]
    assert any("SUITE: cpp" in line for line in lines)  # With what continues it.
