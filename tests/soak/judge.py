"""What a campaign may not see. Pure: facts in, violations out."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.soak.conversations import Turn
from tests.soak.watch import Sample

MIB = 1 << 20
PASSING = ("reserved", "filling", "evicting", "quarantined")  # States in which no slot may stay.
# Of host's slots, at most one in so many holds a block that was chosen to leave, or was written to
# disk for that: until its slot is wanted it stays, and is hit (terrace/catalog/leaving.h).
HOST_PER_LEAVING = 4
NO_REQUEST = ("terrace_active_requests", "terrace_steps_in_flight", "terrace_waiting_pins")
NEVER = {
    "terrace_poisoned": "it is poisoned",
    'terrace_canaries_total{result="failed"}': "a canary failed",
    'terrace_reports_total{result="refused"}': "a report of a rank was refused",
    "terrace_disk_damaged_records_total": "records of slots.meta were damaged",
    "terrace_disk_damaged_fingerprints_total": "a fingerprint was damaged",
}
ONLY_AFTER_FLIPS = ("terrace_corrupt_blocks_total", "terrace_disk_corrupt_blocks_total")


@dataclass(frozen=True)
class Limits:
    """Of what a process may hold more in the last quarter of its life than in the second."""

    anonymous: int = 6 * MIB
    anonymous_share: float = 0.02
    shared: int = MIB
    descriptors: int = 2
    threads: int = 2
    fewest: int = 60  # Samples of a life that is judged.
    warm_s: float = 120.0  # So long a life begins with the engine's memory growing by itself.
    fewest_idle: int = 8


@dataclass
class Facts:
    """What was done to the present server and its directory: what may therefore be seen."""

    is_lost: bool = False  # Its directory was deleted under it.
    was_reset: bool = False
    flips: int = 0  # In this directory, by whichever server's time.
    asked_tokens: int = 0  # Of all prompts sent to it, once for each answer.
    longest: int = 0  # Tokens that a request may have.


@dataclass
class Finding:
    """What was seen and what is wrong with it."""

    what: str
    detail: str
    more: dict[str, Any] = field(default_factory=dict)


def total(metrics: Mapping[str, float], name: str) -> float:
    """Over all labels."""
    return sum(value for key, value in metrics.items() if key.partition("{")[0] == name)


def answers(turn: Turn, given: Sequence[Sequence[int]], count: int) -> list[Finding]:
    if not turn.is_steady:
        return []
    wrong = [list(one) for one in given if list(one) != turn.answer]
    if not wrong and len(given) == count:
        return []
    more = {"expected": turn.answer, "given": wrong, "prompt": turn.prompt}
    return [Finding("wrong answer", f"{turn.name}: {len(given)} of {count} came", more)]


def ledger(turn: Turn, found: Mapping[str, Any] | None) -> list[Finding]:
    if found is None:
        return [Finding("no ledger", turn.name)]
    if found["prompt_tokens"] != len(turn.prompt):
        return [Finding("wrong ledger", f"{turn.name} of {len(turn.prompt)} tokens: {found}")]
    return []


# ---- At moments without a request ---------------------------------------------------------------


def unrest(status: Mapping[str, Any], metrics: Mapping[str, float]) -> list[Finding]:
    """What must end soon after the last request; asked again and again until it has."""
    found = []
    for tier in status["tiers"]:
        slots = tier["slots"]
        stay = {name: slots[name] for name in (*PASSING, "pinned") if slots[name]}
        may_leave = sum(slots.values()) // HOST_PER_LEAVING if tier["tier"] == "host" else 0
        if stay.get("evicting", 0) <= may_leave:
            stay.pop("evicting", None)
        if stay:
            found.append(Finding("slots stay", f"{tier['tier']}: {stay}"))
    live = {name: metrics.get(name, 0) for name in NO_REQUEST if metrics.get(name, 0)}
    if live or status["active_requests"]:
        found.append(Finding("requests stay", f"{live}, {status['active_requests']} active"))
    waiting = {queue["name"]: queue["waiting"] for queue in status["queues"] if queue["waiting"]}
    if waiting:
        found.append(Finding("queues stay", str(waiting)))
    return found


def health(status: Mapping[str, Any], facts: Facts) -> list[Finding]:
    """A directory that was deleted is named until the next start, and nothing else is."""
    problems = status["problems"]
    if facts.is_lost:
        strange = [problem for problem in problems if "state=lost" not in problem]
        return [Finding("health", f"beside the loss: {strange}")] if strange else []
    if status["health"] == "green" and status["ready"] and not problems:
        return []
    return [Finding("health", f"{status['health']}, ready {status['ready']}: {problems}")]


def capacity(status: Mapping[str, Any]) -> dict[str, int]:
    """Slots of each tier in whatever state; `pinned` are sealed ones, too."""
    return {
        tier["tier"]: sum(count for name, count in tier["slots"].items() if name != "pinned")
        for tier in status["tiers"]
        if tier["state"] == "open"
    }


def counters(
    metrics: Mapping[str, float], before: Mapping[str, float], facts: Facts, preemptions: float
) -> list[Finding]:
    found = []
    for name, text in NEVER.items():
        if metrics.get(name, 0) > 0:
            found.append(Finding("counters", f"{text}: {name} is {metrics[name]:g}"))
    for name, value in before.items():
        is_counter = name.partition("{")[0].endswith(("_total", "_count", "_sum"))
        if is_counter and metrics.get(name, 0) < value:
            found.append(Finding("counters", f"{name} fell from {value:g} to {metrics.get(name)}"))
    hits, matches = (total(metrics, f"terrace_{name}_tokens_total") for name in ("hit", "match"))
    if hits > matches:
        found.append(Finding("counters", f"{hits:g} tokens hit, {matches:g} accepted"))
    most = facts.asked_tokens + preemptions * facts.longest
    if hits > most:
        found.append(Finding("counters", f"{hits:g} tokens hit, {most:g} asked for at most"))
    for name in ONLY_AFTER_FLIPS:
        if total(metrics, name) > 0 and not facts.flips:
            found.append(Finding("corrupt", f"{name} grew and no byte was flipped"))
    return found


def output(text: str) -> list[Finding]:
    """New lines of a server whose processes all live."""
    bad = [
        line
        for line in text.splitlines()
        if "Traceback" in line or "event=poisoned" in line or "internal error" in line
    ]
    return [Finding("output", line) for line in bad[:3]]


def cause(text: str) -> str:
    """The lines of a server's output that say why it ended."""
    lines = text.splitlines()
    errors = [line for line in lines if "Error" in line and "File " not in line]
    return "\n".join(errors[:3] or lines[-10:])


