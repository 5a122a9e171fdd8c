"""An engine whose core is a process of its own: only its answers can be looked at."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.vllm.engine import DEADLINE_S, SETTINGS, transfer_config

Say = Callable[[object], None]


def _open(model: str, transfer: dict[str, Any]) -> Any:
    from vllm import LLM

    return LLM(
        model=model,
        dtype="float32",
        block_size=32,
        enforce_eager=True,
        max_model_len=2048,
        max_num_seqs=4,
        seed=0,
        kv_cache_memory_bytes=64 << 20,
        skip_tokenizer_init=True,
        disable_log_stats=True,
        kv_transfer_config=transfer,
    )


def _by_module(settings: dict[str, Any]) -> dict[str, Any]:
    return transfer_config(SETTINGS | settings, "kv_both", None)


def _ask(llm: Any, prompts: list[list[int]]) -> list[dict[str, Any]]:
    from vllm import SamplingParams

    wanted = {"kv_transfer_params": {"terrace": {"ledger": True}}}
    params = SamplingParams(
        temperature=0, max_tokens=8, ignore_eos=True, detokenize=False, extra_args=wanted
    )
    asked = [{"prompt_token_ids": prompt} for prompt in prompts]
    return [
        {
            "tokens": [list(one.token_ids) for one in output.outputs],
            "cached": output.num_cached_tokens,
            "ledger": (output.kv_transfer_params or {}).get("terrace", {}).get("ledger"),
        }
        for output in llm.generate(asked, params, use_tqdm=False)
    ]


def killed(say: Say, model: str, prompts: list[list[int]], settings: dict[str, Any]) -> None:
    """Cold, out of host, then kill -9 of the core alone.

    How the front end takes that is vLLM's own: as a rule with EngineDeadError, at times it hangs.
    """
    llm = _open(model, _by_module(settings))
    cold = _ask(llm, prompts)
    assert llm.reset_prefix_cache()
    host = _ask(llm, prompts)
    (core,) = multiprocessing.active_children()
    assert core.pid is not None
    gone = os.pidfd_open(core.pid)  # The front end waits for it, too: it is not to be reaped here.
    os.kill(core.pid, signal.SIGKILL)
    assert select.select([gone], [], [], DEADLINE_S)[0]
    say({"cold": cold, "host": host})
    os.kill(os.getpid(), signal.SIGKILL)


def restarted(say: Say, model: str, prompts: list[list[int]], settings: dict[str, Any]) -> None:
    say({"answers": _ask(_open(model, _by_module(settings)), prompts)})


def short(say: Say, model: str, prompts: list[list[int]]) -> None:
    """The short name alone, settings from the environment: cold and out of host.

    Says, too, which library the core has, as nothing else tells where its package came from.
    """
    llm = _open(model, {"kv_connector": "TerraceConnector", "kv_role": "kv_both"})
    cold = _ask(llm, prompts)
    assert llm.reset_prefix_cache()
    host = _ask(llm, prompts)
    (core,) = multiprocessing.active_children()
    maps = Path(f"/proc/{core.pid}/maps").read_text().splitlines()
    libraries = {line.split()[-1] for line in maps if "libterrace" in line}
    say({"cold": cold, "host": host, "libraries": sorted(libraries)})
