"""Chromium is unpacked whole or not at all, with what the system lacks of its needs."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from dev import apt, chromium, run, say

PLAN = """Reading package lists...
Inst libnss3 (2:3.87.1-1 Debian:12.11/oldstable [amd64])
Inst chromium-common (150 Debian-Security:12/oldstable-security [amd64])
Conf libnss3 (2:3.87.1-1 Debian:12.11/oldstable [amd64])
"""


def test_packages_without_the_program_make_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERRACE_CACHE_DIR", str(tmp_path))
    asked: list[str] = []
    monkeypatch.setattr(apt, "lacking", lambda _names: ["libnss3"])
    monkeypatch.setattr(apt, "download", lambda names, _folder: asked.extend(names))
    with pytest.raises(say.Stop, match="hold no usr/lib/chromium"):
        chromium.ensure()
    assert not chromium.present()
    assert not list(tmp_path.glob("chromium-*"))
    assert set(asked) == {"libnss3", *apt.packages([chromium.GROUP])}


def test_what_the_system_lacks_is_read_from_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    def captured(command: Sequence[str]) -> tuple[int, str]:
        return 0, PLAN if command[0] == "apt-get" else "Candidate: 1\n"

    monkeypatch.setattr(run, "captured", captured)
    assert apt.lacking(["chromium-common"]) == ["libnss3", "chromium-common"]


def test_a_system_that_cannot_have_them_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def captured(command: Sequence[str]) -> tuple[int, str]:
        return (100, "E: broken") if command[0] == "apt-get" else (0, "Candidate: 1\n")

    monkeypatch.setattr(run, "captured", captured)
    with pytest.raises(say.Stop, match="no way to have chromium-common"):
        apt.lacking(["chromium-common"])
