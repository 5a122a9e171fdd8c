"""./dev terrace: the command line program of this tree, built when it is not there."""

from __future__ import annotations

from collections.abc import Sequence

from dev import build, run, setup

PROGRAM = build.folder("release") / "bin" / "terrace"


def main(arguments: Sequence[str]) -> int:
    if not PROGRAM.exists():
        setup.require(("build",), engine=False)
        build.build("release", ["bin/terrace"])
    return run.shown([PROGRAM, *arguments])
