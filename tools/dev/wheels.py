"""Packages that are no part of the environment, each lot unpacked into a folder in the cache."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from dev import paths, say, store, venv


def key(kind: str) -> str:
    return store.key_of((paths.REQUIREMENTS / f"{kind}.txt").read_text(), "recipe 1")


def folder(kind: str) -> Path:
    """Where those of requirements/KIND.txt lie, made or not."""
    return paths.cache() / f"{kind}-{key(kind)}"


def ensure(kind: str, wanted: Path) -> Path:
    """The folder, made when absent or damaged. `wanted`: a file that has to be in it."""

    def make(part: Path, _final: Path) -> None:
        wheels = paths.cache() / f"wheels-{kind}"
        shutil.rmtree(wheels, ignore_errors=True)  # Of other pins, perhaps.
        venv.download(venv.python(), kind, wheels)
        for wheel in wheels.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(part)
        if not (part / wanted).exists():
            raise say.Stop(f"the pins of requirements/{kind}.txt hold no {wanted}")
        shutil.rmtree(wheels)

    return store.ensure(kind, key(kind), make)
