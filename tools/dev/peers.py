"""Other caches that `./dev bench peers` measures beside Terrace, in a folder of their own."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from dev import paths, run, store, venv
from engine_env import engine_env

VARIABLE = "TERRACE_BENCH_PEERS"
MODULES = "lmcache.v1.storage_backend.local_disk_backend, nixl_cu12._api"


def key() -> str:
    """Also the environment's: its torch and numpy are what they run with."""
    return store.key_of((paths.REQUIREMENTS / "peers.txt").read_text(), venv.key(), "recipe 1")


def _make(part: Path, _final: Path) -> None:
    wheels = paths.cache() / "wheels-peers"
    venv.download(venv.python(), "peers", wheels)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(part)
    run.stepped(
        "import the peers once",
        [venv.python(), "-c", f"import {MODULES}"],
        "import-peers",
        env={**engine_env(paths.BUILD / "import"), "PYTHONPATH": str(part)},
        way_out="a peer needs a package that requirements/peers.in does not name",
    )
    shutil.rmtree(wheels)


def ensure() -> Path:
    """The folder of their packages, made when absent or damaged."""
    return store.ensure("peers", key(), _make)


def environment() -> dict[str, str]:
    return {VARIABLE: str(ensure())}
