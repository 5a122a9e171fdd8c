"""`vllm-off`: what Terrace costs when nothing hits.

CPU seconds of the same requests in three kinds of engine, one process each, in turn: without a
connector, with Terrace storing everything, with Terrace only looking up. All prompts are new.
Equal engines differ by some percent from process to process, so `vllm-off.inside` says beside it
what one engine spends inside the connector's methods and Terrace's threads, against the rest; and
`vllm-off.switched` has one engine that stores and is paused in turn: what storing costs it, with
all that it does to caches and to other threads.
"""

from __future__ import annotations

import functools
import inspect
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[2] / "tools"),
]

from bench.vllm import lines  # noqa: E402
from bench.vllm.engine import make_empty, metric_total, start_engine  # noqa: E402

from engine_env import ROOT, engine_env, transfer_config  # noqa: E402

ROUNDS = 5
REQUESTS = 8
PROMPT, ANSWER = 256, 48
SWITCHED = 10  # Turns, of one batch stored and one paused each.
WORK = ROOT / "build" / "bench" / "vllm-off"
STORED = 'terrace_transfer_blocks_total{op="offload",source="device"'
TERRACE = ROOT / "build" / "release" / "bin" / "terrace"
KINDS: dict[str, str | None] = {"absent": None, "store": "kv_both", "lookup": "kv_consumer"}


def transfer(kind: str, **more: str) -> dict[str, Any]:
    role = KINDS[kind]
    if role is None:
        return {}
    # A folder each: what one kind stores, another one would hit.
    extra = {"host.size": "512MiB", "disk.size": "1GiB", "disk.paths": [str(WORK / "cache" / kind)]}
    extra |= more
    return {"kv_transfer_config": transfer_config(extra, role)}


def own_threads() -> float:
    """CPU seconds of Terrace's own threads in this process, by their names."""
    nanoseconds = 0
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text().startswith("terrace-"):
            nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


class Inside:
    """CPU seconds inside the connector's methods, the clock's reading included."""

    def __init__(self, connector: type) -> None:
        self.seconds = 0.0
        self._is_inside = threading.local()
        for name, method in vars(connector).items():
            if inspect.isfunction(method) and name != "__init__":
                setattr(connector, name, self._timed(method))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*arguments: Any, **named: Any) -> Any:
            if getattr(self._is_inside, "on", False):
                return method(*arguments, **named)
            self._is_inside.on = True
            start = time.thread_time()
            try:
                return method(*arguments, **named)
            finally:
                self.seconds += time.thread_time() - start
                self._is_inside.on = False

        return timed


class Engine:
    """In this process; all its prompts are new."""

    def __init__(self, config: dict[str, Any]) -> None:
        from vllm import SamplingParams

        self._llm = start_engine(
            block_size=32,
            max_model_len=1024,
            max_num_seqs=8,
            kv_cache_memory_bytes=200_000_000,
            **config,
        )
        self._params = SamplingParams(
            max_tokens=ANSWER, temperature=0, ignore_eos=True, detokenize=False
        )

    def stored(self) -> float:
        """Blocks that went from the device to host."""
        return metric_total(self._llm, STORED)

    def answer(self, seed: int) -> float:
        """One batch of prompts that follow from `seed`; CPU seconds of the process."""
        prompts: list[Any] = [
            {
                "prompt_token_ids": [
                    (31 * i + 9973 * (seed * REQUESTS + r)) % 48_000 + 100 for i in range(PROMPT)
                ]
            }
            for r in range(REQUESTS)
        ]
        began = time.process_time()
        self._llm.generate(prompts, self._params, use_tqdm=False)
        return time.process_time() - began


def serve_once(kind: str, number: int, is_timed: bool) -> dict[str, float]:
    """In a process of its own: CPU and wall seconds of the requests after a warm-up."""
    from terrace.connectors.vllm import TerraceConnector

    inside = Inside(TerraceConnector) if is_timed else None
    engine = Engine(transfer(kind))
    engine.answer(1000 + number)
    wall, own = time.perf_counter(), own_threads()
    before = inside.seconds if inside else 0.0
    cpu = sum(engine.answer(10 * number + part) for part in range(3))
    return {
        "wall": time.perf_counter() - wall,
        "cpu": cpu,
        "threads": own_threads() - own,
        "inside": inside.seconds - before if inside else 0.0,
    }


