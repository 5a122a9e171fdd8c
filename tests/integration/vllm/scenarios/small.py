"""Scenarios on tiny models: ranks, preemption, changed weights, groups, no own cache."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.integration.vllm.engine import Engine, until

Say = Callable[[object], None]
HOST = 'terrace_hit_tokens_total{tier="host"}'
OFFLOADED = 'terrace_transfer_bytes_total{op="offload",source="device",target="host"}'
WRITTEN = 'terrace_transfer_bytes_total{op="offload",source="host",target="disk"}'
DISK = 'terrace_hit_tokens_total{tier="disk"}'


def numbers(seed: int, count: int) -> list[int]:
    """Token ids that no tokenizer made."""
    rng = random.Random(seed)
    return [rng.randrange(3, 1000) for _ in range(count)]


def make(model: str, settings: dict[str, Any] | None, **more: Any) -> Engine:
    options: dict[str, Any] = {"skip_tokenizer_init": True, "memory": 64 << 20}
    return Engine(model, settings=settings, **(options | more))


def ask(engine: Engine, prompts: list[list[int]], **more: Any) -> list[dict[str, Any]]:
    return engine.generate(prompts, detokenize=False, **more)


def measured(engine: Engine, prompts: list[list[int]], **more: Any) -> dict[str, Any]:
    before = engine.metrics()
    return {"answers": ask(engine, prompts, **more), "grown": engine.grown(before)}


def plain(say: Say, model: str, prompts: list[list[int]], **more: Any) -> None:
    """Without Terrace: each prompt cold, then out of the engine's own cache."""
    engine = make(model, None, **more)
    cold = [ask(engine, [prompt])[0] for prompt in prompts]
    say({"cold": cold, "local": [ask(engine, [prompt])[0] for prompt in prompts]})


def twice(
    say: Say,
    model: str,
    prompts: list[list[int]],
    settings: dict[str, Any],
    is_killed: bool = False,
    **more: Any,
) -> None:
    """Cold, then out of host; ends by kill -9 if asked, once all is on disk."""
    engine = make(model, settings, **more)
    cold = measured(engine, prompts)
    if more.get("enable_prefix_caching", True):
        engine.forget_local()
    say({"cold": cold, "host": measured(engine, prompts), "status": engine.status()})
    if "disk.paths" in settings and OFFLOADED in cold["grown"]:
        size = cold["grown"][OFFLOADED]
        until("blocks on disk", lambda: engine.metric(WRITTEN) >= size)
    if is_killed:
        os.kill(os.getpid(), signal.SIGKILL)


def once(
    say: Say, model: str, prompts: list[list[int]], settings: dict[str, Any], **more: Any
) -> None:
    engine = make(model, settings, **more)
    say(measured(engine, prompts) | {"status": engine.status()})


