"""One engine, many short cases: what vLLM may do to a connector besides plain hits."""

from __future__ import annotations

import ctypes
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm.engine import Engine, until
from tests.integration.vllm.scenarios.small import WRITTEN, ask, make, measured, numbers

Say = Callable[[object], None]
HOST = 'terrace_hit_tokens_total{tier="host"}'
STORED = 'terrace_transfer_blocks_total{op="offload",source="device",target="host"}'
CORRUPT = 'terrace_corrupt_blocks_total{tier="host"}'


def host_mappings() -> list[tuple[int, int]]:
    """Addresses of the host tier in this process, writable ones."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw.s .*memfd:terrace", line)
        if match:
            begin, end = int(match.group(1), 16), int(match.group(2), 16)
            found.append((begin, end - begin))
    assert found, "no writable mapping of the host tier"
    return found


def flip_host_bytes() -> None:
    """Signs and exponents in each page; mappings of the same memory are flipped once."""
    import numpy

    seen: set[str] = set()
    for line in Path("/proc/self/maps").read_text().splitlines():
        match = re.match(
            r"([0-9a-f]+)-([0-9a-f]+) rw.s ([0-9a-f]+) \S+ (\d+) +.*memfd:terrace", line
        )
        if not match or f"{match.group(4)}:{match.group(3)}" in seen:
            continue
        seen.add(f"{match.group(4)}:{match.group(3)}")
        begin, end = int(match.group(1), 16), int(match.group(2), 16)
        view = (ctypes.c_uint8 * (end - begin)).from_address(begin)
        # Enough to change the answers: a low byte of a number would not show.
        numpy.ctypeslib.as_array(view).reshape(-1, 4096)[:, 3:512:4] ^= 0xFF


def tails(engine: Engine, prefix: int, count: int) -> list[list[int]]:
    """Prompts with one prefix and tails of their own."""
    return [
        engine.tokens(prefix, 0) + engine.tokens(20 + number, 1 + number % 2)[number:]
        for number in range(count)
    ]


def salts(engine: Engine) -> Any:
    prompt = engine.tokens(300)
    found = []
    for salt in ("A", "A", "B", None, None):
        engine.forget_local()
        found.append(engine.generate([prompt], salts=[salt])[0])
    return found


def prompt_log_probabilities(engine: Engine) -> Any:
    prompt = engine.tokens(300)
    engine.one(prompt)
    engine.forget_local()
    before = engine.metrics()
    asked = engine.one(prompt, prompt_logprobs=1)
    return {"asked": asked, "grown": engine.grown(before)}


def several_answers(engine: Engine) -> Any:
    prompt = engine.tokens(300)
    sampling = {"n": 3, "temperature": 0.8, "seed": 7}
    engine.one(prompt)
    local = engine.one(prompt, **sampling)
    engine.forget_local()
    before = engine.metrics()
    outside = engine.one(prompt, **sampling)
    return {"local": local, "outside": outside, "grown": engine.grown(before)}


def one_token(engine: Engine) -> Any:
    """Ended by the engine within the step that loads its prompt, before any report of it."""
    prompt = engine.tokens(300)
    engine.one(prompt)
    engine.forget_local()
    before = engine.metrics()
    answer = engine.one(prompt, max_tokens=1)
    return {"answer": answer, "grown": engine.grown(before)}


def over_several_steps(engine: Engine) -> Any:
    """Longer than a step takes: stored over several steps, then hit."""
    prompt = engine.tokens(900)
    engine.forget_local()
    engine.one(prompt)
    local = engine.one(prompt)
    engine.forget_local()
    before = engine.metrics()
    return {"local": local, "outside": engine.one(prompt), "grown": engine.grown(before)}


def shared_prefix(engine: Engine) -> Any:
    """Four requests of one step: the first loads, the others share its blocks."""
    prompts = tails(engine, 288, 4)
    engine.forget_local()
    engine.one(prompts[0])
    local = engine.generate(prompts)
    engine.forget_local()
    before = engine.metrics()
    return {"local": local, "outside": engine.generate(prompts), "grown": engine.grown(before)}


def corrupt_in_host(engine: Engine) -> Any:
    """Every stored byte is doubtful: all is computed anew, and what is stored then is right."""
    prompts = tails(engine, 288, 4)
    engine.forget_local()
    engine.one(prompts[0])
    local = engine.generate(prompts)
    engine.forget_local()
    flip_host_bytes()
    before = engine.metrics()
    flipped = engine.generate(prompts)
    until("the bad copies are removed", lambda: engine.grown(before).get(CORRUPT, 0) >= 9)
    grown = engine.grown(before)
    engine.generate(prompts)  # Whatever was in doubt until now is stored by the next request.
    engine.forget_local()
    before = engine.metrics()
    after = engine.generate(prompts)
    return {
        "local": local,
        "flipped": flipped,
        "grown": grown,
        "after": after,
        "grown_after": engine.grown(before),
    }


def corrupt_then_stored_again(engine: Engine) -> Any:
    """The request whose load failed stores what it computes in its place, while it lives."""
    from vllm import SamplingParams

    core = engine.llm.llm_engine
    prompt = engine.tokens(300)
    cold = engine.one(prompt)
    engine.forget_local()
    flip_host_bytes()
    before = engine.metrics()
    params = SamplingParams(temperature=0, max_tokens=1000, ignore_eos=True, detokenize=False)
    core.add_request("again", {"prompt_token_ids": prompt}, params)
    failed = engine.requests[-1]

    def is_stored() -> bool:
        core.step()
        return engine.grown(before).get(STORED, 0) >= 9

    until("as many blocks are stored again", is_stored)
    core.abort_request([failed.request_id], internal=True)
    while core.has_unfinished_requests():
        core.step()
    engine.forget_local()
    before = engine.metrics()
    return {"cold": cold, "after": engine.one(prompt), "grown": engine.grown(before)}


def ended_after_a_failed_load(engine: Engine) -> Any:
    """Whose load failed goes away before it computes anything: the engine's own cache, which has
    taken the promised blocks for whole, serves none of them."""
    from vllm import SamplingParams

    core = engine.llm.llm_engine
    prompt = engine.tokens(300) + engine.tokens(100, 1)
    cold = engine.one(prompt)
    engine.forget_local()
    flip_host_bytes()
    params = SamplingParams(temperature=0, max_tokens=8, detokenize=False)
    core.add_request("gone", {"prompt_token_ids": prompt}, params)
    failed = engine.requests[-1]

    def has_failed() -> bool:
        core.step()
        return failed.status.name == "RUNNING" and bool(failed.num_computed_tokens == 0)

    until("the load has failed", has_failed)
    core.abort_request([failed.request_id], internal=True)
    while core.has_unfinished_requests():
        core.step()
    return {"cold": cold, "after": engine.one(prompt)}


def reset_everything(engine: Engine) -> Any:
    prompt = engine.tokens(300)
    engine.one(prompt)
    assert engine.llm.reset_prefix_cache(reset_connector=True)
    before = engine.metrics()
    first = engine.one(prompt)
    grown = engine.grown(before)
    engine.forget_local()
    return {"first": first, "grown": grown, "second": engine.one(prompt)}


def next_turn(engine: Engine) -> Any:
    """Turn two continues turn one's prompt and answer: generated blocks are hit."""
    prompt = engine.tokens(300)
    answer = engine.one(prompt, max_tokens=100)
    longer = prompt + answer["tokens"][0] + engine.tokens(10, 1)
    local = engine.one(longer)
    engine.forget_local()
    before = engine.metrics()
    return {"local": local, "outside": engine.one(longer), "grown": engine.grown(before)}