def restarted(metrics: Mapping[str, float], sealed_before: int, facts: Facts) -> list[Finding]:
    """Sealed survives: what the killed server had on disk, its successor finds."""
    adopted = metrics.get("terrace_disk_adopted_blocks_total", 0)
    if sealed_before == 0 or facts.is_lost or facts.was_reset or adopted > 0:
        return []
    return [Finding("forgotten", f"{sealed_before} blocks were sealed on disk, none was found")]


# ---- Over a life --------------------------------------------------------------------------------


def _growth(values: Sequence[float]) -> tuple[float, float]:
    """Medians of the second and of the last quarter."""
    quarter = len(values) // 4
    second, last = values[quarter : 2 * quarter], values[-quarter:]
    return statistics.median(second), statistics.median(last)


def course(values: Sequence[float], parts: int = 12) -> list[float]:
    """Medians over equal parts of a life: how it grew."""
    width = max(1, len(values) // parts)
    return [statistics.median(values[at : at + width]) for at in range(0, len(values), width)]


def lives(samples: Iterable[Sample]) -> dict[tuple[str, int], list[Sample]]:
    found = defaultdict(list)
    for one in samples:
        found[one.process, one.pid].append(one)
    return dict(found)


def growths(samples: Iterable[Sample], limits: Limits) -> list[dict[str, Any]]:
    """One row per life and thing, of lives that are long enough."""
    rows: list[dict[str, Any]] = []
    for (process, pid), life in lives(samples).items():
        idle = [one for one in life if one.is_idle]
        things: dict[str, tuple[list[Sample], float]] = {}
        if len(life) >= limits.fewest and life[-1].at - life[0].at >= limits.warm_s:
            most = statistics.median(one.anonymous for one in life) * limits.anonymous_share
            things["anonymous"] = (life, max(limits.anonymous, most))
            things["shared"] = (life, limits.shared)
        if len(idle) >= limits.fewest_idle:
            things["descriptors"] = (idle, limits.descriptors)
            things["threads"] = (idle, limits.threads)
        for name, (seen, most) in things.items():
            values = [getattr(one, name) for one in seen]
            second, last = _growth(values)
            row = {"process": process, "pid": pid, "thing": name, "second_quarter": second}
            row |= {"last_quarter": last, "most": most, "samples": len(seen)}
            row |= {"seconds": round(seen[-1].at - seen[0].at), "course": course(values)}
            rows.append(row)
    return rows


def flat(rows: Iterable[Mapping[str, Any]]) -> list[Finding]:
    return [
        Finding(
            "grows",
            f"{row['thing']} of {row['process']} {row['pid']}: median {row['second_quarter']:g} in "
            f"the second quarter of {row['seconds']} s, {row['last_quarter']:g} in the last",
        )
        for row in rows
        if row["last_quarter"] - row["second_quarter"] > row["most"]
    ]


def covered(counts: Mapping[str, float]) -> list[Finding]:
    """A campaign in which something never happened has shown nothing about it."""
    missing = [name for name, count in counts.items() if not count]
    return [Finding("not covered", ", ".join(missing))] if missing else []
