"""Terrace as one of several connectors below vLLM's MultiConnector."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from tests.integration.vllm.engine import Engine, until
from tests.integration.vllm.scenarios.small import ask, make, measured, numbers
from tests.integration.vllm.scenarios.trap import CORRUPT, host_mappings

Say = Callable[[object], None]
SENDER = {
    "kv_connector": "Sender",
    "kv_connector_module_path": f"{__package__}.sender",
    "kv_role": "kv_producer",
}
FAILING = {
    "kv_connector": "Failing",
    "kv_connector_module_path": f"{__package__}.failing",
    "kv_role": "kv_both",
}
TAINTED = 'terrace_drop_blocks_total{queue="tainted"}'
BAD_BLOCK = 4


def _head(engine: Engine, block_hash: bytes) -> bytes:
    """How the block's bytes begin, in the engine's memory."""
    block, region = engine.cached_block(block_hash), engine._regions[0]
    assert block is not None
    return ctypes.string_at(region.address + block * region.block_stride, 1024)


def _flip(head: bytes) -> None:
    """In the host tier's one copy of the block that begins so, enough to change the answers."""
    libc = ctypes.CDLL(None)
    libc.memmem.restype = ctypes.c_void_p
    libc.memmem.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    found = [libc.memmem(begin, size, head, len(head)) for begin, size in host_mappings()]
    places = [place for place in found if place is not None]
    assert places, "the block is not in the host tier"
    view = (ctypes.c_uint8 * len(head)).from_address(places[0])
    for number in range(3, len(head), 4):
        view[number] ^= 0xFF


def _overrun(engine: Engine, hashes: list[bytes]) -> None:
    """Other prompts, until the engine's own cache has none of the blocks."""
    for seed in range(100, 103):
        ask(engine, [numbers(seed, 300)])
    assert [engine.cached_block(one) for one in hashes] == [None] * len(hashes)


def run(say: Say, model: str, prompts: list[list[int]]) -> None:
    """Cold, from the engine's own cache, out of host, out of host with one bad block, and again."""
    small: dict[str, Any] = {"num_gpu_blocks_override": 24, "max_model_len": 512}
    engine = make(model, {"host.size": "64MiB"}, beside=[SENDER], **small)
    found: dict[str, Any] = {"cold": measured(engine, prompts[:1])}
    hashes = engine.requests[-1].block_hashes[:9]
    stored, head = engine.block_digests(hashes), _head(engine, hashes[BAD_BLOCK])
    found["local"] = measured(engine, prompts[:1])
    _overrun(engine, hashes)
    found["host"] = measured(engine, prompts[:1])
    found["bytes"] = [stored, engine.block_digests(hashes)]
    _overrun(engine, hashes)
    _flip(head)
    before = engine.metrics()
    found["flipped"] = measured(engine, prompts[:1])
    until("the bad copy is removed", lambda: engine.grown(before).get(CORRUPT, 0) > 0)
    found["corrupt"] = engine.grown(before)[CORRUPT]
    _overrun(engine, hashes)
    found["again"] = measured(engine, prompts[:1])
    sender = engine.scheduler.connector.sub_connectors[0]
    found["sender"] = {
        "sent": sender.sent,
        "receipts": sender.receipts,
        "allocated": sender.allocated,
        "delivered": len(sender.delivered),
        "requests": len(engine.requests),
    }
    say(found | {"status": engine.status()})


def beside_failing(say: Say, model: str, prompts: list[list[int]]) -> None:
    """Cold without Terrace, with five blocks that another connector fails to load, and again."""
    engine = make(model, {"host.size": "64MiB"}, beside=[FAILING])
    off = {"kv_transfer_params": {"terrace": {"mode": "off"}}}
    found: dict[str, Any] = {"cold": measured(engine, prompts[:1], extra_args=off)}
    hashes = engine.requests[-1].block_hashes[:9]
    right = engine.block_digests(hashes)
    failing = engine.scheduler.connector.sub_connectors[0]
    engine.forget_local()
    failing.claims = 5 * engine.block_size
    found["failed"] = measured(engine, prompts[:1])
    failing.claims = 0
    engine.forget_local()
    found["host"] = measured(engine, prompts[:1])
    found["bytes"] = [right, engine.block_digests(hashes)]
    say(found | {"failures": failing.failures, "status": engine.status()})
