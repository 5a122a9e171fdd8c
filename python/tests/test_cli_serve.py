"""`terrace serve` makes the engine's command from sizes, and refuses what a start would refuse."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from dev import build
from terrace.cli import main, serve

NATIVE = (
    *("config", "metrics", "inspect", "status", "pause", "readonly", "resume", "version"),
    *("scrub", "verify", "wipe", "move"),
)


def flag_of(command: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(command[command.index("--kv-transfer-config") + 1])
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The settings that the native program would have been asked about; all are fine."""
    found: list[dict[str, Any]] = []

    def accept(settings: dict[str, Any]) -> list[str]:
        found.append(settings)
        return []

    monkeypatch.setattr(serve, "refusal", accept)
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("started all the same"))
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
    assert "engine_id" not in flag_of(command)
    assert "--kv-transfer-config" in capsys.readouterr().out


def test_what_a_start_would_refuse_is_refused_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "refusal", lambda _settings: ["host.size: 3 bananas"])
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("started all the same"))
    assert serve.main(["M", "--host", "3bananas"]) == 1
    assert "3 bananas" in capsys.readouterr().err


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real program judges, over an environment that gives no setting; no engine starts."""
    for name in list(os.environ):
        if name.startswith(("TERRACE_", "DYN_", "KVBM_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TERRACE_PROGRAM", str(build.folder("release") / "bin" / "terrace"))
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("started all the same"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "say how much: --host SIZE, --disk SIZE"),
        (["--disk-path", "/x"], "--disk-path says where"),
        (["--host", "1GiB", "--disk-path", "/x"], "add --disk SIZE"),
        (["--host", "3bananas"], '--host: "3bananas" has the unknown unit'),
        (["--host", "0.0.0.0"], "the engine's own --host goes after `--`"),
        (["--host", ""], '--host: "" is empty'),
        (["--disk", "10"], '--disk: "10" is out of range'),
        (["--disk", "1GiB", "--disk-path", "/a", "--disk-path", "/a/b"], "--disk-path: "),
        (["--disk", "1GiB", "--set", "disk.paths=a"], '--set disk.paths: "a" is not an absolute'),
        (["--host", "1GiB", "--set", "hots.size=1"], "--set hots.size: unknown setting; did you"),
        (
            ["--host", "1GiB", "--set", "attach.lookup_wait=9s", "--set", "attach.timeout=8s"],
            "terrace serve: --set attach.lookup_wait, --set attach.timeout: requests",
        ),
    ],
)
@pytest.mark.usefixtures("native")
def test_a_refusal_speaks_of_the_flags_that_were_given(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve.main(["M", *given]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("terrace serve: ")
    assert said in line
    for foreign in ("engine JSON", "TERRACE_", "setting host", "setting disk", "settings "):
        assert foreign not in line


@pytest.mark.usefixtures("native")
def test_sizes_of_the_environment_are_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERRACE_DISK_SIZE", "1GiB")
    assert serve.main(["M", "--disk-path", "/x", "--print"]) == 0
    assert '"disk.paths":["/x"]' in capsys.readouterr().out


@pytest.mark.usefixtures("native")
def test_what_the_machine_lacks_is_said_before_the_start(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "file"
    file.touch()
    disk = ["--disk", "1GiB", "--disk-path"]
    assert serve.main([str(tmp_path / "none"), *disk, str(tmp_path)]) == 1
    assert "none: there is no such folder" in capsys.readouterr().err
    assert serve.main(["M", *disk, str(file / "x")]) == 1
    assert f"--disk-path {file}/x: {file} is no folder" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert serve.main([str(tmp_path), *disk, str(tmp_path / "x")]) == 1
    printed = capsys.readouterr()
    assert "vLLM is not installed" in printed.err
    assert printed.out == ""
    monkeypatch.setattr("os.access", lambda *_: False)  # Root may write everywhere.
    assert serve.main(["M", *disk, str(tmp_path / "x")]) == 1
    assert f"{tmp_path} cannot be written to" in capsys.readouterr().err


def test_home_is_found_where_the_shell_leaves_it(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    assert serve.main(["M", "--disk", "1GiB", "--disk-path=~/cache", "--print"]) == 0
    assert asked[0]["disk.paths"] == ["/home/u/cache"]


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["M", "--host", "1GB", "--", "--kv-transfer-config", "{}"],
        ["M", "--host", "1GB", "--", "--kv_transfer_config={}"],
        ["M", "--host", "1GB", "--", "--kv-transfer-config.kv_role", "kv_both"],
        ["M", "--hots", "1GB"],
        ["M", "--hos", "1GB"],
        ["M", "--host", "1GB", "--set", "log.level"],
        ["M", "--host", "1GB", "--set", "=1"],
        ["M", "--host", "1GB", "--set", "host.size=2GB"],
        ["M", "--disk", "1GB", "--disk-path", ""],
        ["M", "--host", "1GB", "--name", ""],
        ["M", "--host", "1GB", "--name", "../x"],
    ],
)
def test_a_command_line_that_says_too_little_or_too_much_is_usage(
    wrong: list[str], asked: list[dict[str, Any]]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        serve.main(wrong)
    assert stopped.value.code == 2
    assert asked == []


@pytest.mark.usefixtures("asked")
def test_a_name_is_the_engines_over_restarts(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(["M", "--host", "1GB", "--name", "vllm-0", "--print"]) == 0
    assert flag_of(shlex.split(capsys.readouterr().out))["engine_id"] == "vllm-0"


@pytest.mark.usefixtures("asked")
def test_a_flag_of_the_engine_before_the_dashes_is_sent_behind_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        serve.main(["M", "--host", "1GB", "--port", "81"])
    assert "--port 81; flags of the engine go after `--`" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("server", "serve"), ("self-test", "selftest"), ("migrate", "migrate-config")],
)
def test_a_command_of_the_package_is_guessed_from_what_was_typed(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([typed, "x"]) == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err


@pytest.mark.usefixtures("native")
def test_without_a_command_all_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert main.main([]) == 2
    told = capfd.readouterr().out
    for name in (*main.OWN, *NATIVE):
        assert f"  {name} " in told


@pytest.mark.parametrize("name", NATIVE)
def test_no_command_of_the_native_program_is_taken_for_another(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "terrace"
    program.touch()
    monkeypatch.setenv("TERRACE_PROGRAM", str(program))
    monkeypatch.setattr("os.execv", lambda *_: None)
    with pytest.raises(AssertionError, match="execv came back"):
        main.main([name])


def test_a_missing_program_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERRACE_PROGRAM", "/nowhere/terrace")
    assert main.main(["status"]) == 1
    assert "/nowhere/terrace" in capsys.readouterr().err
