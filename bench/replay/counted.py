"""`vllm-off.counted`: what the library does in an engine's steps, counted exactly.

Replays the recorded calls (README.md) under callgrind, which counts instructions of the C ABI's
functions in the engine's thread and of what they call, and natively, which counts allocations and
times. Python's part of the connector and the library's own threads are not in it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from bench.vllm import lines  # noqa: E402

RECORDING = Path(__file__).parent / "vllm-0.32-smollm2-bf16.calls"
REPLAY = ROOT / "build" / "release" / "bench" / "replay_calls"
WORK = ROOT / "build" / "bench" / "replay_calls"
RUNS = 5  # Native ones, for the times.

PER_REQUEST = ("begin", "poll", "accept", "end")
PER_STEP = ("advance", "orders", "canary", "loads", "saves", "report", "take")
# Left out: log and worker_log, at most once a second each, whatever the steps do.
FUNCTIONS = (
    "begin_request poll_request accept_load advance_request build_orders run_canary run_loads "
    "run_saves build_report take_report end_request read_log read_worker_log"
).split()

CLASSES = {
    "empty": "steps in which the engine schedules nothing",
    "decode": "decode steps in which no block fills",
    "fill": "decode steps in which blocks fill",
    "short": "steps with new prompts of less than a block",
    "prefill": "steps with new prompts, nothing hit",
    "load": "steps with new prompts that hit",
}
UNAVOIDABLE = "SHA-256 of the tokens and the checked copy of the bytes alone"
MUST_BE_CALM = ("empty", "decode")
BLOCKS_EACH = (256 + 48) // 32  # Full ones of a request of the part `new`.
# A metric is one locked add, with what it takes to name the cell.
METRIC_INSTRUCTIONS = 3
LEDGER_GOAL = 0.003  # Of the engine's CPU time, ledger and metrics together.


@dataclass
class Call:
    name: str
    allocations: int
    nanoseconds: int
    instructions: int = 0
    locked: int = 0  # Of the instructions: atomic ones of ours, which metrics are.
    hashing: int = 0  # Of the instructions: SHA-256.
    copying: int = 0  # Of the instructions: the checked copy of bytes.


@dataclass
class Step:
    requests: int
    tokens: int
    filled: int
    engine_cpu_us: int
    calls: list[Call] = field(default_factory=list)

    def kind(self) -> str:
        if self.requests == 0:
            return "empty"
        if self.tokens == self.requests:
            return "fill" if self.filled else "decode"
        if not self.filled:
            return "short"
        return "load" if any(call.name == "loads" for call in self.calls) else "prefill"


@dataclass
class Replay:
    steps: list[Step]
    calls: list[Call]  # All, also those between steps.
    new: slice  # Of the calls: the part in which nothing hits.
    new_cpu_us: int = 0  # The engine's in that part.

    def of(self, kind: str) -> list[Step]:
        return [step for step in self.steps if step.kind() == kind]


def read(text: str) -> Replay:
    found = Replay([], [], slice(0))
    part = ""
    for line in text.splitlines():
        word, *rest = line.split()
        if word == "part":
            part = rest[0]
        elif word == "step":
            requests, tokens, filled, cpu_us = map(int, rest)
            step = Step(requests, tokens, filled, cpu_us)
            found.steps.append(step)
            found.new_cpu_us += step.engine_cpu_us if part == "new" else 0
        else:
            is_in_step, name, *counts = rest
            allocations, nanoseconds = map(int, counts)
            call = Call(name, allocations, nanoseconds)
            found.calls.append(call)
            if is_in_step == "1" and name in PER_STEP:
                found.steps[-1].calls.append(call)
            if part == "new":
                found.new = slice(0, len(found.calls))
    return found


def run(command: Sequence[str | Path]) -> Replay:
    env = os.environ | {
        "LD_BIND_NOW": "1"
    }  # The first call of a function costs no more than the next.
    done = subprocess.run(
        [*command, REPLAY, RECORDING],
        env=env,
        check=True,
        stdout=subprocess.PIPE,
        stderr=None,
        text=True,
    )
    return read(done.stdout)


Costs = dict[str, tuple[int, int]]


def profiles(text: str) -> Iterator[Costs]:
    """Each dump's instructions by function, and the locked ones; those of callees left out."""
    costs: Costs | None = None
    function, is_callee = "", False
    for line in text.splitlines():
        if line.startswith("part:"):
            if costs is not None:
                yield costs
            costs = defaultdict(lambda: (0, 0))
        elif line.startswith("fn="):
            function = line[3:]
        elif line.startswith("calls="):
            is_callee = True
        elif line[:1].isdigit() and costs is not None:
            if not is_callee:
                _, ran, *locked = map(int, line.split())
                before = costs[function]
                costs[function] = (before[0] + ran, before[1] + sum(locked))
            is_callee = False
    if costs is not None:
        yield costs


