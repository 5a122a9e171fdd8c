"""The environment an engine runs in: offline, silent, and with every file inside one work folder.

Integration tests, benches and the demo all start engines through this, so that they agree.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Folder of another release of the engine, to be taken instead of the environment's own.
ENGINE_VARIABLE = "TERRACE_TEST_ENGINE"
LIBRARY = ROOT / "build" / "release" / "lib" / "libterrace.so"
# A socket's path ends at 107 bytes. The engine opens TMPDIR/<36 characters>, and Terrace takes
# $XDG_RUNTIME_DIR/terrace (8 characters) up to a length of 66.
LONGEST_TMPDIR = min(107 - 1 - 36 - 4, 66 - 8)


def installed() -> dict[str, Path]:
    """What ./dev setup made: venv, services, prometheus, chromium, and the models."""
    try:
        listed = json.loads((ROOT / "build" / "env.json").read_text())
    except OSError as error:
        raise RuntimeError(f"run ./dev setup first ({error})") from error
    return {name: Path(path) for name, path in listed.items()}


def scratch() -> Path:
    """One folder for all that tests, benches and demo leave outside build/; ./dev clean --all
    removes it."""
    base, name = Path(tempfile.gettempdir()), f"terrace-dev-{os.getuid()}"
    return base if base.name == name else base / name


def scratch_environment() -> dict[str, str]:
    """Sends temporary files and sockets into `scratch()`."""
    folder = scratch()
    for path in (folder, folder / "run"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {"TMPDIR": str(folder), "XDG_RUNTIME_DIR": str(folder / "run")}


def program_environment() -> dict[str, str]:
    """What tests, benches and the demo need to find the package and the library of this tree, and
    where they write."""
    return {
        **scratch_environment(),
        "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("python", "tools", ".")),
        "TERRACE_LIBRARY": str(LIBRARY),
    }


def _temporary(work: Path) -> Path:
    """For sockets and scratch files: in `work`, unless its path is too long for sockets."""
    inside = work / "tmp"
    if len(str(inside)) <= LONGEST_TMPDIR:
        return inside
    return scratch() / hashlib.sha256(str(inside).encode()).hexdigest()[:12]


def engine_env(work: Path, *, multiprocessing: bool = False) -> dict[str, str]:
    """The whole environment for a process that runs vLLM; makes the folders it names.

    `multiprocessing` starts engine core and workers as processes of their own; the script then
    needs a `__main__` guard.  Settings of Terrace and of the engine found outside do not pass.
    """
    work = work.resolve()
    folders = {
        "HF_HOME": work / "hf",
        "VLLM_CACHE_ROOT": work / "vllm-cache",
        "VLLM_CONFIG_ROOT": work / "vllm-config",
        "XDG_CACHE_HOME": work / "cache",
        "XDG_CONFIG_HOME": work / "config",
        "TORCHINDUCTOR_CACHE_DIR": work / "inductor",
        "TMPDIR": _temporary(work),
        "XDG_RUNTIME_DIR": _temporary(work),
    }
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    ours = [str(ROOT / name) for name in ("python", "tools", ".")]
    modules = [os.environ.get(ENGINE_VARIABLE), *ours]
    foreign = ("VLLM_", "TERRACE_", "DYN_KVBM_", "PYTHON")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    env.update({name: str(folder) for name, folder in folders.items()})
    env.update(
        {
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            "VLLM_LOGGING_LEVEL": "WARNING",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "1" if multiprocessing else "0",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(name for name in modules if name),
            "TERRACE_LIBRARY": str(LIBRARY),
        }
    )
    return env


def transfer_config(settings: dict[str, Any], role: str = "kv_both") -> dict[str, Any]:
    """vLLM's `kv_transfer_config` that turns Terrace on with these settings."""
    return {
        "kv_connector": "TerraceConnector",
        "kv_connector_module_path": "terrace.connectors.vllm",
        "kv_role": role,
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": settings,
    }
