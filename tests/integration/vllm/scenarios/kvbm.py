"""KVBM's configurations, from its environment variables alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from tests.integration.vllm.engine import DEADLINE_S, transfer_config, until
from tests.integration.vllm.scenarios.small import OFFLOADED, WRITTEN


def configured(
    say: Callable[[object], None], model: str, environment: dict[str, str], prompt: list[int]
) -> None:
    """An engine whose own settings are empty; asked twice, its own cache emptied between."""
    from vllm import LLM, SamplingParams

    os.environ.update(environment)
    llm = LLM(
        model=model,
        skip_tokenizer_init=True,
        enforce_eager=True,
        block_size=32,
        max_model_len=2048,
        max_num_seqs=4,
        seed=0,
        kv_cache_memory_bytes=64 << 20,
        kv_transfer_config=transfer_config({}, "kv_both", None),
    )
    half = llm.llm_engine.engine_core.engine_core.scheduler.connector._scheduler
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, detokenize=False)

    def ask() -> Any:
        (output,) = llm.generate([{"prompt_token_ids": prompt}], params, use_tqdm=False)
        return list(output.outputs[0].token_ids)

    def metric(name: str) -> float:
        lines = half.owner.read_metrics().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " "))

    first = ask()
    offloaded = metric(OFFLOADED)
    is_on_disk = "DYN_KVBM_DISK_CACHE_GB" in environment
    if is_on_disk and "DYN_KVBM_DISABLE_DISK_OFFLOAD_FILTER" in environment:
        until("blocks on disk", lambda: metric(WRITTEN) >= offloaded, DEADLINE_S)
    llm.reset_prefix_cache()
    status = json.loads(half.owner.read_status())
    written = metric(WRITTEN)  # Before the second sight, which lets the filter admit a block.
    found = {"answers": [first, ask()], "offloaded": offloaded, "written": written}
    say(found | {"status": status})
    half.owner.close(0)
