"""One engine in a process of its own that does what it is told: a variant among others, all started
before anything is measured, of which one works at a time while the others wait.

Commands and answers are JSON lines; what the engine says goes to a log. Run as a program, this is
the engine; imported, `side()` starts one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[2] / "tools"),
]

from bench.vllm.engine import connector_of, metric_total, start_engine  # noqa: E402

from engine_env import ROOT, engine_env, transfer_config  # noqa: E402

# Makes a slow disk of a fast one: bench/throttled_backend.cc.
THROTTLED = ROOT / "build" / "release" / "bench" / "libthrottled_backend.so"
WRITTEN = 'terrace_transfer_bytes_total{op="offload",source="host",target="disk"}'
ANSWER_LIMIT_S = 900.0
BLOCK_TOKENS = 32
# What goes on behind a round belongs to it: until so little CPU time passes, or so much time.
SETTLED_CPU_S, SETTLE_STEP_S, SETTLE_LIMIT_S = 0.002, 0.05, 5.0


def connector(kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Options of the engine for `alone`, `terrace` or `stand_in`."""
    if kind == "alone":
        return {}
    if kind == "terrace":
        return {"kv_transfer_config": transfer_config(settings)}
    own = {"spec_name": "StandIn", "spec_module_path": "bench.vllm.stand_in"}
    return {
        "kv_transfer_config": {
            "kv_connector": "OffloadingConnector",
            "kv_role": "kv_both",
            "kv_connector_extra_config": own | settings,
        }
    }


class Serving:
    """The engine's side: one engine after the other."""

    def __init__(self) -> None:
        self._llm: Any = None
        self._kind = ""
        self._asked = 0
        self._said: dict[str, list[int]] = {}  # Of each chat: prompts and answers so far.

    # ---- Verbs ----------------------------------------------------------------------------------

    def open(self, kind: str, settings: dict[str, Any], **engine: Any) -> dict[str, Any]:
        """`engine`: dtype, cache_tokens, bytes_per_token, seats."""
        self._kind = kind
        tokens = engine["cache_tokens"] + BLOCK_TOKENS  # One block is the engine's own.
        self._llm = start_engine(
            dtype=engine["dtype"],
            block_size=BLOCK_TOKENS,
            max_model_len=min(engine["cache_tokens"], 8192),
            max_num_seqs=engine["seats"],
            kv_cache_memory_bytes=tokens * engine["bytes_per_token"],
            disable_log_stats=True,
            **connector(kind, settings),
        )
        return {}

    def close(self) -> dict[str, Any]:
        """Ends the engine, so that this process can open another one."""
        from vllm.distributed import cleanup_dist_env_and_memory
        from vllm.distributed.kv_transfer import ensure_kv_transfer_shutdown

        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        self._said.clear()
        ensure_kv_transfer_shutdown()
        cleanup_dist_env_and_memory()
        gc.collect()
        return {}

    def forget(self) -> dict[str, Any]:
        """Empties the engine's own cache, and no other."""
        self._llm.reset_prefix_cache()
        return {}

    def throttle(self, bytes_per_second: float) -> dict[str, Any]:
        library = ctypes.CDLL(str(THROTTLED))
        library.terrace_throttle.argtypes = [ctypes.c_double]
        library.terrace_throttle.restype = None
        library.terrace_throttle(bytes_per_second)
        return {}

    def metric(self, name: str) -> dict[str, Any]:
        return {"value": metric_total(self._llm, name)}

    def status(self) -> dict[str, Any]:
        return {"text": connector_of(self._llm)._scheduler.owner.read_status()}

    def serve(self, asked: list[dict[str, Any]], at_once: int) -> dict[str, Any]:
        """Answers all, `at_once` at a time, in their order: a row each, wall and CPU seconds."""
        gc.collect()
        loaded = self._stand_in_blocks()
        cpu, began = time.process_time(), time.perf_counter()
        rows = self._run(asked, at_once)
        wall = time.perf_counter() - began
        self._settle()
        cpu = time.process_time() - cpu
        loaded = self._stand_in_blocks() - loaded
        return {"rows": rows, "wall": wall, "cpu": cpu, "loaded": loaded * BLOCK_TOKENS}

    def margin(self, prompt: list[int]) -> dict[str, Any]:
        """By how much the likeliest next token is ahead of the second, in log-probability."""
        from vllm import SamplingParams

        params = SamplingParams(temperature=0, max_tokens=1, logprobs=2, ignore_eos=True)
        output = self._llm.generate([{"prompt_token_ids": prompt}], params, use_tqdm=False)[0]
        best = sorted((one.logprob for one in output.outputs[0].logprobs[0].values()), reverse=True)
        return {"margin": best[0] - best[1]}

    # ---- Requests -------------------------------------------------------------------------------

    def _run(self, asked: list[dict[str, Any]], at_once: int) -> list[dict[str, Any]]:
        engine = self._llm.llm_engine
        waiting = deque(asked)
        live: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        rows: list[dict[str, Any]] = []
        while waiting or live:
            while waiting and len(live) < at_once:
                one = waiting.popleft()
                row = self._add(one)
                live[str(self._asked)] = (one, row)
                rows.append(row)
            outputs = engine.step()
            now = time.perf_counter()
            for output in outputs:
                one, row = live[output.request_id]
                self._take(row, output, now)
                if output.finished:
                    del live[output.request_id]
                    self._end(one, row, output)
            if not outputs:
                time.sleep(0.001)  # As the engine's own loop does where no step computed anything.
        for row in rows:
            del row["last"], row["ids"]
        return rows

    def _add(self, one: dict[str, Any]) -> dict[str, Any]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._asked += 1
        prompt = self._said.get(one.get("chat", ""), []) + one["tokens"]
        terrace = {"ledger": True} | ({"mode": one["mode"]} if "mode" in one else {})
        is_terrace = self._kind == "terrace"
        params = SamplingParams(
            max_tokens=one["answer"],
            ignore_eos=True,
            temperature=0,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args={"kv_transfer_params": {"terrace": terrace}} if is_terrace else None,
        )
        row = {"prompt": len(prompt), "ids": prompt, "gaps": [], "answer": [], "ledger": {}}
        row |= {"ttft": 0.0, "cached": 0, "last": time.perf_counter()}
        self._llm.llm_engine.add_request(str(self._asked), {"prompt_token_ids": prompt}, params)
        return row

    @staticmethod
    def _take(row: dict[str, Any], output: Any, now: float) -> None:
        tokens = list(output.outputs[0].token_ids)
        row["cached"] = max(row["cached"], output.num_cached_tokens or 0)
        if not tokens:
            return
        if row["answer"]:
            row["gaps"].append(now - row["last"])
        else:
            row["ttft"] = now - row["last"]
        row["last"] = now
        row["answer"] += tokens

    def _end(self, one: dict[str, Any], row: dict[str, Any], output: Any) -> None:
        told = (getattr(output, "kv_transfer_params", None) or {}).get("terrace") or {}
        row["ledger"] = told.get("ledger") or {}
        if "chat" in one:
            self._said[one["chat"]] = row["ids"] + row["answer"]

    def _stand_in_blocks(self) -> int:
        if self._kind != "stand_in":
            return 0
        from bench.vllm import stand_in

        return stand_in.loaded["blocks"]

    @staticmethod
    def _settle() -> None:
        end = time.monotonic() + SETTLE_LIMIT_S
        while time.monotonic() < end:
            before = time.process_time()
            time.sleep(SETTLE_STEP_S)
            if time.process_time() - before < SETTLED_CPU_S:
                return


