"""`vllm-load`: users of a coding agent on engines whose cache holds a quarter of what they say.

Four engines, a process each, are asked the same round by round, in turn: `alone` (no connector),
`terrace` (all of the working set fits in host), `slow_disk` (a quarter does, the rest lies on a
disk slower than computing) and `stand_in` (vLLM's offloading to as much host memory as Terrace has,
`stand_in.py`). README.md tells what is compared, `--short` makes one of a few minutes.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[2] / "tools"),
]

from bench.vllm import conversations, lines  # noqa: E402
from bench.vllm.conversations import Said, Turn  # noqa: E402
from bench.vllm.engine import BYTES_PER_TOKEN, make_empty  # noqa: E402
from bench.vllm.side import BLOCK_TOKENS, THROTTLED, Side, side  # noqa: E402

from engine_env import ROOT, installed  # noqa: E402

WORK = ROOT / "build" / "bench" / "vllm-load"
VARIANTS = ("alone", "terrace", "slow_disk", "stand_in")
TITLES = {"alone": "engine alone", "stand_in": "stand-in for vLLM's offloading"}
# Answers are compared, and only float32 leaves the likeliest token so far ahead that they must be
# equal whatever was computed together with what.
DTYPE = "float32"
BYTES_OF = {"float32": 2 * BYTES_PER_TOKEN, "bfloat16": BYTES_PER_TOKEN}
TIE = 1e-3  # Log-probability; rounding moves it by a few 1e-5.
WORKING_SETS = 4  # Of the engine's cache.
SLOW_DISK = 20e6  # Bytes a second: 430 tokens, fewer than a second computes.
MEASURED_ALONE = 1  # Rounds at first that find nothing: everybody computes.


@dataclass(frozen=True)
class Plan:
    users: tuple[int, ...]  # The last has the working set.
    rounds: int
    prefixes: tuple[int, ...]
    samples: int


FULL = Plan((1, 4, 16), 7, (1024, 2048, 4096, 8160), 5)
SHORT = Plan((2, 8), 3, (512, 1024), 2)


@dataclass
class Found:
    """What one variant did: a round each."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    loaded: list[int] = field(default_factory=list)
    rows: list[list[dict[str, Any]]] = field(default_factory=list)

    def add(self, answer: dict[str, Any]) -> None:
        self.wall.append(answer["wall"])
        self.cpu.append(answer["cpu"])
        self.loaded.append(answer["loaded"])
        self.rows.append(answer["rows"])

    def since(self, first: int) -> Found:
        return Found(self.wall[first:], self.cpu[first:], self.loaded[first:], self.rows[first:])


def say(text: str) -> None:
    print(f"vllm-load: {text}", file=sys.stderr, flush=True)


# ---- Engines ------------------------------------------------------------------------------------


def settings(variant: str, host: int, cache: int) -> tuple[str, dict[str, Any]]:
    """What `open` takes: the kind, and the connector's settings. In bytes."""
    if variant == "alone":
        return "alone", {}
    if variant == "stand_in":
        return "stand_in", {"cpu_bytes_to_use": host}
    if variant == "terrace":
        return "terrace", {"host.size": f"{host}B"}
    return "terrace", {
        "host.size": f"{cache}B",
        "disk.size": f"{2 * host}B",
        "disk.paths": [str(WORK / variant / "cache")],
        "disk.backend_library": str(THROTTLED),
    }


def open_all(
    sides: dict[str, Side], host_tokens: int, cache_tokens: int, seats: int, dtype: str = DTYPE
) -> None:
    size = BYTES_OF[dtype]
    for name, one in sides.items():
        kind, words = settings(name, host_tokens * size, cache_tokens * size)
        one.tell(
            "open",
            kind=kind,
            settings=words,
            dtype=dtype,
            bytes_per_token=size,
            cache_tokens=cache_tokens,
            seats=seats,
        )
    for one in sides.values():
        one.hear()
        # Kernels are chosen, ranks attached and tiers opened by the first request.
        one.ask("serve", asked=[{"tokens": list(range(100, 400)), "answer": 4}], at_once=1)
    if "slow_disk" in sides:
        sides["slow_disk"].ask("throttle", bytes_per_second=SLOW_DISK)


def turned(names: Sequence[str], number: int) -> list[str]:
    """Each is first as often."""
    at = number % len(names)
    return [*names[at:], *names[:at]]


# ---- Users --------------------------------------------------------------------------------------


def requests(said_in_round: Sequence[Said], phase: int, is_first: bool) -> list[dict[str, Any]]:
    """As `serve` takes them; a phase's prompts begin as no other one's."""
    head = [50 + phase] if is_first else []
    return [
        {
            "chat": f"{phase}/{said.user}",
            "tokens": [*head, *said.turn.tokens],
            "answer": said.turn.answer,
        }
        for said in said_in_round
    ]


