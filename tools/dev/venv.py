"""The Python environment: the engine, the test tools, and nothing that is not locked."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

from dev import paths, run, say, store
from engine_env import engine_env

LOCKS = ("torch", "vllm", "tools")
TORCH_VERSION = "2.13.0+cpu"
NO_CPU_TORCH = (
    "the plain torch on the package index is a CUDA build of gigabytes, so it is not taken; add "
    "PyTorch's source of CPU wheels to pip's settings (extra-index-url or find-links), run again"
)

BATCH = 25
AGAIN = "if the network failed, run again: what was downloaded is kept"


def key() -> str:
    """Changes with each lock file, the interpreter and this module's recipe."""
    parts = [platform.python_version(), os.path.realpath(sys.executable), "recipe 1"]
    parts += [(paths.REQUIREMENTS / f"{name}.txt").read_text() for name in LOCKS]
    return store.key_of(*parts)


def pip_environment() -> dict[str, str]:
    """pip keeps no cache of its own: it would lie outside our folder and double the disk use."""
    return {
        "PIP_NO_CACHE_DIR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_RETRIES": "10",
        "PIP_TIMEOUT": "60",
    }


def batches(lock: str) -> list[list[str]]:
    """The lines of a lock, a few at a time: pip keeps what it downloaded only at its end."""
    text = (paths.REQUIREMENTS / f"{lock}.txt").read_text()
    rows = [row for row in text.splitlines() if row and not row.startswith("#")]
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def download(python: Path, lock: str, wheels: Path, way_out: str = AGAIN) -> None:
    """Brings the files of one lock into `wheels`; what a broken run left there is kept."""
    wheels.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [python, "-m", "pip", "download"]
    command += ["--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "-d", wheels]
    listed = batches(lock)
    for number, rows in enumerate(listed, start=1):
        some = wheels / "some.txt"
        some.write_text("\n".join(rows) + "\n")
        part = f" ({number} of {len(listed)})" if len(listed) > 1 else ""
        run.stepped(
            f"download the pins of requirements/{lock}.txt{part}",
            [*command, "-r", some],
            f"download-{lock}",
            env=pip_environment(),
            way_out=way_out,
        )


def _install(python: Path, lock: str, wheels: Path) -> None:
    requirements = paths.REQUIREMENTS / f"{lock}.txt"
    arguments: list[str | Path] = [python, "-m", "pip", "install", "--no-deps", "--require-hashes"]
    arguments += ["--no-index", "--find-links", wheels, "-r", requirements]
    text = f"install the pins of {paths.relative(requirements)}"
    run.stepped(text, arguments, f"install-{lock}", env=pip_environment())


def _check_torch(python: Path) -> None:
    """Before anything else is downloaded; torch cannot be imported yet without its neighbours."""
    ask = "import importlib.metadata as m; print(m.version('torch'))"
    code, text = run.captured([python, "-c", ask])
    version = text.strip()
    if code != 0 or version != TORCH_VERSION:
        raise say.Stop(f"torch reports '{version}' instead of {TORCH_VERSION}", NO_CPU_TORCH)


def _check_imports(python: Path) -> None:
    modules = "vllm, torch, transformers, safetensors, gguf, pytest, mypy"
    run.stepped(
        "import the engine once",
        [python, "-c", f"import {modules}; assert torch.__version__ == '{TORCH_VERSION}'"],
        "import",
        env=engine_env(paths.BUILD / "import"),
        way_out="a lock file lacks a package, or a system library (libnuma1) is missing",
    )


def _rewrite_paths(part: Path, final: Path) -> None:
    """Puts the final name into the scripts that pip wrote with the temporary one."""
    old, new = str(part).encode(), str(final).encode()
    for path in [*(part / "bin").iterdir(), part / "pyvenv.cfg"]:
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if old in content:
                path.write_bytes(content.replace(old, new))


def _make(part: Path, final: Path) -> None:
    run.stepped(
        "create the Python environment",
        [sys.executable, "-m", "venv", part],
        "venv",
        way_out="the package python3-venv is needed; ./dev setup installs it",
    )
    python = part / "bin" / "python"
    wheels = paths.cache() / "wheels-venv"
    download(python, "torch", wheels, NO_CPU_TORCH)
    _install(python, "torch", wheels)
    _check_torch(python)
    for lock in ("vllm", "tools"):
        download(python, lock, wheels)
        _install(python, lock, wheels)
    _check_imports(python)
    _rewrite_paths(part, final)
    shutil.rmtree(wheels)


def ensure() -> Path:
    """The environment's folder, made when absent or damaged."""
    return store.ensure("venv", key(), _make)


def present() -> Path | None:
    """The environment's folder if it is there; no check of its content."""
    folder = paths.cache() / f"venv-{key()}"
    return folder if (folder / store.MANIFEST).exists() else None


def python() -> Path:
    folder = present()
    if folder is None:
        raise say.Stop("the Python environment is not there yet", "run ./dev setup")
    return folder / "bin" / "python"
