"""Engines with host tiers of their own, and one store of packs below them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from tests.integration.vllm.engine import Engine, until
from tests.integration.vllm.scenarios.small import make

Say = Callable[[object], None]
PACKS = 'terrace_object_packs_total{op="put"}'
OBJECT = 'terrace_hit_tokens_total{tier="object"}'
CORRUPT = 'terrace_corrupt_blocks_total{tier="object"}'
LENGTH, PACKED, GENERATED = 300, 256, 70  # Nine whole blocks of 32, eight of them in two packs.


def reference(say: Say, model: str) -> None:
    """Without Terrace: the engine's own hit of as many tokens as packs hold."""
    engine = Engine(model, settings=None)
    prompt = engine.tokens(LENGTH)
    cold = engine.one(prompt)
    engine.llm.reset_prefix_cache()
    engine.one(prompt[: PACKED + 1], max_tokens=1)
    say({"cold": cold, "local": engine.one(prompt)})


def store(say: Say, model: str, settings: dict[str, Any], packs: int) -> None:
    """Computes a prompt and an answer to it; what fills packs is put."""
    engine = Engine(model, settings=settings)
    answer = engine.one(engine.tokens(LENGTH), max_tokens=GENERATED)
    until("packs in the store", lambda: engine.metric(PACKS) >= packs)
    hashes = list(engine.requests[-1].block_hashes[: PACKED // engine.block_size])
    found = {"answer": answer, "digests": engine.block_digests(hashes)}
    say(found | {"status": engine.status()})


def serve(say: Say, model: str, settings: dict[str, Any]) -> None:
    """Another node: the first request after its start, then out of its own host tier."""
    engine = Engine(model, settings=settings)
    prompt = engine.tokens(LENGTH)
    found: dict[str, Any] = {}
    for name in ("store", "host"):
        before = engine.metrics()
        found[name] = engine.one(prompt)
        found[name]["grown"] = engine.grown(before)
        hashes = list(engine.requests[-1].block_hashes[: PACKED // engine.block_size])
        found[name]["digests"] = engine.block_digests(hashes)
        engine.forget_local()
    say(found | {"status": engine.status()})


def ask(say: Say, model: str, settings: dict[str, Any]) -> None:
    """One request, whatever the store holds by now."""
    engine = Engine(model, settings=settings)
    before = engine.metrics()
    answer = engine.one(engine.tokens(LENGTH))
    say({"answer": answer, "grown": engine.grown(before), "status": engine.status()})


def reset_then_killed(
    say: Say, model: str, settings: dict[str, Any], prompts: list[list[int]]
) -> None:
    """Packs are in the store and on their way there; forgotten, and not a moment longer."""
    engine = make(model, settings)
    cold = engine.generate(prompts)
    until("the first pack in the store", lambda: engine.metric(PACKS) >= 1)
    is_reset = engine.llm.reset_prefix_cache(reset_connector=True)
    say({"cold": cold, "is_reset": is_reset})
    os.kill(os.getpid(), signal.SIGKILL)


def after_reset(
    say: Say, model: str, settings: dict[str, Any], prompts: list[list[int]], packs: int
) -> None:
    engine = make(model, settings)
    before = engine.metrics()
    answers = engine.generate(prompts)
    grown = engine.grown(before)
    until("packs of its own", lambda: engine.metric(PACKS) >= packs)
    say({"answers": answers, "grown": grown, "status": engine.status()})


def after_that(say: Say, model: str, settings: dict[str, Any], prompts: list[list[int]]) -> None:
    engine = make(model, settings)
    before = engine.metrics()
    say({"answers": engine.generate(prompts), "grown": engine.grown(before)})
