"""An engine whose clients say something of their requests, and which says how answers ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.integration.vllm.engine import Engine
from tests.integration.vllm.scenarios.small import make, measured, numbers

Say = Callable[[object], None]

# As a client might send them by mistake, or on purpose.
MALFORMED: list[Any] = [
    5,
    "session_over",
    [],
    {"session": 5, "session_over": "yes", "tool_call": 1, "return_s": float("nan"), "priority": 9},
    {"session": "x" * 1_000_000, "return_s": -1, "priority": ["high"]},
    {"return_s": 1e300, "unknown": {"a": [1] * 1000}},
    {f"name{number}": number for number in range(10_000)},
    {"session_over": True, "tool_call": True},
]


def hinting(hints: Any) -> dict[str, Any]:
    params = {"terrace": {"ledger": True, "hints": hints}}
    return {"extra_args": {"kv_transfer_params": params}}


def _again(engine: Engine, prompt: list[int], **more: Any) -> dict[str, Any]:
    """Whatever is hit, Terrace served."""
    engine.forget_local()
    return measured(engine, [prompt], **more)


def _aborted(engine: Engine, prompt: list[int]) -> dict[str, float]:
    """What a request that its client gives up leaves in the metrics."""
    from vllm import SamplingParams

    before = engine.metrics()
    core = engine.llm.llm_engine
    params = SamplingParams(temperature=0, max_tokens=500, ignore_eos=True, detokenize=False)
    core.add_request("given up", {"prompt_token_ids": prompt}, params)
    for _ in range(4):
        core.step()
    core.abort_request([engine.requests[-1].request_id], internal=True)
    while core.has_unfinished_requests():
        core.step()
    return engine.grown(before)


def said(say: Say, model: str) -> None:
    prompt, other = numbers(1, 300), numbers(2, 300)
    found: dict[str, Any] = {}
    engine = make(model, {"host.eviction": "hazard"})
    found["cold"] = measured(engine, [prompt])
    found["plain"] = _again(engine, prompt)
    hints = {"session": "a", "tool_call": True, "return_s": 3, "priority": "high"}
    found["hinted"] = _again(engine, prompt, **hinting(hints))
    found["over"] = _again(engine, other, **hinting({"session": "a", "session_over": True}))
    found["malformed"] = [_again(engine, prompt, **hinting(one)) for one in MALFORMED]
    last = found["cold"]["answers"][0]["tokens"][0][3]
    found["stopped"] = _again(engine, prompt, stop_token_ids=[last])
    engine.half._call_ends = frozenset({last})
    found["tool call"] = _again(engine, prompt, stop_token_ids=[last])
    found["given up"] = _aborted(engine, numbers(3, 300))
    found["status"] = engine.status()
    say(found)
