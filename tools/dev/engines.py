"""Other releases of the engine, each unpacked into a folder of its own in the cache.

They share the environment's other packages: put first on the module path, such a folder hides the
environment's own engine.  `requirements/vllm-RELEASE.txt` pins each.
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from dev import paths, run, say, store, venv
from engine_env import ENGINE_VARIABLE, engine_env


def lock_name(release: str) -> str:
    return f"vllm-{release}"


def kinds() -> list[str]:
    """The kinds of cache entries that ensure() makes."""
    return sorted(path.stem for path in paths.REQUIREMENTS.glob("vllm-*.txt"))


def _check_import(folder: Path, release: str) -> None:
    run.stepped(
        f"import vLLM {release} once",
        [
            venv.python(),
            "-c",
            f"import vllm; assert vllm.__version__.startswith('{release}.'), vllm.__version__",
        ],
        f"import-{release}",
        env={**engine_env(paths.BUILD / "import"), "PYTHONPATH": str(folder)},
        way_out="this release does not run with the packages of requirements/vllm.txt",
    )


def ensure(release: str) -> Path:
    """The folder with that release's `vllm` package, made when absent or damaged."""
    lock = paths.REQUIREMENTS / f"{lock_name(release)}.txt"
    if not lock.exists():
        known = ", ".join(kinds())
        raise say.Stop(f"{paths.relative(lock)} is not there", f"known are: {known}")

    def make(part: Path, _final: Path) -> None:
        wheels = paths.cache() / f"wheels-{lock_name(release)}"
        venv.download(venv.python(), lock_name(release), wheels)
        with zipfile.ZipFile(next(wheels.glob("*.whl"))) as archive:
            archive.extractall(part)
        _check_import(part, release)
        shutil.rmtree(wheels)

    return store.ensure(lock_name(release), store.key_of(lock.read_text(), venv.key()), make)


def environment(release: str) -> dict[str, str]:
    """What makes engine_env() start this release."""
    return {ENGINE_VARIABLE: str(ensure(release))}
