"""Prometheus is unpacked whole or not at all, and stale dashboards are told."""

from pathlib import Path

import pytest

from dashboards import render
from dev import apt, main, paths, prometheus, say, setup


def test_a_package_without_the_programs_makes_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERRACE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(apt, "download", lambda _names, _folder: None)
    with pytest.raises(say.Stop, match="hold no prometheus"):
        prometheus.ensure()
    assert not prometheus.present()
    assert not list(tmp_path.glob("prometheus-*"))


def test_what_would_start_a_server_is_never_installed() -> None:
    unpacked = set(apt.packages([prometheus.GROUP]))
    assert unpacked == {"prometheus"}
    assert not unpacked & set(apt.packages([*setup.ENGINE, "check", "bench"]))


def test_files_that_are_stale_are_named_and_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert main.main(["dashboards", "--check"]) == 1
    told = capsys.readouterr().out
    assert all(str(path) in told for path in render.files())
    assert main.main(["dashboards"]) == 0
    assert main.main(["dashboards", "--check"]) == 0
    assert main.main(["dashboards", "--fast"]) == 1
