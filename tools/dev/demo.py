"""./dev demo: sets up without the check tools, builds, and hands over to tools/demo."""

from __future__ import annotations

from collections.abc import Sequence

from dev import build, paths, run, say, setup, venv
from dev.test import paths_environment


def main(arguments: Sequence[str]) -> int:
    unknown = [word for word in arguments if word != "--stay"]
    if unknown:
        raise say.Stop(f"demo does not know {unknown[0]}", "it takes --stay or nothing")
    setup.require(quiet=False)
    build.build("release", ["lib/libterrace.so", "bin/terrace"])
    (paths.BUILD / "demo").mkdir(parents=True, exist_ok=True)
    return run.shown([venv.python(), "-m", "demo", *arguments], env=paths_environment())
