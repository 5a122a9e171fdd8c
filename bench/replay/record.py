"""Records every C call of the vLLM connector, with its arguments and the step it belongs to.

Usage: record.py FILE.  Starts the real engine in this process, serves a few requests and writes
bench/replay's text form of the calls (README there).  The library's function table is wrapped from
outside; the connector runs as it is.
"""

from __future__ import annotations

import ctypes as c
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from bench.vllm import lines  # noqa: E402

from engine_env import engine_env, installed  # noqa: E402

BLOCK_TOKENS = 32
REQUESTS, PROMPT, ANSWER = 8, 256, 48
# No planner: every block that is found is loaded, whatever this machine's speed.
SETTINGS = {"host.size": "256MiB", "planner.enabled": False, "attach.lookup_wait": "60s"}


def numbers(address: int | None, count: int, kind: Any = c.c_uint32) -> list[int]:
    return list((kind * count).from_address(address)) if address and count else []


def words(values: Iterable[int]) -> str:
    return " ".join(map(str, values))


class Recorder:
    """Stands between the binding and the library; writes one line per call once it is armed."""

    def __init__(self) -> None:
        self.is_armed = False
        self.layout = ""
        self.lines: list[str] = []
        self._names: dict[int, int] = {}  # The library's request -> its number in the file.
        self._steps = 0

    def wrap(self, native: Any, functions: Iterable[str]) -> None:
        for full in functions:
            name = full.removeprefix("terrace_")
            setattr(native, name, self._wrapped(name, getattr(native, name)))

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if name == "open_worker":
                self.layout = self._layout(args[0]._obj)
            result = function(*args)
            if self.is_armed and name not in ("last_error", "open_owner", "open_worker"):
                # A call without a form of its own stands there by name: the replay refuses it.
                write = getattr(self, f"_{name}", lambda *_: name)
                self.lines.append(write(result, *args))
            return result

        return call

    @staticmethod
    def _layout(worker: Any) -> str:
        group = worker.groups[0]
        first = group.regions[0]
        assert worker.group_count == 1
        return (
            f"layout {worker.block_tokens} {group.region_count} {first.piece_bytes} "
            f"{group.block_count} {group.null_block}"
        )

    def _name(self, request: int) -> int:
        return self._names.setdefault(request, len(self._names) + 1)

    # ---- Calls on the owner ---------------------------------------------------------------------

    def _begin_request(self, _code: int, _owner: Any, options: Any, request: Any) -> str:
        given = options._obj
        assert given.extra_key_count == 0
        tokens = numbers(given.tokens, given.token_count)
        return f"begin {self._name(request._obj.value)} {given.flags} {len(tokens)} {words(tokens)}"

    def _poll_request(
        self, code: int, _owner: Any, request: int, local: int, limit: int, external: Any
    ) -> str:
        return f"poll {self._name(request)} {local} {limit} {code} {external._obj.value}"

    @staticmethod
    def _table(blocks: int, counts: int) -> str:
        table = numbers(
            c.c_void_p.from_address(blocks).value, c.c_uint64.from_address(counts).value
        )
        return f"{len(table)} {words(table)}".rstrip()

    def _accept_load(
        self, _code: int, _owner: Any, request: int, local: int, external: int, *tables: int
    ) -> str:
        return f"accept {self._name(request)} {local} {external} {self._table(*tables)}"

    def _advance_request(self, _code: int, _owner: Any, progress: Any) -> str:
        given = progress._obj
        assert given.alias_count == 0
        tokens = numbers(given.new_tokens, given.new_token_count)
        return (
            f"advance {self._name(given.request)} {given.computed_tokens} "
            f"{self._table(given.blocks, given.block_counts)} {len(tokens)} {words(tokens)}"
        ).rstrip()

    def _build_orders(self, _code: int, _owner: Any, orders: Any) -> str:
        return f"orders {int(orders._obj.length > 0)}"

    def _take_report(self, *_args: Any) -> str:
        return "take"

    def _end_request(self, _code: int, _owner: Any, request: int, _ledger: Any) -> str:
        return f"end {self._name(request)}"

    def _finish_request(self, _code: int, _owner: Any, request: int, *_said: Any) -> str:
        return f"end {self._name(request)}"

    def _read_log(self, *_args: Any) -> str:
        return "log"

    # ---- Calls on the worker --------------------------------------------------------------------

    def _run_canary(self, *_args: Any) -> str:
        return "canary"

    def _run_loads(self, _code: int, *args: Any) -> str:
        assert args[-1]._obj.value == 0, "a load failed"
        return "loads"

    def _run_saves(self, *_args: Any) -> str:
        return "saves"

    def _build_report(self, _code: int, _worker: Any, report: Any) -> str:
        return f"report {int(report._obj.length > 0)}"

    def _read_worker_log(self, *_args: Any) -> str:
        return "worker_log"

    # ---- Steps ----------------------------------------------------------------------------------

    def watch(self, core: Any) -> None:
        """Brackets each engine step; what it does is taken from the engine, not from the calls."""
        step, schedule = core.step_fn, core.scheduler.schedule
        seen: dict[str, int] = {}

        def noted_schedule(*args: Any) -> Any:
            output = schedule(*args)
            seen.update(step_facts(core.scheduler, output))
            return output

        def noted_step() -> Any:
            at, cpu = len(self.lines), time.process_time()
            seen.clear()
            result = step()
            cpu = time.process_time() - cpu
            if self.is_armed and seen:
                self._steps += 1
                facts = f"{seen['requests']} {seen['tokens']} {seen['filled']} {round(1e6 * cpu)}"
                self.lines.insert(at, f"step {self._steps} {facts}")
                self.lines.append("done")
            return result

        core.step_fn, core.scheduler.schedule = noted_step, noted_schedule


