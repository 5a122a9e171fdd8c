"""./dev terrace: the command of this tree, native program and Python package, built first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dev import build, paths, run, say, setup
from engine_env import LIBRARY, installed

PROGRAM = build.folder("release") / "bin" / "terrace"
# Those that python/terrace/cli does itself; they may start an engine.
OF_THE_PACKAGE = ("serve", "selftest", "doctor", "migrate-config")


def main(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] in OF_THE_PACKAGE:
        return _package(arguments)
    with say.on_stderr(True):
        setup.require(("build",), engine=False)
        build.build("release", ["bin/terrace"])
    return run.shown([PROGRAM, *arguments], cwd=Path.cwd())


def _package(arguments: Sequence[str]) -> int:
    with say.on_stderr(True):  # Standard output is the command's: JSON, a settings file.
        setup.require()
        build.build("release", ["lib/libterrace.so", "bin/terrace"])
    env = os.environ | {
        "PYTHONPATH": str(paths.ROOT / "python"),
        "TERRACE_LIBRARY": str(LIBRARY),
        "TERRACE_PROGRAM": str(PROGRAM),
    }
    python = installed()["venv"] / "bin" / "python"
    return run.shown([python, "-m", "terrace.cli", *arguments], cwd=Path.cwd(), env=env)
