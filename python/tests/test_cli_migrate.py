"""`terrace migrate-config`: theirs in, ours out, and a word for whatever has no counterpart."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dev import build
from terrace.cli import migrate


def test_lmcaches_tiers_become_ours() -> None:
    file = {"chunk_size": 256, "local_cpu": True, "max_local_cpu_size": 2.5}
    environment = {"LMCACHE_LOCAL_DISK": "file:///a/,/b", "LMCACHE_MAX_LOCAL_DISK_SIZE": "10"}
    found = migrate.from_lmcache(file, environment)
    assert found.settings["host.size"] == f"{5 << 29}B"
    assert found.settings["disk.size"] == f"{10 << 30}B"
    assert found.settings["disk.paths"] == ["/a", "/b"]
    assert found.settings["offload.scope"] == "prompt"
    assert any(note.startswith("chunk_size") for note in found.notes)


def test_lmcaches_environment_beats_its_file_and_answers_are_stored_when_it_does() -> None:
    environment = {"LMCACHE_LOCAL_CPU": "False", "LMCACHE_SAVE_DECODE_CACHE": "true"}
    found = migrate.from_lmcache({"local_cpu": True}, environment)
    assert found.settings == {"host.staging": f"{5 << 30}B"}


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
    size = f"{1 << 30}B"
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


def test_with_nothing_to_go_by_it_says_what_to_give(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("LMCACHE_CONFIG_FILE", "DYN_KVBM_CPU_CACHE_GB"):
        monkeypatch.delenv(name, raising=False)
    assert migrate.main([]) == 1
    assert "DYN_KVBM_" in capsys.readouterr().err


# KVBM's three configurations: memory; memory and disk; disk alone.
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"CPU_CACHE_GB": "20"}, {"host.size": "20GB"}),
        (
            {"CPU_CACHE_GB": "20", "DISK_CACHE_GB": "50", "DISK_CACHE_DIR": "/mnt/x"},
            {
                "host.size": "20GB",
                "disk.size": "50GB",
                "disk.paths": "/mnt/x",
                "disk.admission": "frequency",
            },
        ),
        ({"DISK_CACHE_GB": "50"}, {"disk.size": "50GB", "disk.admission": "frequency"}),
    ],
    ids=["memory", "memory and disk", "disk"],
)
def test_kvbms_environment_becomes_ours(
    theirs: dict[str, str], ours: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = build.folder("release") / "bin" / "terrace"
    monkeypatch.setenv("TERRACE_PROGRAM", str(program))
    found = migrate.from_kvbm({"DYN_KVBM_" + name: value for name, value in theirs.items()})
    assert {name: found.settings.get(name) for name in ours} == ours


def test_kvbms_environment_that_is_wrong_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERRACE_PROGRAM", str(build.folder("release") / "bin" / "terrace"))
    with pytest.raises(migrate.WrongValueError, match="DYN_KVBM_CPU_CACHE_GB"):
        migrate.from_kvbm({"DYN_KVBM_CPU_CACHE_GB": "bananas"})