def run_users(
    sides: dict[str, Side], rounds: Sequence[Sequence[Said]], phase: int, at_once: int
) -> dict[str, Found]:
    found = {name: Found() for name in sides}
    users = len(rounds[0])
    for one in sides.values():
        one.ask("forget")
    for number, said_in_round in enumerate(rounds):
        asked = requests(said_in_round, phase, number == 0)
        for name in turned(list(sides), number):
            found[name].add(sides[name].ask("serve", asked=asked, at_once=at_once))
        spent = ", ".join(f"{name} {one.wall[-1]:.1f} s" for name, one in found.items())
        say(f"{users} users, round {number + 1} of {len(rounds)}: {spent}")
    return found


def tokens_of(rows: Sequence[dict[str, Any]]) -> int:
    return sum(row["prompt"] + len(row["answer"]) for row in rows)


def measures(found: Found) -> dict[str, tuple[str, str, list[list[float]]]]:
    """Name -> unit, what is better, and the values of each round."""
    rows = found.rows
    gaps = [[gap for row in part for gap in row["gaps"]] for part in rows]
    return {
        "requests": (
            "1/s",
            "higher",
            [[len(part) / wall] for part, wall in zip(rows, found.wall, strict=True)],
        ),
        "ttft": ("s", "lower", [[row["ttft"] for row in part] for part in rows]),
        "inter_token": ("s", "lower", gaps),
        "inter_token_p99": ("s", "lower", [[lines.quantile(part, 0.99)] for part in gaps]),
        "cpu": (
            "cpu s/1000 tokens",
            "lower",
            [[1e3 * cpu / tokens_of(part)] for part, cpu in zip(rows, found.cpu, strict=True)],
        ),
    }


def hits(found: Found) -> dict[str, float]:
    """Share of the prompts' tokens by where they came from."""
    rows = [row for part in found.rows for row in part]
    total = sum(row["prompt"] for row in rows)
    by_source = {"local": 0, "host": 0, "disk": 0}
    for row in rows:
        ledger = row["ledger"]
        by_source["local"] += ledger["local_tokens"] if ledger else row["cached"]
        for tier, tokens in (ledger.get("hit_tokens") or {}).items():
            by_source[tier] += tokens
    # The engine counts what a connector brought among its own.
    by_source["local"] -= sum(found.loaded)
    by_source["host"] += sum(found.loaded)
    by_source["computed"] = total - sum(by_source.values())
    return {source: tokens / total for source, tokens in by_source.items()}


def emit_users(found: dict[str, Found], facts: dict[str, Any]) -> None:
    """Each variant beside the engine alone, and Terrace beside the stand-in."""
    told = {name: measures(one.since(MEASURED_ALONE)) for name, one in found.items()}
    pairs = [(name, "alone") for name in found if name != "alone"] + [("terrace", "stand_in")]
    for name, limit in pairs:
        for what, (unit, better, values) in told[name].items():
            limits = told[limit][what][2]
            params = {
                **facts,
                "variant": name,
                "ratio_90": lines.ratio_interval(values, limits),
            }
            lines.emit(
                f"vllm-load.{what}",
                params,
                unit,
                [one for part in values for one in part],
                TITLES[limit],
                [one for part in limits for one in part],
                better,
            )
    for name, one in found.items():
        shares = hits(one.since(MEASURED_ALONE))
        emit_share("vllm-load.hits", {**facts, "variant": name} | shares, 1 - shares["computed"])


def emit_share(name: str, params: dict[str, Any], value: float) -> None:
    lines.emit(name, params, "share", [value], "all", [1.0], "higher")


# ---- Answers ------------------------------------------------------------------------------------


@dataclass
class Difference:
    variant: str
    prompt: list[int]  # Up to the first token that differs.


@dataclass
class Comparison:
    compared: int = 0
    differences: list[Difference] = field(default_factory=list)


def compare(
    found: dict[str, Found], rounds: Sequence[Sequence[Said]], phase: int, kept: Comparison
) -> None:
    """Every answer with that of the engine alone. Of a user whose answers differed once, later ones
    answer other prompts."""
    said: dict[int, list[int]] = {}
    apart: set[tuple[str, int]] = set()
    for number, said_in_round in enumerate(rounds):
        asked = requests(said_in_round, phase, number == 0)
        for place, one in enumerate(said_in_round):
            answer = found["alone"].rows[number][place]["answer"]
            prompt = said.get(one.user, []) + asked[place]["tokens"]
            for name in found:
                if name == "alone" or (name, one.user) in apart:
                    continue
                other = found[name].rows[number][place]["answer"]
                kept.compared += 1
                if other != answer:
                    pairs = zip(answer, other, strict=True)
                    at = next(i for i, (a, b) in enumerate(pairs) if a != b)
                    kept.differences.append(Difference(name, [*prompt, *answer[:at]]))
                    apart.add((name, one.user))
            said[one.user] = prompt + answer


