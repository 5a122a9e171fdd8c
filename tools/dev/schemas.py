"""The schema of compose files and a validator for tests, in a folder of their own in the cache."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from dev import paths, say, store, venv

COMPOSE = Path("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"


def key() -> str:
    return store.key_of((paths.REQUIREMENTS / "schemas.txt").read_text(), "recipe 1")


def folder() -> Path:
    """Where they lie, made or not."""
    return paths.cache() / f"schemas-{key()}"


def _make(part: Path, _final: Path) -> None:
    wheels = paths.cache() / "wheels-schemas"
    venv.download(venv.python(), "schemas", wheels)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(part)
    if not (part / COMPOSE).exists():
        raise say.Stop(f"the pins of requirements/schemas.txt hold no {COMPOSE}")
    shutil.rmtree(wheels)


def ensure() -> Path:
    """The folder, made when absent or damaged."""
    return store.ensure("schemas", key(), _make)
