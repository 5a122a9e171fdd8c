"""`vllm-poll`: what the scheduler waits for, hook by hook, in a real engine's process.

vLLM asks `get_num_new_matched_tokens` of each waiting request in each step, so a poll must cost
microseconds, whatever the tiers do.  Measured one by one: polls of a look-up that still reads from
disk, back to back and a step apart (after which a processor has forgotten much); the poll that
brings its answer, a step after the one before (`answered`) or back to back, where it meets the
thread that found the answer (`answered_at_once`); first polls of what lies in host already; and all
hooks of a step that schedules nothing.  Beside each stands a call that does nothing, back to back
or after the same pause.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[2] / "tools"),
]

from bench.vllm import lines  # noqa: E402
from bench.vllm.engine import BYTES_PER_TOKEN, connector_of, make_empty, metric_total, start_engine  # noqa: E402

from engine_env import ROOT, engine_env, transfer_config  # noqa: E402

LENGTHS = (256, 2048)
PROMPTS, ROUNDS = 7, 10  # Of which the host tier holds two.
STEPS = 2000
GOAL_S = 10e-6
WAIT_S = 60.0
STEP_S = 0.005  # Between two polls of a request, where they are not back to back.
QUIET_S = 0.3  # No write ended for so long: none is under way.
WORK = ROOT / "build" / "bench" / "vllm-poll"
WRITTEN = 'terrace_transfer_bytes_total{op="offload",source="host",target="disk"}'


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter_ns()
    found = call()
    return (time.perf_counter_ns() - began) / 1e9, found


class Engine:
    """One in-process engine with Terrace; its connector's two sides are called by hand."""

    def __init__(self, length: int) -> None:
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        extra = {
            "host.size": f"{int(2.3 * length) * BYTES_PER_TOKEN}B",
            "disk.size": "2GiB",
            "disk.paths": [str(WORK / "cache")],
        }
        self.llm = start_engine(
            block_size=32,
            max_model_len=2560,
            max_num_seqs=1,
            kv_cache_memory_bytes=4096 * BYTES_PER_TOKEN,
            disable_log_stats=True,
            kv_transfer_config=transfer_config(extra),
        )
        self.connector = connector_of(self.llm)
        self.worker = get_kv_transfer_group()
        self.native = self.connector._scheduler.owner._native
        self.asked = 0
        self.prompts = [
            [(7919 * (i + 1) + 104_729 * number) % 48_000 + 100 for i in range(length)]
            for number in range(PROMPTS)
        ]

    def written(self) -> float:
        return metric_total(self.llm, WRITTEN)

    def store(self) -> None:
        """All prompts, each until the writes that the queue had room for are done."""
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=1, temperature=0, detokenize=False)
        for tokens in self.prompts:
            self.llm.generate([{"prompt_token_ids": tokens}], params, use_tqdm=False)
            before = -1.0
            while (now := self.written()) > before:
                before = now
                time.sleep(QUIET_S)

    def polls(
        self, tokens: list[int], pause_s: float = 0.0, bare: list[float] | None = None
    ) -> tuple[list[float], float, int]:
        """Of one request, from its arrival on: polls that wait, the last one, what it answered.

        `bare` gets what a call that does nothing takes after a pause as long.
        """
        from vllm import SamplingParams
        from vllm.v1.request import Request

        self.asked += 1
        request = Request(f"poll-{self.asked}", list(tokens), SamplingParams(max_tokens=1), None)
        self.connector.on_new_request(request)
        waits: list[float] = []
        deadline = time.monotonic() + WAIT_S
        while True:
            spent, (found, _) = timed(lambda: self.connector.get_num_new_matched_tokens(request, 0))
            if found is not None:
                break
            waits.append(spent)
            if time.monotonic() > deadline:
                raise RuntimeError("a look-up has no end")
            if pause_s and bare is not None:
                time.sleep(pause_s)
                bare.append(timed(self.native.abi_version)[0])
            if pause_s:
                time.sleep(pause_s)
        self.connector.request_finished(request, [])
        return waits, spent, found

    def empty_step(self) -> None:
        """Every hook that vLLM calls in a step without requests, on both sides."""
        from vllm.v1.core.sched.output import SchedulerOutput
        from vllm.v1.outputs import KVConnectorOutput

        metadata = self.connector.build_connector_meta(SchedulerOutput.make_empty())
        self.worker.bind_connector_metadata(metadata)
        self.worker.handle_preemptions(metadata)
        self.worker.start_load_kv(None)
        self.worker.wait_for_save()
        output = KVConnectorOutput()
        output.invalid_block_ids = self.worker.get_block_ids_with_load_errors()
        output.kv_connector_worker_meta = self.worker.build_connector_worker_meta()
        self.worker.clear_connector_metadata()
        self.connector.update_connector_output(output)
        self.connector.take_events()


def emit(name: str, length: int, values: list[float], limit: list[float], **more: Any) -> None:
    ordered = sorted(values)
    params: dict[str, Any] = {"prompt_tokens": length} if length else {}
    params |= more | {"goal_s": GOAL_S, "p99_s": ordered[int(0.99 * (len(ordered) - 1))]}
    lines.emit(f"vllm-poll.{name}", params, "s", values, "a call that does nothing", limit)


def measure(length: int, is_last: bool) -> None:
    engine = Engine(length)
    engine.store()
    waiting: list[float] = []
    answers: list[float] = []
    paced: list[float] = []
    paced_waiting: list[float] = []
    known: list[float] = []
    bare: list[float] = []
    paced_bare: list[float] = []
    counts: list[int] = []
    for turn in range(ROUNDS * PROMPTS):
        tokens = engine.prompts[turn % PROMPTS]
        pause_s = STEP_S if turn % 2 else 0.0
        waits, answer, found = engine.polls(tokens, pause_s, paced_bare)
        bare += [timed(engine.native.abi_version)[0] for _ in range(100)]
        if not waits or not found:
            print(f"vllm-poll {length}: {len(waits)} waits, {found} tokens", file=sys.stderr)
            continue
        if pause_s:
            paced.append(answer)
            paced_waiting += waits[1:]  # Each comes after a pause.
        else:
            counts.append(len(waits))
            waiting += waits
            answers.append(answer)
        for _ in range(10):
            waits, answer, found = engine.polls(tokens)
            if found and not waits:
                known.append(answer)
    emit("waiting", length, waiting, bare, polls_per_lookup=statistics.median(counts))
    if paced_waiting:
        emit("waiting", length, paced_waiting, paced_bare, every_s=STEP_S)
    emit("answered", length, paced, paced_bare, every_s=STEP_S)
    emit("answered_at_once", length, answers, bare)
    emit("host", length, known, bare)
    if is_last:
        engine.empty_step()
        emit("empty_step", 0, [timed(engine.empty_step)[0] for _ in range(STEPS)], bare)


def main() -> int:
    if sys.argv[1:2] == ["--in-process"]:
        length = int(sys.argv[2])
        measure(length, is_last=length == LENGTHS[-1])
        return 0
    code = 0
    for length in LENGTHS:
        make_empty(WORK / "cache")
        words = [sys.executable, __file__, "--in-process", str(length)]
        code |= subprocess.run(words, env=engine_env(WORK / "engine"), check=False).returncode
    return code


if __name__ == "__main__":
    raise SystemExit(main())
