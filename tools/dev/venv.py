"""The Python environment: the engine, the test tools, and nothing that is not locked."""

from __future__ import annotations

import os
import platform
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


def key() -> str:
    """Changes with each lock file, the interpreter and this module's recipe."""
    parts = [platform.python_version(), os.path.realpath(sys.executable), "recipe 1"]
    parts += [(paths.REQUIREMENTS / f"{name}.txt").read_text() for name in LOCKS]
    return store.key_of(*parts)


def pip_environment() -> dict[str, str]:
    """pip's cache lies inside ours, so that `./dev clean --all` removes it too."""
    return {
        "PIP_CACHE_DIR": str(paths.cache() / "pip"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_RETRIES": "10",
        "PIP_TIMEOUT": "60",
    }


def _install(python: Path, lock: str, way_out: str) -> None:
    requirements = paths.REQUIREMENTS / f"{lock}.txt"
    arguments: list[str | Path] = [python, "-m", "pip", "install", "--no-deps", "--require-hashes"]
    arguments += ["--only-binary=:all:", "-r", requirements]
    text = f"install the pins of {paths.relative(requirements)}"
    run.stepped(text, arguments, f"pip-{lock}", env=pip_environment(), way_out=way_out)


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
    _install(python, "torch", NO_CPU_TORCH)
    _check_torch(python)
    _install(python, "vllm", "if the network failed, run again: what was downloaded is kept")
    _install(python, "tools", "if the network failed, run again: what was downloaded is kept")
    _check_imports(python)
    _rewrite_paths(part, final)


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
