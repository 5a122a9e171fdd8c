"""One step of `terrace selftest` in a process of its own: an engine, a few prompts, what came out.

Run as `python -m terrace.cli.selftest_engine STEP ASKED ANSWER`, the last two being JSON files.
The engine stays in this process (VLLM_ENABLE_V1_MULTIPROCESSING=0), so that its KV can be seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from terrace.cli.serve import transfer_config

BLOCKS = 6  # Of the longest prompt.
NEW_TOKENS = 8
PATIENCE_S = 120.0
SETTINGS: dict[str, Any] = {
    "host.blocks": 256,
    "disk.blocks": 256,
    "planner.enabled": False,  # Whatever is found is to be loaded, cheap or not.
    "lookup.deadline": "60s",
    "attach.lookup_wait": "120s",
    # A store of the environment's has what an earlier self-test put, and would keep what this does.
    "object.path": "",
    "object.enabled": False,
}
HOST = 'terrace_hit_tokens_total{tier="host"}'
DISK = 'terrace_hit_tokens_total{tier="disk"}'
CORRUPT = 'terrace_corrupt_blocks_total{tier="disk"}'
OFFLOADED = 'terrace_transfer_bytes_total{op="offload",source="device",target="host"}'
WRITTEN = 'terrace_transfer_bytes_total{op="offload",source="host",target="disk"}'


class Engine:
    """The user's engine and model, greedy; with Terrace if there is a folder for its disk tier."""

    def __init__(self, flags: list[str], disk: str) -> None:
        from vllm import LLM, EngineArgs
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        parser = FlexibleArgumentParser()
        EngineArgs.add_cli_args(parser)
        options = vars(parser.parse_args(flags))
        options["disable_log_stats"] = True
        self._tensors: dict[str, Any] = {}
        if disk:
            self._look_at_memory()
            options["kv_transfer_config"] = transfer_config(SETTINGS | {"disk.paths": [disk]})
        self.llm = LLM(**options)

    def _look_at_memory(self) -> None:
        from terrace.connectors.vllm import layout

        registered = layout.registered

        def keep(plan: Any, caches: dict[str, Any]) -> Any:
            self._plan, self._tensors = plan, dict(caches)
            return registered(plan, caches)

        setattr(layout, "registered", keep)  # noqa: B010 (mypy refuses the assignment)

    @property
    def core(self) -> Any:
        return self.llm.llm_engine.engine_core.engine_core

    @property
    def half(self) -> Any:
        return self.core.scheduler.connector._scheduler

    @property
    def block_tokens(self) -> int:
        return int(self.core.scheduler.kv_cache_config.kv_cache_groups[0].kv_cache_spec.block_size)

    def prompts(self) -> list[list[int]]:
        """Around the edges of blocks; any ids of the vocabulary are as good as others."""
        size = self.block_tokens
        words = self.llm.llm_engine.model_config.get_vocab_size()
        found = []
        for seed, length in enumerate((size * BLOCKS - 1, size * BLOCKS, size * BLOCKS + 1)):
            rng = random.Random(seed)
            found.append([rng.randrange(words // 10, words * 9 // 10) for _ in range(length)])
        return found

    def ask(self, prompt: list[int]) -> dict[str, Any]:
        from vllm import SamplingParams

        params = SamplingParams(
            temperature=0,
            max_tokens=NEW_TOKENS,
            logprobs=1,
            ignore_eos=True,
            detokenize=False,
            extra_args={"kv_transfer_params": {"terrace": {"ledger": True}}},
        )
        before = self.metrics()
        begun = time.perf_counter()
        (output,) = self.llm.generate([{"prompt_token_ids": prompt}], params, use_tqdm=False)
        seconds = time.perf_counter() - begun
        (one,) = output.outputs
        steps = one.logprobs or []
        ledger = (output.kv_transfer_params or {}).get("terrace", {}).get("ledger") or {}
        return {
            "tokens": list(one.token_ids),
            "logprobs": [sorted((t, p.logprob) for t, p in step.items()) for step in steps],
            "seconds": seconds,
            "grown": {n: v - before.get(n, 0) for n, v in self.metrics().items()},
            "first_miss": ledger.get("first_miss"),
        }

    def forget_local(self) -> None:
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("the engine did not empty its own cache")

    def metrics(self) -> dict[str, float]:
        if not self._tensors or self.half is None:
            return {}
        found = {}
        for line in self.half.owner.read_metrics().splitlines():
            match = re.match(r"^([a-z_]+(?:\{[^}]*\})?) ([-+0-9.e]+)$", line)
            if match:
                found[match.group(1)] = float(match.group(2))
        return found

    def digests(self, prompt: list[int]) -> list[list[str | None]]:
        """SHA-256 of each full block by group, as it lies in the device; None = not there."""
        pool = self.core.scheduler.kv_cache_manager.block_pool
        hashes = self._hashes(prompt)
        found = []
        for number, group in enumerate(self._plan.kv_cache_groups):
            column: list[str | None] = []
            for one in hashes:
                cached = pool.get_cached_block(one, [number])
                block = int(cached[0].block_id) if cached else None
                column.append(None if block is None else self._digest(group.layer_names, block))
            found.append(column)
        return found

    def _hashes(self, prompt: list[int]) -> list[Any]:
        """The engine's own, of the blocks that a hit can serve."""
        count = (len(prompt) - 1) // self.block_tokens
        return list(self._seen[-1].block_hashes[:count])

    def watch_requests(self) -> None:
        """Keeps the engine's request objects, which know its own hashes."""
        self._seen: list[Any] = []
        begin = self.half.begin

        def keep(request: Any) -> None:
            self._seen.append(request)
            begin(request)

        self.half.begin = keep

    def _digest(self, layers: list[str], block: int) -> str:
        digest = hashlib.sha256()
        for name in layers:
            import torch

            piece = self._tensors[name][block].contiguous().cpu().view(torch.uint8)
            digest.update(piece.numpy().tobytes())
        return digest.hexdigest()

    def facts(self) -> dict[str, Any]:
        import vllm

        config = self.core.scheduler.kv_cache_config
        groups = [
            {"layers": len(group.layer_names), "spec": type(group.kv_cache_spec).__name__}
            for group in config.kv_cache_groups
        ]
        model = self.llm.llm_engine.model_config
        return {
            "vllm": vllm.__version__,
            "device": str(self.llm.llm_engine.vllm_config.device_config.device_type),
            "dtype": str(model.dtype),
            "block_tokens": self.block_tokens,
            "blocks": int(config.num_blocks),
            "groups": groups,
        }


def own(engine: Engine) -> dict[str, Any]:
    """Without Terrace: cold, then out of the engine's own cache, twice."""
    found: dict[str, Any] = {"cold": [], "local": [], "again": [], "facts": engine.facts()}
    for prompt in engine.prompts():
        engine.forget_local()
        found["cold"].append(engine.ask(prompt))
        found["local"].append(engine.ask(prompt))
        found["again"].append(engine.ask(prompt))
    return found


def store(engine: Engine) -> dict[str, Any]:
    """Cold, then out of host; all is on disk when this ends."""
    if engine.half is None:
        return {"refused": True, "facts": engine.facts()}
    engine.watch_requests()
    found: dict[str, Any] = {"cold": [], "host": [], "bytes": [], "facts": engine.facts()}
    for prompt in engine.prompts():
        engine.forget_local()
        found["cold"].append(engine.ask(prompt))
        before = engine.digests(prompt)
        engine.forget_local()
        found["host"].append(engine.ask(prompt))
        found["bytes"].append([before, engine.digests(prompt)])
    deadline = time.monotonic() + PATIENCE_S
    while engine.metrics().get(WRITTEN, 0) < engine.metrics().get(OFFLOADED, 0):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the blocks were not on disk after {PATIENCE_S} s")
        engine.ask(engine.prompts()[0][: engine.block_tokens // 2])
    found["status"] = json.loads(engine.half.owner.read_status())
    return found


def restart(engine: Engine) -> dict[str, Any]:
    """Another process over the same disk."""
    found: dict[str, Any] = {"disk": []}
    for prompt in engine.prompts():
        engine.forget_local()
        found["disk"].append(engine.ask(prompt))
    return found | {"prompts": engine.prompts(), "block_tokens": engine.block_tokens}


STEPS: dict[str, Callable[[Engine], dict[str, Any]]] = {
    "own": own,
    "store": store,
    "restart": restart,
    "flipped": restart,
}


def main(step: str, asked: str, answer: str) -> None:
    given = json.loads(Path(asked).read_text())
    engine = Engine(given["flags"], "" if step == "own" else given["disk"])
    found = STEPS[step](engine)
    part = Path(answer + ".part")
    part.write_text(json.dumps(found))
    part.rename(answer)
    os.kill(os.getpid(), signal.SIGKILL)  # An engine that ends by force is the case to survive.


if __name__ == "__main__":
    main(*sys.argv[1:])