def step_facts(scheduler: Any, output: Any) -> dict[str, int]:
    """Requests and tokens of a step, and how many requests fill a block in it."""
    filled = 0
    for request_id, count in output.num_scheduled_tokens.items():
        after = scheduler.requests[request_id].num_computed_tokens  # This step included.
        filled += after // BLOCK_TOKENS > (after - count) // BLOCK_TOKENS
    return {
        "requests": len(output.num_scheduled_tokens),
        "tokens": output.total_num_scheduled_tokens,
        "filled": filled,
    }


def prompt(number: int, tokens: int = PROMPT) -> list[int]:
    """As in bench/vllm/off.py: no two begin alike."""
    return [(31 * i + 9973 * number) % 48_000 + 100 for i in range(tokens)]


def start(work: Path) -> Any:
    from vllm import LLM

    return LLM(
        model=str(installed()["model_bfloat16"]),
        dtype="bfloat16",
        block_size=BLOCK_TOKENS,
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=REQUESTS,
        kv_cache_memory_bytes=200_000_000,
        kv_transfer_config={
            "kv_connector": "TerraceConnector",
            "kv_connector_module_path": "terrace.connectors.vllm",
            "kv_role": "kv_both",
            "kv_load_failure_policy": "recompute",
            "kv_connector_extra_config": SETTINGS | {"attach.directory": str(work / "attach")},
        },
    )


def serve(llm: Any, prompts: list[list[int]], answers: list[int]) -> None:
    from vllm import SamplingParams

    params = [
        SamplingParams(max_tokens=answer, temperature=0, ignore_eos=True, detokenize=False)
        for answer in answers
    ]
    llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)


def drive(llm: Any, recorder: Recorder, step: Callable[[], Any]) -> None:
    batch = [prompt(number) for number in range(REQUESTS)]
    serve(llm, [prompt(1000), prompt(1001)], [40, 40])  # Attached, canary passed, all warm.
    recorder.is_armed = True
    recorder.lines.append("part new")
    serve(llm, batch, [ANSWER] * REQUESTS)
    recorder.lines.append("part hit")
    assert llm.reset_prefix_cache()
    serve(llm, batch, [ANSWER] * REQUESTS)
    # Lengths that share no factor: blocks fill at different steps.
    recorder.lines.append("part mixed")
    ragged = [prompt(100 + number, 70 + 37 * number) for number in range(REQUESTS)]
    serve(llm, ragged, [ANSWER + 5 * number for number in range(REQUESTS)])
    # A step after the last request's end schedules nothing, but calls every hook.
    recorder.lines.append("part empty")
    for number in range(4):
        step()
        serve(llm, [prompt(200 + number, 20)], [1])
    step()
    recorder.is_armed = False


def main() -> int:
    target = Path(sys.argv[-1]).resolve()
    work = ROOT / "build" / "bench" / "replay"
    if sys.argv[1] != "--in-process":
        command = [sys.executable, __file__, "--in-process", str(target)]
        os.execve(sys.executable, command, engine_env(work / "engine"))
    from terrace import _native

    recorder = Recorder()
    recorder.wrap(_native.load(), _native.FUNCTIONS)
    llm = start(work)
    core = llm.llm_engine.engine_core.engine_core
    recorder.watch(core)
    drive(llm, recorder, lambda: core.step_fn())
    facts = lines.machine()
    head = [
        "terrace-calls 1",
        f"engine vllm {__import__('vllm').__version__} SmolLM2-135M bfloat16",
        f"machine {facts['cores']} {facts['cpu']}",
        recorder.layout,
    ]
    target.write_text("\n".join(head + recorder.lines) + "\n")
    print(
        f"{len(recorder.lines)} lines, {target.stat().st_size} bytes in {target}", file=sys.stderr
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