def aborts(engine: Engine) -> Any:
    """Ended before admission, while its look-up waits, after one step, and while generating."""
    from vllm import SamplingParams

    core, pool = engine.llm.llm_engine, engine.scheduler.kv_cache_manager.block_pool
    prompt = engine.tokens(300)
    engine.one(prompt)
    engine.forget_local()
    free = pool.get_num_free_blocks()

    def abort_after(steps: int) -> Any:
        core.add_request(
            f"abort-{len(engine.requests)}",
            {"prompt_token_ids": prompt},
            SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, detokenize=False),
        )
        for _ in range(steps):
            core.step()
        request = engine.requests[-1]
        state = {"status": request.status.name, "computed": request.num_computed_tokens}
        core.abort_request([request.request_id], internal=True)
        while core.has_unfinished_requests():
            core.step()
        engine.forget_local()
        return state

    states = [abort_after(steps) for steps in (0, 1, 2, 20)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.half, "match", lambda *_arguments: None)
        states.append(abort_after(3))
    after = engine.one(prompt)
    return {
        "states": states,
        "leaked_blocks": free - pool.get_num_free_blocks(),
        "live": len(engine.half._live),
        "active": engine.status()["active_requests"],
        "after": after,
    }


def events(engine: Engine) -> Any:
    """What the engine publishes for a stored prompt, and its own hashes of the same blocks."""
    published: list[Any] = []
    publisher = engine.scheduler.kv_event_publisher
    publisher.publish = published.append
    prompt = engine.tokens(130, 2)
    engine.one(prompt, max_tokens=40)
    engine.one(engine.tokens(40, 1), max_tokens=40)
    hashes = engine.requests[-2].block_hashes
    own = [int.from_bytes(value[-8:], "big") for value in hashes]
    found = []
    for one in [event for batch in published for event in batch.events]:
        if getattr(one, "medium", None) == "CPU" and type(one).__name__ == "BlockStored":
            found.append(
                {
                    "hashes": one.block_hashes,
                    "parent": one.parent_block_hash,
                    "tokens": one.token_ids,
                    "locality": one.locality,
                }
            )
    return {"own": own, "stored": found, "prompt": prompt}


