"""`vllm-throttle`: never slower than off, however slow the disk.

One engine, one user. The prompts lie on disk and not in host; a token bucket in the fault decorator
(`bench/throttled_backend.cc`) makes the disk slower, from its full speed down to a thousandth. Each
prompt is asked twice, in turn which way first: with Terrace, and by a request that opts out of it
(`mode: off`), the engine's own cache empty both times. The planner decides what to load. Where the
choice is close a second engine, which loads whatever is found (`planner.enabled: false`), answers
each prompt in between: the planner stands beside the better of the two fixed choices.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[2] / "tools"),
]

from bench.vllm import lines  # noqa: E402
from bench.vllm.engine import BYTES_PER_TOKEN, make_empty  # noqa: E402
from bench.vllm.side import BLOCK_TOKENS, THROTTLED, WRITTEN, Side, side  # noqa: E402
from bench.vllm.ttft import fio_rate  # noqa: E402

from engine_env import ROOT  # noqa: E402

WORK = ROOT / "build" / "bench" / "vllm-throttle"
TOKENS = 1536
# Asked for in turn: host, which a waiting request may pin half of, has none of it by then.
PROMPTS, HOST_PROMPTS = 5, 2.05
GOAL, FIXED_GOAL = 1.02, 1.05
PUT_LIMIT_S, ATTEMPTS = 5.0, 6
SLOWER = 1.05  # A load that took longer than computing: by more than requests vary.


@dataclass(frozen=True)
class Plan:
    shares: tuple[float, ...]  # Of the disk's full speed.
    learning: int  # Pairs not counted: the planner has to see that the disk has changed.
    pairs: int
    close: tuple[float, ...]  # Shares at which the engine that always loads answers, too.


FULL = Plan((1, 0.1, 0.03, 0.01, 0.003, 0.001), 4, 20, (0.03, 0.01, 0.003))
SHORT = Plan((1, 0.001), 1, 3, (0.001,))


@dataclass
class Pairs:
    """Seconds to the first token, of the same prompts; and what the ledger says of Terrace's."""

    on: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)
    ledgers: list[dict[str, Any]] = field(default_factory=list)
    always: list[float] = field(default_factory=list)


def say(text: str) -> None:
    print(f"vllm-throttle: {text}", file=sys.stderr, flush=True)


def prompt(number: int) -> list[int]:
    return [(7919 * (i + 1) + 104_729 * number) % 48_000 + 100 for i in range(TOKENS)]


def ask(one: Side, tokens: list[int], mode: str = "on") -> dict[str, Any]:
    one.ask("forget")
    asked = [{"tokens": tokens, "answer": 2, "mode": mode}]
    row: dict[str, Any] = one.ask("serve", asked=asked, at_once=1)["rows"][0]
    return row


def run_pairs(
    one: Side,
    count: int,
    shares: Sequence[float],
    full: float,
    pairs: Pairs,
    always: Side | None = None,
) -> None:
    """`count` pairs, each at the next of `shares`; `always` answers between the two."""
    for number in range(count):
        rate = full * shares[number % len(shares)]
        one.ask("throttle", bytes_per_second=rate)
        tokens = prompt(len(pairs.on) % PROMPTS)
        for mode in (("on", "always", "off"), ("off", "always", "on"))[number % 2]:
            if mode == "always":
                if always is not None:
                    always.ask("throttle", bytes_per_second=rate)
                    pairs.always.append(ask(always, tokens)["ttft"])
                continue
            row = ask(one, tokens, mode)
            (pairs.on if mode == "on" else pairs.off).append(row["ttft"])
            if mode == "on":
                pairs.ledgers.append(row["ledger"])


def loaded(ledger: dict[str, Any]) -> int:
    return sum((ledger.get("hit_tokens") or {}).values())


def emit(name: str, pairs: Pairs, learned: Pairs, facts: dict[str, Any]) -> None:
    count = len(pairs.on)
    loads = [i for i in range(count) if loaded(pairs.ledgers[i])]
    slow = [i for i in loads if pairs.on[i] > SLOWER * pairs.off[i]]
    ratios = [a / b for a, b in zip(pairs.on, pairs.off, strict=True)]
    params = {
        **facts,
        "tokens": TOKENS,
        "goal": GOAL,
        "ratio_90": lines.interval(ratios),
        "hit_share": sum(map(loaded, pairs.ledgers)) / (count * TOKENS),
        "disk_share": sum((one.get("hit_tokens") or {}).get("disk", 0) for one in pairs.ledgers)
        / (count * TOKENS),
        "loads": len(loads),
        "slow_loads": len(slow),
        "worst": max(ratios),
        "while_learning": [a / b for a, b in zip(learned.on, learned.off, strict=True)],
    }
    lines.emit(name, params, "s", pairs.on, "the same engine, Terrace off", pairs.off)


