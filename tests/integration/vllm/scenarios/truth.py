"""Scenarios of the truth tests: the same prompts cold, from the engine's own cache, and from below.

Each answers with a dict that the test compares with the others'.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from tests.integration.vllm.engine import Engine

Say = Callable[[object], None]

OFFLOADED = 'terrace_transfer_bytes_total{op="offload",source="device",target="host"}'


def lengths(block_size: int, blocks: int) -> list[int]:
    edge = block_size * blocks
    return [edge - 1, edge, edge + 1]


def full_blocks(length: int, block_size: int) -> int:
    """Blocks that a hit can serve: one token is left to compute."""
    return (length - 1) // block_size


def prompts(engine: Engine, blocks: int) -> list[list[int]]:
    return [
        engine.tokens(length, text)
        for text in (0, 1)
        for length in lengths(engine.block_size, blocks)
    ]


def batch(engine: Engine, blocks: int) -> list[list[int]]:
    return [engine.tokens(engine.block_size * blocks + 7, text) for text in (0, 1, 2)]


def reference(say: Say, model: str, dtype: str, block_size: int, blocks: int) -> None:
    """Without Terrace: plain cold twice, own hits, and prefills split where a hit would end."""
    engine = Engine(model, dtype=dtype, block_size=block_size, settings=None)
    found: dict[str, list[Any]] = {"cold": [], "again": [], "local": [], "split": []}
    budget = engine.scheduler.max_num_scheduled_tokens
    for prompt in prompts(engine, blocks):
        engine.forget_local()
        found["cold"].append(engine.one(prompt))
        found["local"].append(engine.one(prompt))
        engine.forget_local()
        found["again"].append(engine.one(prompt))
        engine.forget_local()
        # Nothing else is scheduled, so the first step ends exactly where a hit would.
        engine.scheduler.max_num_scheduled_tokens = (
            full_blocks(len(prompt), block_size) * block_size
        )
        found["split"].append(engine.one(prompt))
        engine.scheduler.max_num_scheduled_tokens = budget
    together = batch(engine, blocks)
    engine.forget_local()
    for prompt in together:
        engine.one(prompt)
    say(found | {"batch": engine.generate(together)})


def store(
    say: Say,
    model: str,
    dtype: str,
    block_size: int,
    blocks: int,
    settings: dict[str, Any],
    is_killed: bool,
) -> None:
    """With Terrace: cold runs that store, then hits out of host; ends by kill -9 if asked."""
    engine = Engine(model, dtype=dtype, block_size=block_size, settings=settings)
    found: dict[str, Any] = {"cold": [], "local": [], "host": [], "mixed": [], "bytes": []}
    for prompt in prompts(engine, blocks):
        engine.forget_local()
        # Salts keep the prompts apart, which are prefixes of each other.
        salt = [f"{len(prompt)}"]
        before = engine.metrics()
        found["cold"].append(engine.generate([prompt], salts=salt)[0])
        hashes = engine.requests[-1].block_hashes[: full_blocks(len(prompt), block_size)]
        stored = engine.block_digests(hashes)
        found["cold"][-1]["grown"] = engine.grown(before)
        found["local"].append(engine.generate([prompt], salts=salt)[0])
        engine.forget_local()
        before = engine.metrics()
        found["host"].append(engine.generate([prompt], salts=salt)[0])
        found["host"][-1]["grown"] = engine.grown(before)
        found["bytes"].append([stored, engine.block_digests(hashes)])
        engine.forget_local()
        # A prefix goes first, so that the whole prompt finds a part in the engine's own cache.
        part = prompt[: block_size * (blocks // 2) + 1]
        engine.generate([part], salts=salt, max_tokens=1)
        before = engine.metrics()
        found["mixed"].append(engine.generate([prompt], salts=salt)[0])
        found["mixed"][-1]["grown"] = engine.grown(before)
    together = batch(engine, blocks)
    engine.forget_local()
    for prompt in together:
        engine.one(prompt)
    engine.forget_local()
    before = engine.metrics()
    found["batch"] = engine.generate(together)
    found["batch_grown"] = engine.grown(before)
    found["status"] = engine.status()
    if is_killed:
        sealed = engine.metric(OFFLOADED)
        size = sum(region.piece_bytes for region in engine._regions)
        engine.wait_for_disk(round(sealed / size))
        say(found)
        os.kill(os.getpid(), signal.SIGKILL)
    say(found)


def restart(
    say: Say, model: str, dtype: str, block_size: int, blocks: int, settings: dict[str, Any]
) -> None:
    """A new engine over the old disk: its very first request hits."""
    engine = Engine(model, dtype=dtype, block_size=block_size, settings=settings)
    found: dict[str, Any] = {"disk": []}
    for prompt in prompts(engine, blocks):
        engine.forget_local()
        before = engine.metrics()
        found["disk"].append(engine.generate([prompt], salts=[f"{len(prompt)}"])[0])
        found["disk"][-1]["grown"] = engine.grown(before)
    found["status"] = engine.status()
    say(found)