def rungs(say: Say, model: str, prompts: list[list[int]], **more: Any) -> None:
    """Each prompt cold, from the engine's own cache and out of host, with its blocks' bytes."""
    engine = make(model, {}, **more)
    found: dict[str, Any] = {"cold": [], "local": [], "host": [], "bytes": []}
    before = engine.metrics()
    for prompt in prompts:
        found["cold"] += ask(engine, [prompt])
        hashes = engine.requests[-1].block_hashes[: (len(prompt) - 1) // engine.block_size]
        stored = engine.block_digests(hashes)
        found["local"] += ask(engine, [prompt])
        engine.forget_local()
        found["host"] += ask(engine, [prompt])
        found["bytes"].append([stored, engine.block_digests(hashes)])
    block = sum(region.piece_bytes for region in engine._regions)
    say(found | {"grown": engine.grown(before), "block_bytes": block})


def _abort_preempted(engine: Engine, prompts: list[list[int]]) -> dict[str, Any]:
    """Ends a request while it waits to be resumed; the others run to their end."""
    from vllm import SamplingParams
    from vllm.v1.request import RequestStatus

    core, pool = engine.llm.llm_engine, engine.scheduler.kv_cache_manager.block_pool
    free = pool.get_num_free_blocks()
    engine.requests.clear()
    params = SamplingParams(temperature=0, max_tokens=80, ignore_eos=True, detokenize=False)
    for number, prompt in enumerate(prompts):
        core.add_request(f"preempted-{number}", {"prompt_token_ids": prompt}, params)
    found: list[Any] = []
    while core.has_unfinished_requests():
        core.step()
        if not found:
            waiting = [r for r in engine.requests if r.status == RequestStatus.PREEMPTED]
            found = waiting[:1]
            core.abort_request([request.request_id for request in found], internal=True)
    engine.forget_local()
    leaked = free - pool.get_num_free_blocks()
    return {"count": len(found), "leaked_blocks": leaked, "live": len(engine.half._live)}


def crowd(engine: Engine, prompts: list[list[int]]) -> dict[str, Any]:
    """Each alone from nothing, then together more than the engine's cache holds at once."""
    solo = []
    for prompt in prompts:
        engine.llm.reset_prefix_cache(reset_connector=True)
        solo.append(ask(engine, [prompt], max_tokens=80)[0])
    engine.llm.reset_prefix_cache(reset_connector=True)
    engine.requests.clear()
    together = measured(engine, prompts, max_tokens=80)
    preemptions = [request.num_preemptions for request in engine.requests]
    engine.forget_local()
    return {"solo": solo, "together": together, "preemptions": preemptions}


def preempted(say: Say, model: str) -> None:
    """Requests are preempted and resumed, or end while they wait for that."""
    prompts = [numbers(seed, 200) for seed in range(4)]
    engine = make(model, {}, num_gpu_blocks_override=24, max_model_len=512)
    found = crowd(engine, prompts)
    found["aborted"] = _abort_preempted(engine, prompts)
    engine.forget_local()
    found["again"] = measured(engine, prompts, max_tokens=80)
    # What was stored around the preemptions, read back prompt by prompt.
    found["stored"] = []
    for prompt, answer in zip(prompts, found["solo"], strict=True):
        engine.forget_local()
        whole = prompt + answer["tokens"][0]
        found["stored"].append(measured(engine, [whole], max_tokens=4))
    say(found | {"status": engine.status()})


def _resumed(engine: Engine, prompt: list[int], salt: str, is_forgotten: bool) -> dict[str, Any]:
    """A request alone, preempted once; it resumes from the engine's own cache, or without it."""
    from vllm import SamplingParams

    core, scheduler = engine.llm.llm_engine, engine.scheduler
    params = SamplingParams(
        temperature=0, max_tokens=60, ignore_eos=True, detokenize=False, logprobs=3
    )
    asked = {"prompt_token_ids": prompt, "cache_salt": salt}
    core.add_request(f"resumed-{salt}", asked, params)
    request, before, answers = engine.requests[-1], engine.metrics(), []
    while core.has_unfinished_requests():
        answers += core.step()
        # Some steps after a block was filled: it is sealed by then.
        if request.num_preemptions == 0 and request.num_output_tokens == 30:
            if is_forgotten:
                scheduler.reset_prefix_cache(reset_running_requests=True)
            else:
                scheduler.running.remove(request)
                scheduler._preempt_request(request, 0.0, drop_stale_output=True)
                scheduler.prev_step_scheduled_req_ids.clear()
    grown = engine.grown(before)
    return engine._answer(answers[-1]) | {"grown": grown, "preemptions": request.num_preemptions}


def resumed(say: Say, model: str) -> None:
    engine = make(model, {})
    prompt = numbers(1, 200)
    local = _resumed(engine, prompt, "local", is_forgotten=False)
    say({"local": local, "host": _resumed(engine, prompt, "host", is_forgotten=True)})


def _later_bases() -> dict[str, Callable[[pytest.MonkeyPatch, type], None]]:
    """What a release that nobody knows may have made of the connector's base class."""

    def start_load_kv(_self: Any, forward_context: Any, stream: Any) -> None:
        """Another way to be called."""

    return {
        "the same": lambda _patch, _base: None,
        "another signature": lambda patch, base: patch.setattr(
            base, "start_load_kv", start_load_kv
        ),
        "a hook gone": lambda patch, base: patch.delattr(base, "on_new_request"),
    }


def _tell(told: list[str], text: str, *args: Any) -> None:
    told.append(text % args)


def newer(say: Say, model: str, prompts: list[list[int]]) -> None:
    """A release that nobody knows: served when its base class is as the known ones."""
    import vllm
    from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1

    from terrace.connectors.vllm.log import LOGGER

    found = {}
    for name, change in _later_bases().items():
        told: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vllm, "__version__", "0.99.0")
            for level in ("info", "error"):
                patch.setattr(LOGGER, level, partial(_tell, told))
            change(patch, KVConnectorBase_V1)
            engine = make(model, {})
            answers = ask(engine, prompts)
            engine.forget_local()
            answers += ask(engine, prompts)
            hit = engine.metric(HOST) if engine.half is not None else 0
            Engine.close_all()
        found[name] = {"answers": answers, "hit": hit, "told": told}
    say(found)


def second(say: Say, model: str, prompts: list[list[int]]) -> None:
    """Two engines live in one process; vLLM gives the second one the first one's connector."""
    first = make(model, {})
    cold = ask(first, prompts)
    other = make(model, {})
    first.forget_local()
    say(
        {
            "cold": cold,
            "other": ask(other, prompts),
            "again": ask(first, prompts),
            "once more": ask(other, prompts),
            "hits": first.metric(HOST) if first.half is not None else 0,
            "has_half": [engine.half is not None for engine in (first, other)],
        }
    )


def worker_refused(say: Say, model: str, prompts: list[list[int]]) -> None:
    """The worker finds KV memory of a form that is not served, after the owner was opened."""
    from terrace.connectors.vllm import layout

    def refuse(*_arguments: Any) -> Any:
        raise layout.LayoutError("made up")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "_region", refuse)
        engine = make(model, {})
    first = ask(engine, prompts)
    say({"answers": first, "has_half": engine.half is not None})


def ranks(say: Say, model: str, prompts: list[list[int]], settings: dict[str, Any]) -> None:
    """Two ranks, cold and out of host; then one is killed alone, and the engine ends."""
    engine = make(model, settings, tensor_parallel_size=2)
    cold = measured(engine, prompts)
    engine.forget_local()
    found = {"cold": cold, "host": measured(engine, prompts), "status": engine.status()}
    size = cold["grown"][OFFLOADED]
    until("blocks on disk", lambda: engine.metric(WRITTEN) >= size)
    workers = {process.pid for process in multiprocessing.active_children()}
    second = engine.status()["attachments"][1]["process"]
    assert second in workers
    os.kill(second, signal.SIGKILL)
    until("the owner sees the death", lambda: not engine.status()["attachments"][1]["attached"])
    say(found | {"after": engine.status()})
    os.kill(os.getpid(), signal.SIGKILL)