CASES = (
    salts,
    prompt_log_probabilities,
    several_answers,
    one_token,
    over_several_steps,
    shared_prefix,
    next_turn,
    aborts,
    events,
    corrupt_in_host,
    corrupt_then_stored_again,
    ended_after_a_failed_load,
    reset_everything,
)


def _out_of_host(engine: Engine) -> None:
    """Other prompts, until the host tier of 40 blocks has only those."""
    for seed in range(500, 505):
        ask(engine, [numbers(seed, 300)])
    engine.forget_local()


def _with_disk(model: str, disk: str) -> Engine:
    settings = {"host.blocks": 40, "disk.size": "64MiB", "disk.paths": [disk]}
    # By `lru`, so that five prompts seen once do push out one that was seen twice.
    return make(model, settings | {"host.eviction": "lru"})


def reset_then_killed(say: Say, model: str, disk: str, prompt: list[int]) -> None:
    """On disk, then forgotten, and not a moment longer."""
    engine = _with_disk(model, disk)
    cold = ask(engine, [prompt])[0]
    engine.wait_for_disk(9)
    engine.llm.llm_engine.engine_core.engine_core.pause_scheduler(clear_cache=True)
    say({"cold": cold})
    os.kill(os.getpid(), signal.SIGKILL)


def reset_then_served(say: Say, model: str, disk: str, prompt: list[int], later: list[int]) -> None:
    """Restarted; reset again; what is stored then comes back from disk, until the kill."""
    engine = _with_disk(model, disk)
    found: dict[str, Any] = {"restarted": measured(engine, [prompt])}
    engine.wait_for_disk(9)
    _out_of_host(engine)
    found["stored again"] = measured(engine, [prompt])
    found["is_reset"] = engine.llm.reset_prefix_cache(reset_connector=True)
    found["reset"] = measured(engine, [prompt])
    _out_of_host(engine)
    written = engine.metric(WRITTEN)
    found["cold"] = ask(engine, [later])[0]
    size = sum(region.piece_bytes for region in engine._regions)
    until("blocks on disk", lambda: engine.metric(WRITTEN) >= written + 9 * size)
    _out_of_host(engine)
    found["from disk"] = measured(engine, [later])
    found["status"] = engine.status()
    say(found)
    os.kill(os.getpid(), signal.SIGKILL)


def after_resets(say: Say, model: str, disk: str, prompts: list[list[int]]) -> None:
    engine = _with_disk(model, disk)
    first = measured(engine, prompts)
    engine.forget_local()
    say({"first": first, "again": measured(engine, prompts), "status": engine.status()})


def run(say: Say, model: str) -> None:
    engine = make(
        model,
        {},
        max_num_batched_tokens=512,
        kv_events_config={"enable_kv_cache_events": True, "publisher": "null"},
    )
    found = {}
    for case in CASES:
        engine.llm.reset_prefix_cache(reset_connector=True)
        found[case.__name__] = case(engine)
    found["status"] = engine.status()
    say(found)
