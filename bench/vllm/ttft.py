"""`vllm-ttft`: time to first token of a hit in Terrace beside the engine's own prefix hit.

For each prompt length, alternating in one engine: the prompt again (the engine's own prefix
cache), then after `reset_prefix_cache` (Terrace's host tier; or disk, with a host tier too small to
hold two prompts, which are asked for in turn; or an S3 server beside it, in the same way). A sample
counts only if the ledger names exactly the expected tokens. The allowed difference is that of
moving the bytes: 1.25 x bytes / copy rate + 2 ms for host, 1.15 x bytes / read rate of fio + 3 ms
for disk; what S3 costs is reported.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[2] / "tools"),
]

from bench.vllm import lines  # noqa: E402
from bench.vllm.engine import (  # noqa: E402
    BYTES_PER_TOKEN,
    connector_of,
    make_empty,
    metric_total,
    start_engine,
)

from engine_env import ROOT, engine_env, transfer_config  # noqa: E402
from s3_server import BUCKET, KEY, SECRET, s3_server  # noqa: E402

LENGTHS = (1024, 2048, 4096, 7168)
# Whole packs of 16 blocks of 128 tokens, and the token that is always computed.
PACKED_LENGTHS = (4097, 6145)
PACK_TOKENS = 2048
PUT_LIMIT_S = 60.0
BLOCK_TOKENS = 128
# Requests vary by a tenth: with 15 the interval is wider than what is allowed.
PAIRS = 45


@dataclass(frozen=True)
class Turns:
    """So many prompts are asked for in turn, and the host tier has room for fewer."""

    prompts: int
    host_prompts: float


# A waiting request may pin half of the host tier; a quarter of it may wait to be put.
TURNS = {"disk": Turns(3, 2.3), "s3": Turns(6, 4.3)}
# In turn, the one used longest ago is all that is not in host; `hazard` would keep a part of each.
IN_TURN = {"host.eviction": "lru"}


@dataclass
class Answer:
    """One request: seconds to its first token, wall and CPU of the whole process."""

    wall: float = 0.0
    cpu: float = 0.0
    ledger: dict[str, Any] = field(default_factory=dict)


@dataclass
class Samples:
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        self.wall.append(answer.wall)
        self.cpu.append(answer.cpu)


def _ledger(output: Any) -> dict[str, Any]:
    terrace = (output.kv_transfer_params or {}).get("terrace") or {}
    return terrace.get("ledger") or {}


class Engine:
    """One in-process engine with Terrace; prompts are token ids."""

    def __init__(self, host_tokens: int, below: dict[str, Any]) -> None:
        self.asked = 0
        extra: dict[str, Any] = {"host.size": f"{host_tokens * BYTES_PER_TOKEN}B", **below}
        self.llm = start_engine(
            block_size=BLOCK_TOKENS,
            max_model_len=8192,
            max_num_seqs=1,
            kv_cache_memory_bytes=9216 * BYTES_PER_TOKEN,
            disable_log_stats=True,
            kv_transfer_config=transfer_config(extra),
        )

    def ask(self, tokens: list[int]) -> Answer:
        """Steps the engine until the request is over; the clock stops at its first token."""
        from vllm import SamplingParams

        params = SamplingParams(
            # The ledger names what was verified only after the first step's report is in.
            max_tokens=2,
            ignore_eos=True,
            temperature=0,
            detokenize=False,
            extra_args={"kv_transfer_params": {"terrace": {"ledger": True}}},
        )
        engine = self.llm.llm_engine
        self.asked += 1
        gc.collect()
        answer = Answer()
        wall, cpu = time.perf_counter(), time.process_time()
        engine.add_request(str(self.asked), {"prompt_token_ids": tokens}, params)
        while engine.has_unfinished_requests():
            for output in engine.step():
                if not answer.wall and output.outputs[0].token_ids:
                    answer.wall = time.perf_counter() - wall
                    answer.cpu = time.process_time() - cpu
                answer.ledger = _ledger(output) or answer.ledger
        return answer

    def forget(self) -> None:
        self.llm.reset_prefix_cache()

    def wait_for_packs(self, count: int) -> None:
        """Puts go on in the background; what is measured later has to be in the store."""
        self.ask([5, 6, 7])  # The report of a request's last step comes with the next step.
        end = time.monotonic() + PUT_LIMIT_S
        while metric_total(self.llm, 'terrace_object_packs_total{op="put"}') < count:
            if time.monotonic() > end:
                status = connector_of(self.llm)._scheduler.owner.read_status()
                raise RuntimeError(
                    f"fewer than {count} packs were put in {PUT_LIMIT_S:.0f} s: {status}"
                )
            time.sleep(0.05)


def prompt(length: int, number: int) -> list[int]:
    """No two lengths begin alike, so that none is served by what a shorter one left."""
    seed = 104_729 * number + 31 * length
    return [(7919 * (i + 1) + seed) % 48_000 + 100 for i in range(length)]


def copy_rate() -> float:
    """Bytes per second that two threads, as many as a load has, copy in pieces of 96 KiB.

    Between cold buffers: the limit of a host load.
    """
    import numpy as np

    source = np.ones(256 << 20, dtype=np.uint8)
    target = np.ones_like(source)
    piece, half = 96 << 10, len(source) // 2

    def copy_half(start: int) -> None:
        for at in range(start, start + half, piece):
            target[at : at + piece] = source[at : at + piece]

    rates = []
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            began = time.perf_counter()
            list(pool.map(copy_half, (0, half)))
            rates.append(len(source) / (time.perf_counter() - began))
    return statistics.median(rates)


def fio_rate(folder: Path) -> float:
    """Bytes per second of direct reads of one block's size, as many in flight as a load has."""
    piece = BLOCK_TOKENS * BYTES_PER_TOKEN // 4096 * 4096
    words = ["fio", "--name=r", f"--directory={folder}", "--size=512M", f"--bs={piece}"]
    words += ["--rw=read", "--direct=1", "--ioengine=io_uring", "--iodepth=16", "--loops=2"]
    words += ["--output-format=json", "--filename=fio.tmp", "--group_reporting"]
    out = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    (folder / "fio.tmp").unlink(missing_ok=True)
    return float(json.loads(out)["jobs"][0]["read"]["bw_bytes"])


