"""./dev demo: sets up without the check tools, builds, and hands over to tools/demo."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dev import build, host, paths, run, say, setup, venv
from engine_env import program_environment

S3_MEMORY = 6 * host.GIB  # Two engines of 2 GiB with their host tiers, the server, the system.


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="./dev demo",
        description="Serves one conversation from every tier, on the real engine. Writes "
        "build/demo/report.json and report.html; fails when an answer differs or a tier served "
        "nothing. After a break run it again: what was downloaded, installed and built is kept.",
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--stay", action="store_true", help="leave the server running at the end")
    only.add_argument(
        "--s3",
        action="store_true",
        help="instead: two engines at once, with host tiers of their own, that share what they "
        f"computed through an S3 server ({S3_MEMORY // host.GIB} GiB of memory)",
    )
    only.add_argument(
        "--stack",
        action="store_true",
        help="instead: an engine, Prometheus and the web page under a small load, to look around, "
        "until ^C ends all of it",
    )
    parser.add_argument(
        "--port",
        type=int,
        metavar="N",
        help="--stack: take this port of 127.0.0.1 and the three after it (8800)",
    )
    parser.add_argument(
        "--plan", action="store_true", help="print what it would install and need, and do nothing"
    )
    options = parser.parse_args(arguments)
    if options.port is not None and not options.stack:
        parser.error("--port is for --stack; without it any free port is taken")
    if options.plan:
        setup.explain()
        return 0
    if options.s3 and (memory := host.read().memory) < S3_MEMORY:
        raise say.Stop(
            f"two engines and an S3 server need {S3_MEMORY // host.GIB} GiB of memory; this "
            f"machine has {memory / host.GIB:.1f} GiB",
            "./dev demo, with one engine, needs less",
        )
    setup.require(quiet=False)
    build.build("release", ["lib/libterrace.so", "bin/terrace"])
    (paths.BUILD / "demo").mkdir(parents=True, exist_ok=True)
    chosen = ["--stay"] * options.stay + ["--s3"] * options.s3 + ["--stack"] * options.stack
    chosen += [] if options.port is None else ["--port", str(options.port)]
    return run.shown([venv.python(), "-m", "demo", *chosen], env=program_environment())
