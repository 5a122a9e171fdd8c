"""A model of several KV groups, one with full attention, the others with windows."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from tests.integration.vllm.engine import Engine, until
from tests.integration.vllm.scenarios.small import (
    OFFLOADED,
    WRITTEN,
    ask,
    crowd,
    make,
    measured,
    numbers,
)
from tests.integration.vllm.scenarios.trap import flip_host_bytes

Say = Callable[[object], None]
BLOCK = 32
BLOCKS = 12  # Of a prompt: more than the tiny model's windows hold.
FAILED = 'terrace_loads_total{result="failed"}'


def lengths(blocks: int) -> list[int]:
    return [BLOCK * blocks - 1, BLOCK * blocks, BLOCK * blocks + 1]


def prompts(blocks: int) -> list[list[int]]:
    """Of each length, none the beginning of another."""
    return [numbers(seed, length) for seed, length in enumerate(lengths(blocks))]


def hit(prompt: list[int]) -> int:
    """Tokens that a hit serves: one is left to compute."""
    return (len(prompt) - 1) // BLOCK * BLOCK


def capacity(engine: Engine) -> dict[str, int]:
    config = engine.scheduler.kv_cache_manager.kv_cache_config
    return {"blocks": config.num_blocks, "groups": len(config.kv_cache_groups)}


def reference(say: Say, model: str, blocks: int = BLOCKS, **more: Any) -> None:
    """Without Terrace: cold, out of the engine's own cache, and split where a hit would end."""
    engine = make(model, None, **more)
    found: dict[str, Any] = {"cold": [], "local": [], "split": [], "capacity": capacity(engine)}
    budget = engine.scheduler.max_num_scheduled_tokens
    for prompt in prompts(blocks):
        engine.forget_local()
        found["cold"] += ask(engine, [prompt])
        found["local"] += ask(engine, [prompt])
        engine.forget_local()
        engine.scheduler.max_num_scheduled_tokens = hit(prompt)
        found["split"] += ask(engine, [prompt])
        engine.scheduler.max_num_scheduled_tokens = budget
    say(found)


def _digests(engine: Engine, prompt: list[int]) -> list[list[str | None]]:
    """By group and block; None for what the engine has no more."""
    hashes = engine.requests[-1].block_hashes[: hit(prompt) // BLOCK]
    return engine.group_digests(hashes)


def truth(
    say: Say,
    model: str,
    settings: dict[str, Any],
    blocks: int = BLOCKS,
    is_killed: bool = False,
    **more: Any,
) -> None:
    """Cold, out of host, and with a part in the engine's own cache; may end by kill -9."""
    engine = make(model, settings, **more)
    found: dict[str, Any] = {"cold": [], "host": [], "mixed": [], "bytes": []}
    for prompt in prompts(blocks):
        engine.forget_local()
        found["cold"].append(measured(engine, [prompt]))
        stored = _digests(engine, prompt)
        engine.forget_local()
        found["host"].append(measured(engine, [prompt]))
        found["bytes"].append([stored, _digests(engine, prompt)])
        engine.forget_local()
        ask(engine, [prompt[: BLOCK * 5 + 1]], max_tokens=1)
        found["mixed"].append(measured(engine, [prompt]))
    engine.forget_local()
    together = measured(engine, prompts(blocks))
    sealed = engine.metric(OFFLOADED)
    say(
        found
        | {"together": together, "capacity": capacity(engine), "status": engine.status()}
        | {"live": len(engine.half._live)}
    )
    if is_killed:
        until("blocks on disk", lambda: engine.metric(WRITTEN) >= sealed)
        os.kill(os.getpid(), signal.SIGKILL)


def restarted(
    say: Say, model: str, settings: dict[str, Any], blocks: int = BLOCKS, **more: Any
) -> None:
    """A new engine over the old disk: its very first request hits."""
    engine = make(model, settings, **more)
    found = []
    for prompt in prompts(blocks):
        engine.forget_local()
        found.append(measured(engine, [prompt]))
    say({"disk": found, "status": engine.status()})


def broken(say: Say, model: str, blocks: int = BLOCKS, **more: Any) -> None:
    """Loads that fail: corrupt in host, refused by a worker that fell, accepted by no core."""
    from terrace.connectors.vllm import worker

    engine = make(model, {}, **more)
    prompt = prompts(blocks)[2]
    found: dict[str, Any] = {"cold": ask(engine, [prompt])}
    engine.forget_local()
    flip_host_bytes()
    found["corrupt"] = measured(engine, [prompt])
    engine.forget_local()
    found["again"] = measured(engine, [prompt])
    engine.forget_local()
    accept = engine.half.owner.accept_load
    engine.half.owner.accept_load = lambda *_a, **_k: (_ for _ in ()).throw(_exhausted())
    found["not accepted"] = measured(engine, [prompt])
    engine.half.owner.accept_load = accept
    engine.forget_local()

    def fall(*_arguments: Any) -> Any:
        raise RuntimeError("made up")

    kept = worker.WorkerHalf.load
    worker.WorkerHalf.load = fall  # type: ignore[method-assign,assignment]
    try:
        found["fallen"] = ask(engine, [prompt])
        engine.forget_local()
        found["after"] = ask(engine, [prompt])
    finally:
        worker.WorkerHalf.load = kept  # type: ignore[method-assign]
    say(found | {"has_half": engine.half is not None})


def _exhausted() -> Exception:
    from terrace import _native

    return _native.TerraceError("accept_load", _native.Code.EXHAUSTED, "made up")


def aborted(say: Say, model: str, blocks: int = BLOCKS, **more: Any) -> None:
    """Requests end at each step of their way; blocks and requests are given back."""
    from vllm import SamplingParams

    engine = make(model, {}, **more)
    prompt = prompts(blocks)[2]
    cold = ask(engine, [prompt])
    engine.forget_local()
    core, pool = engine.llm.llm_engine, engine.scheduler.kv_cache_manager.block_pool
    free = pool.get_num_free_blocks()
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True, detokenize=False)
    for steps in range(6):
        core.add_request(f"aborted-{steps}", {"prompt_token_ids": prompt}, params)
        for _ in range(steps):
            core.step()
        core.abort_request([request.request_id for request in engine.requests], internal=True)
        while core.has_unfinished_requests():
            core.step()
        engine.requests.clear()
        engine.forget_local()
    leaked = free - pool.get_num_free_blocks()
    found = {"cold": cold, "leaked_blocks": leaked, "live": len(engine.half._live)}
    say(found | {"after": measured(engine, [prompt]), "status": engine.status()})


def preempted(say: Say, model: str, **more: Any) -> None:
    """More than the engine's cache holds at once."""
    asked = [numbers(seed, 200) for seed in range(4)]
    engine = make(model, {}, num_gpu_blocks_override=100, max_model_len=320, **more)
    found = crowd(engine, asked)
    say(found | {"again": measured(engine, asked, max_tokens=80)})