def obey(commands: Any, answers: Any) -> None:
    """Until the commands end. An error is an answer, and the end."""
    serving = Serving()
    for line in commands:
        asked = json.loads(line)
        verb = getattr(serving, asked.pop("do"))
        try:
            answer = verb(**asked)
        except Exception as error:  # The other side has to know, whatever it was.
            answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
            answers.flush()
            raise
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Side:
    """The bench's side of one engine."""

    def __init__(self, process: subprocess.Popen[bytes], answers: int, log: Path) -> None:
        self._process, self._answers, self._log = process, answers, log
        self._rest = b""

    def tell(self, verb: str, **words: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # Its end is told with its answer.
            self._process.stdin.write(json.dumps({"do": verb, **words}).encode() + b"\n")
            self._process.stdin.flush()

    def hear(self, limit_s: float = ANSWER_LIMIT_S) -> dict[str, Any]:
        """The answer to the oldest command. Errors: RuntimeError with the end of its log."""
        end = time.monotonic() + limit_s
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._answers], [], [], left)[0]:
                raise RuntimeError(f"an engine gave no answer in {limit_s:.0f} s:\n{self._words()}")
            more = os.read(self._answers, 1 << 20)
            if not more:
                raise RuntimeError(f"an engine ended:\n{self._words()}")
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"an engine failed: {answer['error']}\n{self._words()}")
        return answer

    def ask(self, verb: str, **words: Any) -> dict[str, Any]:
        self.tell(verb, **words)
        return self.hear()

    def _words(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]


@contextmanager
def side(folder: Path, words: Sequence[str] = ()) -> Iterator[Side]:
    """Starts one; its files lie in `folder`. Ended by its id when the block ends."""
    # What is asked of log-probabilities would be compiled first: 20 CPU seconds.
    env = engine_env(folder / "engine") | {"TORCHDYNAMO_DISABLE": "1"}
    log = folder / "log"
    read, write = os.pipe()
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*(words or (sys.executable, __file__)), str(write)],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            pass_fds=[write],
            env=env,
        )
    os.close(write)
    try:
        yield Side(process, read, log)
    finally:
        process.kill()
        process.communicate()
        os.close(read)


if __name__ == "__main__":
    obey(sys.stdin, os.fdopen(int(sys.argv[1]), "w"))
