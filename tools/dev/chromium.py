"""Debian's headless Chromium, unpacked into the cache folder for the test of the web page.

It is not installed: with what it depends on it would change the system for one test. What the
system lacks of that is unpacked beside it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from dev import apt, paths, run, say, store

GROUP = "browser"
PROGRAM = Path("usr") / "lib" / "chromium" / "chromium-headless-shell"


def key() -> str:
    return store.key_of(*apt.packages([GROUP]), "recipe 2")


def _make(part: Path, _final: Path) -> None:
    folder = paths.cache() / "wheels-chromium"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wanted = apt.packages([GROUP])
    apt.download(sorted({*wanted, *apt.lacking(wanted)}), folder)
    for package in sorted(folder.glob("*.deb")):
        run.logged(["dpkg-deb", "--extract", package, part], "unpack")
    shutil.rmtree(folder)
    if not (part / PROGRAM).exists():
        raise say.Stop(f"the packages of the group {GROUP} hold no {PROGRAM}")


def ensure() -> Path:
    """The folder with its `usr`, made when absent or damaged."""
    return store.ensure("chromium", key(), _make)


def present() -> bool:
    return (paths.cache() / f"chromium-{key()}").exists()