def share(costs: Costs, *marks: str) -> int:
    return sum(cost[0] for name, cost in costs.items() if any(mark in name for mark in marks))


def count() -> tuple[Replay, str]:
    """The replay with its instructions, and the checksum path that the emulated CPU took."""
    WORK.mkdir(parents=True, exist_ok=True)
    target = WORK / "callgrind.out"
    target.unlink(missing_ok=True)
    options = [f"--toggle-collect=terrace_{name}" for name in FUNCTIONS]
    replay = run(
        [
            "valgrind",
            "-q",
            "--tool=callgrind",
            "--dump-before=replay_mark",
            "--combine-dumps=yes",
            "--compress-strings=no",
            "--compress-pos=no",
            "--collect-bus=yes",
            f"--callgrind-out-file={target}",
            *options,
        ]
    )
    # The first dump is of the start, the last of the end.
    found = list(profiles(target.read_text()))[1 : 1 + len(replay.calls)]
    path = ""
    for call, costs in zip(replay.calls, found, strict=True):
        call.instructions = sum(cost[0] for cost in costs.values())
        call.locked = sum(cost[1] for name, cost in costs.items() if "terrace::" in name)
        call.hashing = share(costs, "sha256_block_data_order")
        call.copying = share(costs, "checksum_internal::(anonymous namespace)::stripes_")
        path = next(
            (name.split("::stripes_")[1].split("<")[0] for name in costs if "::stripes_" in name),
            path,
        )
    return replay, path


def by_name(calls: Sequence[Call]) -> dict[str, dict[str, float]]:
    grouped: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        grouped[call.name].append(call)
    return {
        name: {
            "calls": len(some),
            "instructions": round(statistics.mean(call.instructions for call in some)),
            "allocations": round(statistics.mean(call.allocations for call in some), 1),
        }
        for name, some in grouped.items()
    }


def cpu(kind: str, native: Sequence[Replay], machine: str) -> dict[str, Any]:
    """CPU time in the library beside the engine's own, per step, in the recording."""
    ours = statistics.median(
        sum(call.nanoseconds for step in replay.of(kind) for call in step.calls)
        for replay in native
    )
    steps = native[0].of(kind)
    engine = sum(step.engine_cpu_us for step in steps)
    return {
        "cpu_us_per_step": round(ours / 1000 / len(steps), 2),
        "engine_cpu_us_per_step": round(engine / len(steps)),
        "percent_of_engine": round(100 * ours / 1000 / engine, 3) if engine else None,
        "engine_recorded_on": machine,
    }


def emit_steps(replay: Replay, native: Sequence[Replay], path: str, machine: str) -> bool:
    is_calm = True
    for kind, text in CLASSES.items():
        steps = replay.of(kind)
        calls = [call for step in steps for call in step.calls]
        is_calm = is_calm and not (kind in MUST_BE_CALM and calls)
        unavoidable = [sum(c.hashing + c.copying for c in step.calls) for step in steps]
        params = {
            "steps": len(steps),
            "what": text,
            "calls_per_step": len(calls) / len(steps),
            "copy_instructions_per_step": sum(c.copying for c in calls) / len(steps),
            "copy_path": path,
            "by_call": by_name(calls),
            "time": cpu(kind, native, machine),
        }
        values = [sum(c.instructions for c in step.calls) for step in steps]
        name = UNAVOIDABLE if calls else "nothing"
        lines.emit(
            f"vllm-off.counted.{kind}", params, "instructions/step", values, name, unavoidable
        )
    return is_calm


