"""`terrace migrate-config`: theirs in, ours out, and a word for whatever has no counterpart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dev import build
from terrace.cli import migrate


@pytest.fixture(autouse=True)
def _program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one, over an environment that gives no setting."""
    for name in list(os.environ):
        if name.startswith(("TERRACE_", "DYN_", "KVBM_", "LMCACHE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TERRACE_PROGRAM", str(build.folder("release") / "bin" / "terrace"))


def test_lmcaches_tiers_become_ours() -> None:
    file = {"chunk_size": 256, "local_cpu": True, "max_local_cpu_size": 2.5}
    environment = {"LMCACHE_LOCAL_DISK": "file:///a/,/b", "LMCACHE_MAX_LOCAL_DISK_SIZE": "10"}
    found = migrate.from_lmcache(file, environment)
    assert found.settings["host.size"] == "2560MiB"
    assert found.settings["disk.size"] == "10GiB"
    assert found.settings["disk.paths"] == ["/a", "/b"]
    assert found.settings["offload.scope"] == "prompt"
    assert any(note.startswith("chunk_size") for note in found.notes)


def test_lmcaches_environment_beats_its_file_and_answers_are_stored_when_it_does() -> None:
    environment = {"LMCACHE_LOCAL_CPU": "False", "LMCACHE_SAVE_DECODE_CACHE": "true"}
    found = migrate.from_lmcache({"local_cpu": True}, environment)
    assert found.settings == {"host.staging": "5GiB"}


@pytest.mark.parametrize(
    ("gib", "text"),
    [(2048, "2TiB"), (20, "20GiB"), (0.5, "512MiB"), (0.0009765625, "1MiB"), (0.1, "107374182B")],
)
def test_a_size_is_in_the_largest_unit_that_is_exact(gib: float, text: str) -> None:
    assert migrate.from_lmcache({"max_local_cpu_size": gib}, {}).settings["host.size"] == text


def test_what_nobody_knows_is_said() -> None:
    found = migrate.from_lmcache({"remote_url": "redis://x", "made_up": 1}, {})
    assert "made_up: has no counterpart here" in found.notes
    assert any("remote_url" in note for note in found.notes)


@pytest.mark.parametrize(
    "text", ["- a list", "a: [", "max_local_cpu_size: bananas", "\x00"], ids=repr
)
def test_a_file_that_is_none_is_an_error_that_names_it(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lmcache.yaml"
    file.write_text(text)
    assert migrate.main([str(file)]) == 1
    said = capsys.readouterr().err
    assert "lmcache.yaml" in said or "max_local_cpu_size" in said


def test_a_file_that_is_not_there_is_named_before_a_package_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert migrate.main([str(tmp_path / "none.yaml")]) == 1
    said = capsys.readouterr().err
    assert "none.yaml" in said
    assert "PyYAML" not in said


def test_each_form_says_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LMCACHE_MAX_LOCAL_CPU_SIZE", "1")
    size = "1GiB"
    forms = {}
    for form in ("toml", "env", "json", "engine"):
        assert migrate.main(["--as", form]) == 0
        forms[form] = capsys.readouterr().out
    assert tomllib.loads(forms["toml"])["host"]["size"] == size
    assert f"export TERRACE_HOST_SIZE={size}\n" in forms["env"]
    assert json.loads(forms["json"])["settings"]["host.size"] == size
    assert json.loads(forms["engine"])["host.size"] == size


@pytest.mark.parametrize("name", ["MAX_LOCAL_CPU_SIZE", "LOOKUP_TIMEOUT_MS"])
@pytest.mark.parametrize("text", ["abc", "inf", "nan", "-1", ""])
def test_a_number_that_is_none_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(migrate.WrongValueError, match=f"{name.lower()}: .* is no number of"):
        migrate.from_lmcache({}, {f"LMCACHE_{name}": text})


def test_what_a_shell_would_read_otherwise_is_quoted() -> None:
    found = migrate.Found(settings={"disk.paths": ["/a/it's", "/b c"]})
    printed = subprocess.run(
        ["sh", "-c", f'{migrate.environment(found)}printf %s "$TERRACE_DISK_PATHS"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout == "/a/it's,/b c"


def test_with_nothing_to_go_by_it_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert migrate.main([]) == 1
    assert "DYN_KVBM_" in capsys.readouterr().err


MEMORY, DISK = {"CPU_CACHE_GB": "20"}, {"DISK_CACHE_GB": "50"}
FOLDER = {"DISK_CACHE_DIR": "/mnt/x"}


# KVBM's three configurations: memory; memory and disk; disk alone.
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (MEMORY, {"host.size": "20GB"}),
        (
            MEMORY | DISK | FOLDER,
            {
                "host.size": "20GB",
                "disk.size": "50GB",
                "disk.paths": "/mnt/x",
                "disk.admission": "frequency",
            },
        ),
        (DISK, {"disk.size": "50GB", "disk.admission": "frequency"}),
    ],
    ids=["memory", "memory and disk", "disk"],
)
def test_kvbms_environment_becomes_ours(theirs: dict[str, str], ours: dict[str, str]) -> None:
    found = migrate.from_kvbm({"DYN_KVBM_" + name: value for name, value in theirs.items()})
    assert {name: found.settings.get(name) for name in ours} == ours


def test_kvbms_environment_that_is_wrong_is_refused_by_name() -> None:
    with pytest.raises(migrate.WrongValueError, match="DYN_KVBM_CPU_CACHE_GB"):
        migrate.from_kvbm({"DYN_KVBM_CPU_CACHE_GB": "bananas"})


LMCACHE = {
    "defaults": {"CHUNK_SIZE": "256"},
    "memory and disk": {"LOCAL_DISK": "file:///a/,/b", "MAX_LOCAL_DISK_SIZE": "10"},
    "disk": {"LOCAL_CPU": "False", "LOCAL_DISK": "/a", "MAX_LOCAL_DISK_SIZE": "0.1"},
    "disk without a size": {"LOCAL_DISK": "/a"},
    "disk of a size too small": {"LOCAL_DISK": "/a", "MAX_LOCAL_DISK_SIZE": "0.0001"},
    "a folder in another": {"LOCAL_DISK": "/a,/a/b", "MAX_LOCAL_DISK_SIZE": "10"},
    "a folder of two lines": {"LOCAL_DISK": "/a\n[x]", "MAX_LOCAL_DISK_SIZE": "10"},
    "a folder in other letters": {"LOCAL_DISK": "/\N{SNOWMAN}\N{OX}", "MAX_LOCAL_DISK_SIZE": "10"},
    "all that has a counterpart": {
        "MAX_LOCAL_CPU_SIZE": "2.5",
        "SAVE_DECODE_CACHE": "true",
        "LOCAL_CPU_USE_HUGEPAGES": "true",
        "ENABLE_KV_EVENTS": "true",
        "LOOKUP_TIMEOUT_MS": "3000",
    },
    "a time too long": {"LOOKUP_TIMEOUT_MS": "1e9"},
    "what nobody knows": {"REMOTE_URL": "redis://x", "MADE_UP": "1\n[x]"},
}
KVBM = {
    "memory": MEMORY,
    "memory and disk": MEMORY | DISK | FOLDER,
    "disk": DISK,
    "a folder without a size": MEMORY | FOLDER,
    "what is not built": MEMORY
    | {"OBJECT_ENABLED": "1", "OBJECT_SECRET_KEY": "s3cret", "METRICS": "1", "ENABLE_RECORD": "1"},
}
GIVEN = {f"lmcache: {name}": ("LMCACHE_", values) for name, values in LMCACHE.items()}
GIVEN |= {f"kvbm: {name}": ("DYN_KVBM_", values) for name, values in KVBM.items()}


@pytest.mark.parametrize("form", ["toml", "env", "engine"])
@pytest.mark.parametrize("given", GIVEN)
def test_a_start_accepts_whatever_is_printed(
    given: str,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prefix, values = GIVEN[given]
    with monkeypatch.context() as theirs:
        for name, text in values.items():
            theirs.setenv(prefix + name, text)
        assert migrate.main(["--as", form]) == 0
    printed = capsys.readouterr().out
    assert "s3cret" not in printed
    file = tmp_path / "printed"
    file.write_text(printed)
    program = os.environ["TERRACE_PROGRAM"]
    script = {
        "toml": 'exec "$0" config --file "$1"',
        "env": '. "$1"; exec "$0" config',
        "engine": 'exec "$0" config --engine "$(cat "$1")"',
    }[form]
    asked = subprocess.run(
        ["sh", "-ec", script, program, str(file)], capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, f"{printed}\n{asked.stderr}"


def test_what_a_start_would_refuse_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LMCACHE_LOCAL_DISK", "/a")
    assert migrate.main([]) == 0
    table = capsys.readouterr().out.split("# [disk]\n")[1].split("\n\n")[0].splitlines()
    assert table[0].startswith("# left out: ")
    assert "set disk.size" in table[0]
    assert table[1:] == ['# paths = ["/a"]']
    assert migrate.main(["--as", "engine"]) == 0
    printed = capsys.readouterr()
    assert "left out: disk.paths: " in printed.err
    assert "disk.paths" not in json.loads(printed.out)


def test_a_disk_is_not_moved_because_its_folder_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LMCACHE_LOCAL_DISK", "relative")
    monkeypatch.setenv("LMCACHE_MAX_LOCAL_DISK_SIZE", "10")
    assert migrate.main(["--as", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["left_out"]) == {"disk.paths", "disk.size"}
    assert "relative" in found["left_out"]["disk.paths"]["reason"]


def test_when_no_tier_is_left_their_names_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LMCACHE_LOCAL_CPU", "false")
    assert migrate.main([]) == 1
    assert "max_local_disk_size" in capsys.readouterr().err


def test_where_there_are_no_comments_the_notes_are_told_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lmcache.yaml"
    file.write_text("max_local_cpu_size: 5\nnever_heard_of: 3\n")
    assert migrate.main([str(file), "--as", "engine"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["host.size"] == "5GiB"
    assert "LMCache's is for each rank" in told.err
    assert "never_heard_of: has no counterpart here" in told.err