def is_full_hit(ledger: dict[str, Any], tier: str, tokens: int) -> bool:
    return ledger.get("hit_tokens") == {tier: tokens} and not ledger.get("local_tokens")


def alternate(
    engine: Engine,
    prompts: list[list[int]],
    tier: str,
    full: int,
    rate: Callable[[], float],
) -> tuple[Samples, Samples, list[float], int]:
    """Pairs of a hit in Terrace and the engine's own, the limit's rates, how many did not count.

    Where Terrace's half was no full hit, the other half is left out, too: what is compared was
    measured one after the other. The limit's rate is taken before, between and after the pairs.
    """
    ours, own, wrong, rates = Samples(), Samples(), 0, [rate()]
    for turn in range(2 * PAIRS):
        tokens = prompts[turn % len(prompts)]
        engine.forget()
        first, second = engine.ask(tokens), engine.ask(tokens)
        if not is_full_hit(first.ledger, tier, full):
            wrong += 1
            continue
        ours.add(first)
        own.add(second)
        if len(ours.wall) == PAIRS:
            break
        if len(ours.wall) % 4 == 0:
            rates.append(rate())
    return ours, own, [*rates, rate()], wrong


def no_rate() -> float:
    return 0.0


def measure(engine: Engine, tier: str, length: int, limit: Callable[[], float]) -> bool:
    """Prints one line. False if too few samples counted for one."""
    count = TURNS[tier].prompts if tier in TURNS else 1
    prompts = [prompt(length, number) for number in range(count)]
    full = (length - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    cold = Samples()
    for number, tokens in enumerate(prompts, start=1):
        cold.add(engine.ask(tokens))
        if tier == "s3":
            engine.wait_for_packs(number * (length // PACK_TOKENS))
    name = "object" if tier == "s3" else tier
    ours, own, rates, wrong = alternate(engine, prompts, name, full, limit)
    rate = statistics.median(rates)
    if len(ours.wall) < PAIRS:
        print(
            f"vllm-ttft.{tier} {length}: no line, {wrong} of {wrong + len(ours.wall)} samples were "
            "no full hit",
            file=sys.stderr,
        )
        return False
    moved = full * BYTES_PER_TOKEN
    difference = [a - b for a, b in zip(ours.wall, own.wall, strict=True)]
    factor, extra = (1.25, 0.002) if tier == "host" else (1.15, 0.003)
    params = {
        "tokens": length,
        "bytes": moved,
        "difference_ms": 1e3 * statistics.median(difference),
        "difference_ms_90": [1e3 * v for v in lines.interval(difference)],
        "allowed_ms": 1e3 * (factor * moved / rate + extra) if rate else None,
        "rate_bytes_per_s": rate or None,
        "cold_s": statistics.median(cold.wall),
        "speedup_over_cold": statistics.median(cold.wall) / statistics.median(ours.wall),
        "cpu_s": statistics.median(ours.cpu),
        "own_cpu_s": statistics.median(own.cpu),
        "not_full_hits": wrong,
    }
    lines.emit(f"vllm-ttft.{tier}", params, "s", ours.wall, "own prefix hit", own.wall)
    return True


def run_tier(tier: str, endpoint: str) -> bool:
    """False when a length has no line."""
    work = ROOT / "build" / "bench" / "vllm-ttft"
    make_empty(work / "cache")
    is_whole = True
    if tier == "host":
        engine = Engine(48_000, {})
        for length in LENGTHS:
            is_whole = measure(engine, tier, length, copy_rate) and is_whole
        return is_whole
    disk = {"disk.size": f"{4 << 30}B", "disk.paths": [str(work / "cache")]}
    bucket = {
        "object.enabled": True,
        "object.bucket": BUCKET,
        "object.endpoint": endpoint,
        "object.access_key": KEY,
        "object.secret_key": SECRET,
    }
    for length in PACKED_LENGTHS if tier == "s3" else LENGTHS:
        room = int(TURNS[tier].host_prompts * length)
        engine = Engine(room, IN_TURN | (bucket if tier == "s3" else disk))
        limit = no_rate if tier == "s3" else lambda: fio_rate(work)
        is_whole = measure(engine, tier, length, limit) and is_whole
        return_to_os(engine)
    return is_whole


def return_to_os(engine: Engine) -> None:
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.distributed.kv_transfer import ensure_kv_transfer_shutdown

    del engine.llm
    ensure_kv_transfer_shutdown()
    cleanup_dist_env_and_memory()
    gc.collect()


def run_apart(tier: str, endpoint: str = "") -> int:
    """One process per tier: an engine leaves its connector behind in its process."""
    env = engine_env(ROOT / "build" / "bench" / "vllm-ttft" / "engine")
    words = [sys.executable, __file__, "--in-process", tier, endpoint]
    return subprocess.run(words, env=env, check=False).returncode


def main() -> int:
    if sys.argv[1:2] == ["--in-process"]:
        return 0 if run_tier(*sys.argv[2:4]) else 1
    names = [word for word in sys.argv[1:] if word.startswith("vllm-ttft.")]
    code = 0
    for tier in ("host", "disk", "s3"):
        if names and not any(name.startswith(f"vllm-ttft.{tier}") for name in names):
            continue
        if tier == "s3":
            folder = ROOT / "build" / "bench" / "vllm-ttft" / "s3"
            make_empty(folder)
            with s3_server(folder) as server:
                code |= run_apart(tier, server.endpoint)
        else:
            code |= run_apart(tier)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