def judge(kept: Comparison, alone: Side) -> int:
    """Prints the line; how many answers differ where the engine itself was not in doubt."""
    wrong = 0
    for difference in kept.differences:
        margin = alone.ask("margin", prompt=difference.prompt)["margin"]
        if margin > TIE:
            wrong += 1
            say(f"WRONG: {difference.variant} answers otherwise, where the margin is {margin:.4f}")
    params = {"dtype": DTYPE, "ties": len(kept.differences) - wrong, "wrong": wrong}
    equal = kept.compared - len(kept.differences)
    lines.emit(
        "vllm-load.answers", params, "answers", [equal], "compared", [kept.compared], "higher"
    )
    return wrong


# ---- Prefixes -----------------------------------------------------------------------------------


def run_prefixes(
    sides: dict[str, Side], documents: dict[int, list[int]], samples: int
) -> dict[int, dict[str, list[float]]]:
    """Seconds to the first token of a prompt that was asked before and left the engine's cache."""
    found: dict[int, dict[str, list[float]]] = {}
    for length, tokens in documents.items():
        found[length] = {name: [] for name in sides}
        for number in range(samples + 1):
            for name in turned(list(sides), number):
                sides[name].ask("forget")
                if name == "alone" and number == samples:
                    continue  # It has as many samples without: each is its first.
                asked = [{"tokens": tokens, "answer": 2}]
                row = sides[name].ask("serve", asked=asked, at_once=1)["rows"][0]
                if name == "alone" or number > 0:  # The others store it first.
                    found[length][name].append(row["ttft"])
        spent = ", ".join(
            f"{name} {statistics.median(times):.2f} s" for name, times in found[length].items()
        )
        say(f"a prefix of {length} tokens: {spent}")
    return found


def emit_prefixes(found: dict[int, dict[str, list[float]]]) -> None:
    for length, times in found.items():
        for name, limit in (("terrace", "alone"), ("stand_in", "alone"), ("terrace", "stand_in")):
            values, limits = times[name], times[limit]
            params = {
                "tokens": length,
                "variant": name,
                "ratio_90": lines.ratio_interval([[v] for v in values], [[v] for v in limits]),
            }
            lines.emit("vllm-load.prefix", params, "s", values, TITLES[limit], limits)


# ---- All of it ----------------------------------------------------------------------------------


def encoder() -> Callable[[str], list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(installed()[f"model_{DTYPE}"] / "tokenizer.json"))
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


def in_blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS) * BLOCK_TOKENS


def measure_users(sides: dict[str, Side], sessions: list[list[Turn]], plan: Plan) -> int:
    users = plan.users[-1]
    size, longest = conversations.working_set(conversations.rounds(sessions, users, plan.rounds))
    cache = in_blocks(max(size // WORKING_SETS, longest + 2 * BLOCK_TOKENS))
    seats = max(1, users * 3 // 16)
    open_all(sides, 2 * size, cache, seats)
    say(f"engines run: {size} tokens of {users} users, {cache} in the engine's cache")
    kept = Comparison()
    for phase, count in enumerate(plan.users):
        rounds = conversations.rounds(sessions, count, plan.rounds)
        at_once = max(1, count * 3 // 16)
        found = run_users(sides, rounds, phase, at_once)
        size, _ = conversations.working_set(rounds)
        facts = {
            "users": count,
            "at_once": at_once,
            "working_set_tokens": size,
            "cache_tokens": cache,
            "requests": count * (plan.rounds - MEASURED_ALONE),
        }
        emit_users(found, facts)
        compare(found, rounds, phase, kept)
    return judge(kept, sides["alone"])


def measure_prefixes(sides: dict[str, Side], sessions: list[list[Turn]], plan: Plan) -> None:
    for one in sides.values():
        one.tell("close")
    for one in sides.values():
        one.hear()
    documents = {
        length: conversations.document(sessions, length, number)
        for number, length in enumerate(plan.prefixes)
    }
    longest = in_blocks(max(plan.prefixes) + BLOCK_TOKENS)
    open_all(sides, in_blocks(2 * sum(plan.prefixes)), longest, 1, "bfloat16")
    emit_prefixes(run_prefixes(sides, documents, plan.samples))


def main() -> int:
    plan = SHORT if "--short" in sys.argv[1:] else FULL
    sessions = conversations.read(encoder())
    began = time.monotonic()
    with ExitStack() as stack:
        sides = {}
        for name in VARIANTS:
            make_empty(WORK / name / "cache")
            sides[name] = stack.enter_context(side(WORK / name))
        wrong = measure_users(sides, sessions, plan)
        sides.pop("slow_disk").ask("close")
        measure_prefixes(sides, sessions, plan)
    say(f"{(time.monotonic() - began) / 60:.1f} min")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
