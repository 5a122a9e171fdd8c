"""./dev campaign soak: users, faults and restarts around a real server, for an hour or as asked."""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.integration.vllm import harness
from tests.soak import book
from tests.soak.campaign import Campaign, Options
from tests.soak.conversations import Turn
from tests.soak.place import Place
from tests.soak.site import DISK_BLOCKS, ENGINE_BLOCKS, HOST_BLOCKS, LONGEST, Site

import sessions
from engine_env import ROOT

WORK = ROOT / "build" / "soak"
REAL_BLOCK_BYTES = (
    1_474_560  # SmolLM2-135M in float32: 30 layers of 3 heads, K and V of 64, 32 tokens.
)
INTERRUPTED = 130  # The exit status, as shells have it.
COVERED_FROM_S = 900.0  # A shorter run need not have seen everything.


def say(text: str) -> None:
    print(text, flush=True)


def write(report: dict[str, Any], name: str) -> int:
    """The report as one line and as a file; the exit status."""
    path = WORK / name
    path.write_text(json.dumps(report, indent=1) + "\n")
    for found in report["findings"]:
        say(f"found: {found['what']}: {found['detail']}")
    if report["findings"]:
        say(f"the same again: --seed {report['seed']}; outputs: {WORK}")
    say(json.dumps(report))
    return 0 if report["passed"] else 1


def run(place: Place, turns: Sequence[Turn], options: Options) -> dict[str, Any]:
    """The report; its server ends with it, whatever happens."""
    try:
        return Campaign(place, turns, options, say).run()
    finally:
        place.close()


def ended(main: Callable[[], int]) -> int:
    """The exit status of `main`; when it is interrupted, too, nothing of it goes on."""
    try:
        with sessions.ending():
            return main()
    except KeyboardInterrupt:
        say("interrupted; nothing of it goes on")
        return INTERRUPTED


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev campaign soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--no-actions", action="store_true", help="users alone: nothing befalls it")
    asked = parser.parse_args()
    model = Path(harness.model("float32"))
    say(f"soak of {asked.minutes:g} minutes, seed {asked.seed}; the engine alone answers first")
    turns = book.read(WORK, model)
    options = Options(
        asked.seed, asked.minutes * 60, longest=LONGEST, has_actions=not asked.no_actions
    )
    if options.seconds >= COVERED_FROM_S:
        tiers = {"host": HOST_BLOCKS, "disk": DISK_BLOCKS}
        options = dataclasses.replace(options, tiers=tiers)
    site = Site(WORK / "site", model, ENGINE_BLOCKS * REAL_BLOCK_BYTES)
    return write(run(site, turns, options), "report.json")


if __name__ == "__main__":
    sys.exit(ended(main))