def emit_best(pairs: Pairs, facts: dict[str, Any]) -> None:
    """The planner beside the better fixed choice: always to load, or never."""
    choices = {"always": pairs.always, "never": pairs.off}
    best = min(choices, key=lambda name: statistics.median(choices[name]))
    ratios = [a / b for a, b in zip(pairs.on, choices[best], strict=True)]
    params = {
        **facts,
        "tokens": TOKENS,
        "goal": FIXED_GOAL,
        "best": best,
        "ratio_90": lines.interval(ratios),
    }
    lines.emit("vllm-throttle.best", params, "s", pairs.on, f"{best} loading", choices[best])


def store(one: Side) -> None:
    """All prompts on disk. Errors: RuntimeError where the disk tier does not write."""
    size = TOKENS // BLOCK_TOKENS * BLOCK_TOKENS * BYTES_PER_TOKEN
    for _ in range(ATTEMPTS):
        for number in range(PROMPTS):  # What was dropped is offered again when host evicts it.
            ask(one, prompt(number))
        ask(one, [5, 6, 7])  # The report of a request's last step comes with the next step.
        if wait_for_writes(one, PROMPTS * size):
            return
    queues = json.loads(one.ask("status")["text"]).get("queues")
    raise RuntimeError(f"the prompts are not on disk after {ATTEMPTS} times: {queues}")


def wait_for_writes(one: Side, wanted: float) -> bool:
    end = time.monotonic() + PUT_LIMIT_S
    while one.ask("metric", name=WRITTEN)["value"] < wanted:
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def open_engine(one: Side, name: str, has_planner: bool) -> None:
    settings = {
        "planner.enabled": has_planner,
        "host.size": f"{int(HOST_PROMPTS * TOKENS * BYTES_PER_TOKEN)}B",
        "host.eviction": "lru",
        "disk.size": f"{2 << 30}B",
        "disk.paths": [str(WORK / name / "cache")],
        "disk.backend_library": str(THROTTLED),
    }
    one.ask(
        "open",
        kind="terrace",
        settings=settings,
        dtype="bfloat16",
        bytes_per_token=BYTES_PER_TOKEN,
        cache_tokens=2 * TOKENS,
        seats=1,
    )


def measure(one: Side, always: Side, plan: Plan, full: float) -> None:
    for share in plan.shares:
        learned, pairs = Pairs(), Pairs()
        run_pairs(one, plan.learning, [share], full, learned)
        run_pairs(one, plan.pairs, [share], full, pairs, always if share in plan.close else None)
        on, off = statistics.median(pairs.on), statistics.median(pairs.off)
        say(f"{full * share / 1e6:.1f} MB/s: {on:.3f} s, off {off:.3f} s, {on / off:.3f}")
        facts = {"throttle_per_mille": 1e3 * share, "bytes_per_s": full * share}
        emit("vllm-throttle.fixed", pairs, learned, facts)
        if pairs.always:
            emit_best(pairs, facts)
    rng = random.Random(3)
    changing = [rng.choice(plan.shares) for _ in range(plan.pairs)]
    pairs = Pairs()
    run_pairs(one, plan.pairs, changing, full, pairs)
    emit("vllm-throttle.changing", pairs, Pairs(), {"bytes_per_s": full})


def main() -> int:
    plan = SHORT if "--short" in sys.argv[1:] else FULL
    for name in ("planned", "always"):
        make_empty(WORK / name / "cache")
    began = time.monotonic()
    full = fio_rate(WORK)
    say(f"full speed is {full / 1e6:.0f} MB/s, as fio reads")
    with side(WORK / "planned") as one, side(WORK / "always") as always:
        for engine, name in ((one, "planned"), (always, "always")):
            open_engine(engine, name, has_planner=engine is one)
            store(engine)
        measure(one, always, plan, full)
    say(f"{(time.monotonic() - began) / 60:.1f} min")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
