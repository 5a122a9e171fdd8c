"""The doctor says which keys are at hand, and what on disk and in the store needs which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dev import build
from terrace import doctor, doctor_keys
from terrace.finding import Asked, Finding

ONE, TWO = "1" * 64, "2" * 64
REAL = str(build.folder("release") / "bin" / "terrace")


@pytest.fixture(autouse=True)
def _program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRACE_PROGRAM", REAL)
    monkeypatch.setenv("HOME", "/home/u")


def looked_at(**settings: str) -> list[Finding]:
    named = {name.replace("__", "."): value for name, value in settings.items()}
    return list(doctor_keys.encryption(Asked(settings=named)))


def inspecting(
    folder: Path, monkeypatch: pytest.MonkeyPatch, plain: int, keys: list[dict[str, Any]]
) -> None:
    """`terrace inspect` as if such blocks lay there; all else is the real program."""
    facts = {"plain_blocks": plain, "keys": keys}
    report = [{"path": "/kv", "owners": [{"namespaces": [{"encryption": facts}]}]}]
    (folder / "report.json").write_text(json.dumps(report))
    fake = folder / "terrace"
    fake.write_text(
        f'#!/bin/sh\n[ "$1" = inspect ] && exec cat {folder}/report.json\nexec {REAL} "$@"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("TERRACE_PROGRAM", str(fake))


def test_it_is_among_the_checks() -> None:
    assert ("encryption", doctor_keys.encryption) in doctor.CHECKS


def test_without_a_tier_below_host_there_is_nothing_to_say() -> None:
    assert looked_at() == []
    assert list(doctor_keys.encryption(Asked())) == []


def test_a_key_in_the_environment_is_named_and_never_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = looked_at(disk__paths=str(tmp_path))
    assert found.state == "note"
    assert "not encrypted" in found.text
    assert "terrace key new" in found.way_out
    monkeypatch.setenv("TERRACE_ENCRYPTION_KEY", ONE)
    (found,) = looked_at(disk__paths=str(tmp_path))
    assert found.state == "ok"
    assert "writes with key " in found.text
    assert "1111" not in found.text


def test_old_keys_are_named_beside_the_one_that_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old"
    old.write_text(f"terrace-key-1 {TWO}\n")
    old.chmod(0o600)
    monkeypatch.setenv("TERRACE_ENCRYPTION_KEY", ONE)
    monkeypatch.setenv("TERRACE_ENCRYPTION_OLD_KEY_FILES", str(old))
    (found,) = looked_at(object__path=str(tmp_path))
    assert "; reads " in found.text


def test_a_key_that_cannot_be_had_fails_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text(f"terrace-key-1 {ONE}\n")
    key.chmod(0o644)
    monkeypatch.setenv("TERRACE_ENCRYPTION_KEY_FILE", str(key))
    (found,) = looked_at(disk__paths=str(tmp_path))
    assert found.state == "fail"
    assert "chmod 600" in found.text


def test_blocks_on_disk_are_told_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspecting(
        tmp_path,
        monkeypatch,
        5,
        [
            {"id": "aa", "at_hand": True, "blocks": 7, "opened": 0},
            {"id": "bb", "at_hand": False, "blocks": 3, "opened": 0},
        ],
    )
    monkeypatch.setenv("TERRACE_ENCRYPTION_KEY", ONE)
    found = looked_at(disk__paths=f"{tmp_path}, /nonexistent/kv")
    assert [one.state for one in found] == ["ok", "ok", "warn", "note"]
    assert "7 blocks are encrypted with key aa, which is at hand" in found[1].text
    assert "3 blocks need key bb, which is not at hand" in found[2].text
    assert "encryption.old_key_files" in found[2].way_out
    assert "5 blocks are not encrypted" in found[3].text
    allowed = looked_at(disk__paths=str(tmp_path), encryption__accept_plain="true")
    assert [one.state for one in allowed] == ["ok", "ok", "warn"]


def test_plain_blocks_without_a_key_are_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspecting(tmp_path, monkeypatch, 5, [])
    (found,) = looked_at(disk__paths=str(tmp_path))
    assert "no key" in found.text


def test_packs_of_a_shared_directory_are_told_by_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERRACE_ENCRYPTION_KEY", ONE)
    mine = looked_at(object__path=str(tmp_path))[0].text.split()[-1]
    for name in (f"n16k{mine}", "n16k" + "a" * 16, "n16", "n16k12", "notes"):
        (tmp_path / "v1" / ("0" * 32) / "g0" / name).mkdir(parents=True)
    found = looked_at(object__path=str(tmp_path))
    told = {one.state: one.text for one in found[1:]}
    assert len(found) == 4
    assert mine in told["ok"]
    assert any("a" * 16 in one.text for one in found if one.state == "note")
    assert any("not encrypted" in one.text for one in found if one.state == "note")


def test_of_a_bucket_it_says_who_can_tell() -> None:
    found = looked_at(object__enabled="true")
    assert [one.state for one in found] == ["note", "note"]
    assert "terrace object gc --dry-run" in found[1].way_out
