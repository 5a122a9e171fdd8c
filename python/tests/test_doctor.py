"""The doctor names what stands in the way, and goes on to the next check."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from terrace import doctor


def _good() -> Iterator[str]:
    yield "fine"


def _bad() -> Iterator[str]:
    yield "begun"
    raise RuntimeError("the disk is a spoon")


def test_a_failed_check_is_named_and_the_rest_still_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (("first", _bad), ("second", _good)))
    assert doctor.main() == 1
    shown = capsys.readouterr().out
    assert "FAIL first: the disk is a spoon" in shown
    assert "ok   fine" in shown


def test_with_nothing_wrong_the_exit_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (("only", _good),))
    assert doctor.main() == 0


def test_a_missing_library_fails_its_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERRACE_LIBRARY", "/nowhere/libterrace.so")
    monkeypatch.setattr(doctor, "CHECKS", (("library", doctor._library),))
    assert doctor.main() == 1
    assert "/nowhere/libterrace.so" in capsys.readouterr().out


def test_the_machine_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    lines = list(doctor._machine())
    assert any(line.startswith("cpu:") for line in lines)
    assert any("shared memory" in line for line in lines)
    capsys.readouterr()
