"""Debian's Prometheus, unpacked into the cache folder for the tests of deploy/ and the demo.

It is not installed: the package would start a server of its own.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from dev import apt, paths, run, say, store

GROUP = "unpacked"
PROGRAMS = ("prometheus", "promtool")
PAGES = Path("usr") / "share" / "prometheus" / "web"
TIMES = (
    "moment-timezone-with-data.min.js"  # The one of its 156 files, 214 MB, that the pages ask for.
)


def key() -> str:
    return store.key_of(*apt.packages([GROUP]), "recipe 2")


def _unasked(folder: str, names: list[str]) -> set[str]:
    """What lies beside the files that the pages ask for."""
    is_times = Path(folder).name == "moment-timezone"
    return {name for name in names if name.endswith(".map") or (is_times and name != TIMES)}


def _make(part: Path, _final: Path) -> None:
    folder = paths.cache() / "wheels-prometheus"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    apt.download(apt.packages([GROUP]), folder)
    for package in sorted(folder.glob("*.deb")):
        run.logged(["dpkg-deb", "--extract", package, folder / "root"], "unpack")
    for name in PROGRAMS:
        program = folder / "root" / "usr" / "bin" / name
        if not program.exists():
            raise say.Stop(f"the packages of the group {GROUP} hold no {name}")
        shutil.copy2(program, part / name)
    # Its scripts are links into the other packages.
    shutil.copytree(folder / "root" / PAGES, part / "web", ignore=_unasked)
    shutil.rmtree(folder)


def ensure() -> Path:
    """The folder of the programs, made when absent or damaged."""
    return store.ensure("prometheus", key(), _make)


def present() -> bool:
    return (paths.cache() / f"prometheus-{key()}").exists()
