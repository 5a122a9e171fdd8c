"""Prometheus is unpacked whole or not at all, and stale dashboards are told."""

from pathlib import Path

import pytest

from dashboards import render
from dev import apt, chromium, main, paths, prometheus, run, say, setup


def test_a_package_without_the_programs_makes_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERRACE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(apt, "download", lambda _names, _folder: None)
    with pytest.raises(say.Stop, match="hold no prometheus"):
        prometheus.ensure()
    assert not prometheus.present()
    assert not list(tmp_path.glob("prometheus-*"))


def test_the_pages_come_with_the_scripts_that_they_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two packages: the pages are links into the other one, which holds far more."""

    def unpack(command: list[str], _log: str) -> None:
        root = Path(command[-1])
        for name in prometheus.PROGRAMS:
            (root / "usr" / "bin").mkdir(parents=True, exist_ok=True)
            (root / "usr" / "bin" / name).write_text("a program")
        scripts = root / "usr" / "share" / "javascript" / "moment-timezone"
        scripts.mkdir(parents=True)
        for name in (prometheus.TIMES, "moment-timezone-Iceland.js"):
            (scripts / name).write_text("a script")
        pages = root / prometheus.PAGES / "static"
        pages.mkdir(parents=True)
        (pages / "moment-timezone").symlink_to("../../../javascript/moment-timezone")

    monkeypatch.setenv("TERRACE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(apt, "download", lambda _names, folder: (folder / "a.deb").touch())
    monkeypatch.setattr(run, "logged", unpack)
    scripts = prometheus.ensure() / "web" / "static" / "moment-timezone"
    assert not scripts.is_symlink()
    assert [path.name for path in scripts.iterdir()] == [prometheus.TIMES]


def test_what_would_start_a_server_is_never_installed() -> None:
    unpacked = set(apt.packages([prometheus.GROUP]))
    assert "prometheus" in unpacked
    unpacked |= set(apt.packages([chromium.GROUP]))
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