def serve_switched() -> dict[str, list[float]]:
    """In a process of its own: CPU seconds of each batch, stored and paused in turn."""
    with tempfile.TemporaryDirectory() as sockets:  # A socket's path must be short.

        def switch(verb: str) -> None:
            line = [str(TERRACE), verb, "--all", "--directory", sockets]
            subprocess.run(line, check=True, stdout=sys.stderr)

        engine = Engine(transfer("store", **{"attach.directory": sockets}))
        engine.answer(2000)
        found: dict[str, list[float]] = {"resume": [], "pause": [], "blocks": []}
        for turn in range(2 * SWITCHED):
            verb = ("resume", "pause")[(turn + turn // 2) % 2]  # Each is first as often.
            switch(verb)
            before = engine.stored()
            found[verb].append(engine.answer(3000 + turn))
            found["blocks"].append(engine.stored() - before)
        return found


def run_once(kind: str, number: int, env: dict[str, str], timed: bool = False) -> dict[str, float]:
    answer = WORK / "answer.json"
    words = [
        sys.executable,
        __file__,
        "--in-process",
        kind,
        str(number),
        str(int(timed)),
        str(answer),
    ]
    subprocess.run(words, env=env, check=True, stdout=sys.stderr)
    found: dict[str, float] = json.loads(answer.read_text())
    return found


def emit_switched(env: dict[str, str]) -> None:
    answer = WORK / "switched.json"
    words = [sys.executable, __file__, "--switched", str(answer)]
    subprocess.run(words, env=env, check=True, stdout=sys.stderr)
    found: dict[str, list[float]] = json.loads(answer.read_text())
    stored, paused = found["resume"], found["pause"]
    ratios = [a / b for a, b in zip(stored, paused, strict=True)]
    blocks = found["blocks"]  # Half of the batches stored none.
    params = {
        "requests": REQUESTS,
        "blocks": max(blocks),
        "batches_that_stored": sum(count > 0 for count in blocks),
        "ratio_90": lines.interval(ratios),
    }
    lines.emit("vllm-off.switched", params, "cpu s", stored, "the same engine, paused", paused)


def emit_inside(kind: str, env: dict[str, str]) -> None:
    run = run_once(kind, ROUNDS, env, timed=True)
    params = {
        "kind": kind,
        "methods_cpu_s": run["inside"],
        "own_threads_cpu_s": run["threads"],
    }
    rest = run["cpu"] - run["inside"] - run["threads"]
    lines.emit("vllm-off.inside", params, "cpu s", [run["cpu"]], "CPU seconds outside", [rest])


def main() -> int:
    if sys.argv[1:2] == ["--in-process"]:
        kind, turn, timed, answer = sys.argv[2:6]
        Path(answer).write_text(json.dumps(serve_once(kind, int(turn), timed == "1")))
        return 0
    if sys.argv[1:2] == ["--switched"]:
        Path(sys.argv[2]).write_text(json.dumps(serve_switched()))
        return 0
    make_empty(WORK / "cache")
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    env = engine_env(WORK / "engine")
    for number in range(ROUNDS):
        for kind in KINDS:
            found[kind].append(run_once(kind, number, env))
    absent = [run["cpu"] for run in found["absent"]]
    for kind in ("store", "lookup"):
        ours = [run["cpu"] for run in found[kind]]
        params = {
            "requests": 3 * REQUESTS,
            "prompt_tokens": PROMPT,
            "answer_tokens": ANSWER,
            "ratio_90": lines.interval([a / b for a, b in zip(ours, absent, strict=True)]),
            "wall_s": sorted(run["wall"] for run in found[kind])[ROUNDS // 2],
            "own_threads_cpu_s": sorted(run["threads"] for run in found[kind])[ROUNDS // 2],
            "absent_wall_s": sorted(run["wall"] for run in found["absent"])[ROUNDS // 2],
        }
        lines.emit(f"vllm-off.{kind}", params, "cpu s", ours, "engine without connector", absent)
        emit_inside(kind, env)
    emit_switched(env)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
