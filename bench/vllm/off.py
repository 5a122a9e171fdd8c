"""`vllm-off`: what Terrace costs when nothing hits.

CPU seconds of the same requests in three kinds of engine, one process each, in turn: without a
connector, with Terrace storing everything, with Terrace only looking up. All prompts are new.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[2] / "tools"),
]

from bench.vllm import lines  # noqa: E402

from engine_env import ROOT, engine_env, installed, transfer_config  # noqa: E402

ROUNDS = 5
REQUESTS = 8
PROMPT, ANSWER = 256, 48
WORK = ROOT / "build" / "bench" / "vllm-off"
KINDS: dict[str, str | None] = {"absent": None, "store": "kv_both", "lookup": "kv_consumer"}


def transfer(kind: str) -> dict[str, Any]:
    role = KINDS[kind]
    if role is None:
        return {}
    # A folder each: what one kind stores, another one would hit.
    extra = {"host.size": "512MiB", "disk.size": "1GiB", "disk.paths": [str(WORK / "cache" / kind)]}
    return {"kv_transfer_config": transfer_config(extra, role)}


def own_threads() -> float:
    """CPU seconds of Terrace's own threads in this process, by their names."""
    ticks = 0
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text().startswith("terrace-"):
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def serve_once(kind: str, number: int) -> dict[str, float]:
    """In a process of its own: CPU and wall seconds of the requests after a warm-up."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=str(installed()["model_bfloat16"]),
        dtype="bfloat16",
        block_size=32,
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=8,
        kv_cache_memory_bytes=200_000_000,
        **transfer(kind),
    )
    params = SamplingParams(max_tokens=ANSWER, temperature=0, ignore_eos=True, detokenize=False)

    def batch(seed: int) -> list[Any]:
        return [
            {
                "prompt_token_ids": [
                    (31 * i + 9973 * (seed * REQUESTS + r)) % 48_000 + 100 for i in range(PROMPT)
                ]
            }
            for r in range(REQUESTS)
        ]

    llm.generate(batch(1000 + number), params, use_tqdm=False)
    wall, cpu, own = time.perf_counter(), time.process_time(), own_threads()
    for part in range(3):
        llm.generate(batch(10 * number + part), params, use_tqdm=False)
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "threads": own_threads() - own,
    }


def main() -> int:
    if sys.argv[1:2] == ["--in-process"]:
        Path(sys.argv[4]).write_text(json.dumps(serve_once(sys.argv[2], int(sys.argv[3]))))
        return 0
    shutil.rmtree(WORK / "cache", ignore_errors=True)
    (WORK / "cache").mkdir(parents=True)
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    env = engine_env(WORK / "engine")
    for number in range(ROUNDS):
        for kind in KINDS:
            answer = WORK / "answer.json"
            words = [sys.executable, __file__, "--in-process", kind, str(number), str(answer)]
            subprocess.run(words, env=env, check=True, stdout=sys.stderr)
            found[kind].append(json.loads(answer.read_text()))
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
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
