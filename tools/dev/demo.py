"""./dev demo: sets up without the check tools, builds, and hands over to tools/demo."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dev import build, paths, run, setup, venv
from dev.test import paths_environment


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="./dev demo",
        description="Serves one conversation from every tier, on the real engine. Writes "
        "build/demo/report.json and report.html; fails when an answer differs or a tier served "
        "nothing. After a break run it again: what was downloaded, installed and built is kept.",
    )
    parser.add_argument("--stay", action="store_true", help="leave the server running at the end")
    parser.add_argument(
        "--plan", action="store_true", help="print what it would install and need, and do nothing"
    )
    options = parser.parse_args(arguments)
    if options.plan:
        setup.explain()
        return 0
    setup.require(quiet=False)
    build.build("release", ["lib/libterrace.so", "bin/terrace"])
    (paths.BUILD / "demo").mkdir(parents=True, exist_ok=True)
    stay = ["--stay"] if options.stay else []
    return run.shown([venv.python(), "-m", "demo", *stay], env=paths_environment())
