"""`./dev terrace`: what it prints and where is the command's own affair."""

from pathlib import Path
from typing import Any

import pytest

from dev import build, run, say, setup, terrace


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Folder of each command that would run, in a tree where all has to be built."""
    found: list[Any] = []

    def keep(_command: Any, *, cwd: Path, env: Any = None) -> int:
        del env
        found.append(cwd)
        return 0

    monkeypatch.setattr(run, "shown", keep)
    monkeypatch.setattr(terrace, "PROGRAM", tmp_path / "none")
    monkeypatch.setattr(terrace, "installed", lambda: {"venv": tmp_path})
    monkeypatch.setattr(setup, "require", lambda *_args, **_more: say.note("set up"))
    monkeypatch.setattr(build, "build", lambda *_args: say.note("built"))
    monkeypatch.chdir(tmp_path)
    return found


@pytest.mark.parametrize("command", ["doctor", "config"])
def test_progress_does_not_mix_with_what_the_command_prints(
    shown: list[Any], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert terrace.main([command, "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "built" in printed.err
    assert len(shown) == 1


def test_a_program_of_an_earlier_source_is_not_run(
    shown: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none").touch()
    assert terrace.main(["status"]) == 0
    assert "built" in capsys.readouterr().err
    assert len(shown) == 1


@pytest.mark.parametrize("command", ["serve", "inspect"])
def test_relative_paths_are_those_of_whoever_asks(
    shown: list[Any], tmp_path: Path, command: str
) -> None:
    assert terrace.main([command, "there"]) == 0
    assert shown == [tmp_path]