def emit_request(replay: Replay) -> None:
    """What each request costs beside its steps."""
    calls = [call for call in replay.calls if call.name in PER_REQUEST]
    begun = sum(call.name == "begin" for call in calls)
    params = {"requests": begun, "calls_each": len(calls) / begun, "by_call": by_name(calls)}
    value = sum(call.instructions for call in calls) / begun
    limit = sum(call.hashing for call in calls) / begun
    lines.emit(
        "vllm-off.counted.request",
        params,
        "instructions/request",
        [value],
        "SHA-256 of the prompts alone",
        [limit],
    )


def emit_new(replay: Replay, native: Sequence[Replay], machine: str) -> None:
    """All calls while nothing hits: the requests of vllm-off."""
    calls = [call for call in replay.calls[replay.new] if call.name in PER_REQUEST + PER_STEP]
    begun = sum(call.name == "begin" for call in calls)
    ours = (
        statistics.median(sum(c.nanoseconds for c in run.calls[run.new]) for run in native) / 1000
    )
    params = {
        "requests": begun,
        "prompt_tokens": 256,
        "answer_tokens": 48,
        "calls_each": len(calls) / begun,
        "by_call": by_name(calls),
        "cpu_us": round(ours),
        "engine_cpu_us": replay.new_cpu_us,
        "percent_of_engine": round(100 * ours / replay.new_cpu_us, 3),
        "engine_recorded_on": machine,
    }
    value = sum(call.instructions for call in calls) / begun
    limit = sum(call.hashing + call.copying for call in calls) / begun
    lines.emit(
        "vllm-off.counted.new", params, "instructions/request", [value], UNAVOIDABLE, [limit]
    )


def emit_ledger(replay: Replay, native: Sequence[Replay], machine: str) -> None:
    """What ledger and metrics cost at most, while nothing hits.

    The whole call that ends a request counts as the ledger's, and each locked instruction of ours
    in any call as a metric's.
    """
    calls = [call for call in replay.calls[replay.new] if call.name in PER_REQUEST + PER_STEP]
    ends = [call for call in calls if call.name == "end"]
    requests = len(ends)
    blocks = requests * BLOCKS_EACH
    others = [call for call in calls if call.name != "end"]
    of_blocks = sum(c.locked for c in others if c.name in PER_STEP)
    of_requests = sum(c.locked for c in others if c.name in PER_REQUEST)
    ledger = sum(call.instructions for call in ends)
    total = ledger + METRIC_INSTRUCTIONS * (of_blocks + of_requests)
    # How fast such code runs: of calls that copy nothing.
    plain = [i for i, c in enumerate(replay.calls[replay.new]) if c.name in (*PER_REQUEST, "take")]
    nanoseconds = statistics.median(
        sum(run.calls[run.new][i].nanoseconds for i in plain) for run in native
    )
    instructions = sum(replay.calls[replay.new][i].instructions for i in plain)
    per_us = 1000 * instructions / nanoseconds
    params = {
        "requests": requests,
        "blocks": blocks,
        "end_instructions_per_request": round(ledger / requests),
        "metric_adds_per_request": round(of_requests / requests, 1),
        "metric_adds_per_block": round(of_blocks / blocks, 1),
        "instructions_per_block": round(METRIC_INSTRUCTIONS * of_blocks / blocks, 1),
        "instructions_per_us": round(per_us),
        "percent_of_engine": round(100 * total / per_us / replay.new_cpu_us, 5),
        "engine_recorded_on": machine,
    }
    lines.emit(
        "vllm-off.counted.ledger",
        params,
        "instructions/request",
        [total / requests],
        "0.3 % of the engine's CPU time, as instructions",
        [LEDGER_GOAL * replay.new_cpu_us * per_us / requests],
    )


def main() -> int:
    head = RECORDING.read_text().split("\n", 3)
    replay, path = count()
    native = [run([]) for _ in range(RUNS)]
    machine = head[2].removeprefix("machine ")
    is_calm = emit_steps(replay, native, path, machine)
    emit_request(replay)
    emit_new(replay, native, machine)
    emit_ledger(replay, native, machine)
    if not is_calm:
        print("a step with nothing due made calls", file=sys.stderr)
    return 0 if is_calm else 1


if __name__ == "__main__":
    raise SystemExit(main())
