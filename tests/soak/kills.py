"""./dev campaign kills: kill -9 at random moments under load, and what the next start finds.

Most servers have a small random model and are forked from a process that has imported the engine;
the rest are started as users start them, with the real model. Each goes on over the directory of
the last one.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.vllm import harness
from tests.soak import book, judge
from tests.soak.clock import Clock, RealClock
from tests.soak.conversations import Turn
from tests.soak.crew import Crew
from tests.soak.judge import Facts, Finding
from tests.soak.nursery import Nursery
from tests.soak.place import Asked, Place
from tests.soak.site import ENGINE_BLOCKS, LONGEST, Site
from tests.soak.soak import REAL_BLOCK_BYTES, WORK, ended, say, write

TINY_BLOCK_BYTES = 131_072  # 4 layers of 2 heads, K and V of 64, 32 tokens, float32.
TARGETS = ("server", "core", "worker", "all")
ASKED_AFTER = 4  # Turns after each restart.
LOAD_S = (0.02, 2.5)
REST_LIMIT_S = 60.0
SAY_EVERY_S = 30.0
ORPHANS_S = 1.0  # How long they may go on beside nobody, ten times as often as the real ones.
REAL_EVERY = 20  # One kill of so many has the real model.
MOST_FINDINGS = 20


@dataclass
class Story:
    """Servers one after the other over one directory."""

    place: Place
    turns: Sequence[Turn]
    seed: int
    name: str
    users: int = 5
    load_s: tuple[float, float] = LOAD_S
    rest_limit_s: float = REST_LIMIT_S
    findings: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    sealed: int = 0  # On disk, shortly before the last kill.
    clock: Clock = field(default_factory=RealClock)

    def run(self, kills: int, say_progress: Callable[[int, int], None]) -> None:
        """So many kills, and a last start after them."""
        rng = random.Random(f"{self.seed}/{self.name}")
        for number in range(kills + 1):
            target = TARGETS[number % len(TARGETS)]
            load_s = rng.uniform(*self.load_s)
            self._life(number, rng, None if number == kills else target, load_s)
            say_progress(number, kills)
            if len(self.findings) >= MOST_FINDINGS:
                return

    def _life(self, number: int, rng: random.Random, target: str | None, load_s: float) -> None:
        """Start, ask what was asked before, load, kill."""
        began = self.clock.now()
        crew = Crew(self.place, self.turns, self.users, f"{self.seed}/{self.name}/{number}")
        crew.facts = Facts(longest=LONGEST)
        row: dict[str, Any] = {"number": number, "target": target, "load_s": round(load_s, 3)}
        try:
            self.place.start()
            row["ready_s"] = round(self.clock.now() - began, 1)
            self._look(crew, rng, row, is_first=number == 0)
            if target is not None:
                self._load_and_kill(crew, target, load_s, row)
        except Exception as error:
            crew.tally.find([Finding("harness", repr(error))])
            self.place.kill()
        row["took_s"] = round(self.clock.now() - began, 1)
        row["answers"] = crew.tally.counts["answers"]
        self.findings += [found | row for found in crew.tally.findings]
        self.rows.append(row)

    def _look(self, crew: Crew, rng: random.Random, row: dict[str, Any], *, is_first: bool) -> None:
        """The answers of the new server, then its health."""
        hits = 0
        for turn in rng.sample(list(self.turns), ASKED_AFTER):
            ledger = crew.ask(Asked(turn.prompt), turn) or {"hit_tokens": {}}
            hits += ledger["hit_tokens"].get("disk", 0)
        row["disk_tokens"] = hits
        deadline = self.clock.now() + self.rest_limit_s
        while True:
            status, metrics = self.place.status(), self.place.metrics()
            found = judge.unrest(status, metrics)
            if not found or self.clock.now() >= deadline:
                break
            self.clock.pause(0.05)
        found += judge.health(status, crew.facts)
        found += judge.counters(metrics, {}, crew.facts, 0.0)
        found += judge.output(self.place.output())
        if not is_first:
            found += judge.restarted(metrics, self.sealed, crew.facts)
        row["adopted"] = int(metrics.get("terrace_disk_adopted_blocks_total", 0))
        crew.tally.find(found)

    def _load_and_kill(self, crew: Crew, target: str, load_s: float, row: dict[str, Any]) -> None:
        crew.start()
        try:
            self.clock.pause(load_s)
            status = self.place.status()
            disk = [tier for tier in status["tiers"] if tier["tier"] == "disk"]
            self.sealed = sum(tier["slots"]["sealed"] for tier in disk)
            row["sealed"] = self.sealed
        finally:
            crew.turnstile.take_away()
            row["outlived"] = not self.place.kill(target)
            if not crew.end():
                crew.tally.find([Finding("requests hang", "a user did not come back")])


def report(seed: int, stories: Sequence[Story], seconds: float) -> dict[str, Any]:
    """The whole as one object; it fails, too, where no restart hit from disk."""
    found: list[dict[str, Any]] = []
    parts: dict[str, Any] = {}
    for story in stories:
        restarts = story.rows[1:]
        hits = sum(row.get("disk_tokens", 0) > 0 for row in restarts)
        took = [row["took_s"] for row in restarts]
        found += story.findings
        if restarts and not hits:
            found.append({"what": "not covered", "detail": f"{story.name}: no hit from disk"})
        parts[story.name] = {
            "kills": sum("outlived" in row for row in story.rows),
            "restarts": len(restarts),
            "hit_from_disk": hits,
            "outlived": sum(row.get("outlived", False) for row in story.rows),
            "median_s_per_kill": statistics.median(took) if took else None,
            "answers": sum(row["answers"] for row in story.rows),
            "by_target": {
                target: sum(row["target"] == target for row in story.rows) for target in TARGETS
            },
        }
    whole = {"campaign": "kills", "seed": seed, "passed": not found, "findings": found}
    rows = {story.name: story.rows for story in stories}
    return whole | {"seconds": round(seconds), "models": parts, "rows": rows}


def _progress(name: str) -> Callable[[int, int], None]:
    clock = RealClock()
    last = [clock.now()]

    def tell(number: int, kills: int) -> None:
        if clock.now() - last[0] >= SAY_EVERY_S:
            last[0] = clock.now()
            say(f"{name}: {number} of {kills} kills")

    return tell


def _tiny(seed: int, kills: int) -> Story:
    model = WORK / "tiny"
    if not (model / "model.safetensors").exists():
        own: dict[str, Any] = {"folder": str(model), "tokenizer": harness.model("float32")}
        harness.run(WORK, "tiny.make", kind="talking", **own)
    turns = book.read(WORK, model)
    nursery = Nursery(WORK / "nursery")
    site = Site(
        WORK / "kills-tiny", model, ENGINE_BLOCKS * TINY_BLOCK_BYTES, nursery.serve, ORPHANS_S
    )
    story = Story(site, turns, seed, "tiny")
    try:
        story.run(kills, _progress("tiny model"))
    finally:
        site.close()
        nursery.close()
    return story


def _real(seed: int, kills: int) -> Story:
    model = Path(harness.model("float32"))
    site = Site(WORK / "kills-real", model, ENGINE_BLOCKS * REAL_BLOCK_BYTES)
    # Its steps are slower: the same moments take longer to come by.
    story = Story(site, book.read(WORK, model), seed, "real", load_s=(0.1, 10.0))
    try:
        story.run(kills, _progress("real model"))
    finally:
        site.close()
    return story


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev campaign kills", description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    asked = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    real = max(1, asked.count // REAL_EVERY)
    say(f"{asked.count} kills, {real} of them with the real model, seed {asked.seed}")
    clock = RealClock()
    began = clock.now()
    stories = [_tiny(asked.seed, asked.count - real), _real(asked.seed, real)]
    found = report(asked.seed, stories, clock.now() - began)
    for name, part in found["models"].items():
        say(
            f"{name} model: {part['kills']} kills, {part['hit_from_disk']} of {part['restarts']} "
            f"restarts hit from disk, {part['median_s_per_kill']} s per kill"
        )
    rows = found.pop("rows")
    (WORK / "kills-rows.json").write_text(json.dumps(rows, indent=1) + "\n")
    return write(found, "kills.json")


if __name__ == "__main__":
    sys.exit(ended(main))
