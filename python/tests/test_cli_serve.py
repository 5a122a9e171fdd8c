"""`terrace serve` makes the engine's command from sizes, and refuses what a start would refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from terrace.cli import main, serve


def flag_of(command: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(command[command.index("--kv-transfer-config") + 1])
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The settings that the native program would have been asked about; all are fine."""
    found: list[dict[str, Any]] = []

    def accept(settings: dict[str, Any]) -> str:
        found.append(settings)
        return ""

    monkeypatch.setattr(serve, "refusal", accept)
    return found


def test_sizes_and_flags_become_one_command(
    asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = [
        "--host",
        "20GB",
        "--disk",
        "100GB",
        "--disk-path",
        "cache",
        "--set",
        "log.level=debug",
    ]
    assert serve.main(["M", *sizes, "--print", "--", "--port", "81"]) == 0
    settings = {
        "host.size": "20GB",
        "disk.size": "100GB",
        "disk.paths": [str(Path("cache").absolute())],
        "log.level": "debug",
    }
    assert asked == [settings]
    command = serve.command("M", settings, ["--port", "81"])
    assert flag_of(command)["kv_connector_extra_config"] == settings
    assert flag_of(command)["kv_load_failure_policy"] == "recompute"
    assert command[-2:] == ["--port", "81"]
    assert "--kv-transfer-config" in capsys.readouterr().out


def test_what_a_start_would_refuse_is_refused_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "refusal", lambda _settings: "host.size: 3 bananas")
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("started all the same"))
    assert serve.main(["M", "--host", "3bananas"]) == 1
    assert "3 bananas" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ["M"],
        [],
        ["M", "--host", "1GB", "--", "--kv-transfer-config", "{}"],
        ["M", "--hots", "1GB"],
        ["M", "--host", "1GB", "--set", "log.level"],
    ],
)
def test_a_command_line_that_says_too_little_or_too_much_is_usage(
    wrong: list[str], asked: list[dict[str, Any]]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        serve.main(wrong)
    assert stopped.value.code == 2
    assert asked == []


def test_other_commands_go_to_the_native_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "terrace"
    program.touch()
    monkeypatch.setenv("TERRACE_PROGRAM", str(program))
    ran: list[Any] = []
    monkeypatch.setattr("os.execv", lambda *given: ran.append(given))
    with pytest.raises(AssertionError):  # What comes after it is never reached.
        main.main(["inspect", "--json"])
    assert ran == [(program, [str(program), "inspect", "--json"])]


def test_a_missing_program_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERRACE_PROGRAM", "/nowhere/terrace")
    assert main.main(["status"]) == 1
    assert "/nowhere/terrace" in capsys.readouterr().err
