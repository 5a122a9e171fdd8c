"""Scenarios of hits that are computed all the same, to compare: honest ones, and planted lies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm.engine import Engine, until
from tests.integration.vllm.scenarios.planter import spoiled_block
from tests.integration.vllm.scenarios.small import ask, crowd, make, measured, numbers

Say = Callable[[object], None]

CHECKED = {"shadow.share": 1.0}
RESULTS = ("equal", "within", "beyond", "skipped")
PLANTED = 4  # The block that is stored wrong.


def shadow_of(engine: Engine) -> dict[str, Any]:
    found: dict[str, Any] = engine.status()["shadow"]
    return found


def settled(engine: Engine) -> dict[str, Any]:
    """Once all that was copied out has been compared; some of it in another thread."""
    counts: list[int] = []

    def is_quiet() -> bool:
        found = shadow_of(engine)
        counts.append(sum(found[f"{result}_blocks"] for result in RESULTS))
        return len(counts) > 20 and len(set(counts[-20:])) == 1

    until("comparisons end", is_quiet)
    return shadow_of(engine)


def honest(say: Say, model: str, dtype: str, block_size: int, blocks: int) -> None:
    """Stored whole; then computed whole, in pieces of several sizes, and beside others."""
    engine = Engine(model, dtype=dtype, block_size=block_size, settings=CHECKED)
    whole = engine.scheduler.max_num_scheduled_tokens
    prompts = [engine.tokens(block_size * blocks + 9, text) for text in (0, 1, 2)]
    cold = [engine.one(prompt) for prompt in prompts]
    found: dict[str, Any] = {}

    def check(name: str, pieces: int, together: bool, some: int = len(prompts)) -> None:
        engine.scheduler.max_num_scheduled_tokens = pieces
        before = engine.metrics()
        engine.forget_local()
        asked = [prompts] if together else [[prompt] for prompt in prompts[:some]]
        answers = [answer for one in asked for answer in engine.generate(one)]
        settled(engine)
        ratios = {k: v for k, v in engine.metrics().items() if "floor_ratio" in k}
        found[name] = {"answers": answers, "grown": engine.grown(before), "ratios": ratios}

    check("same", whole, together=False)
    check("blocks", block_size, together=False)
    check("odd", block_size + block_size // 3, together=False)
    check("small", 24, together=False)
    check("together", whole, together=True)
    check("ones", 1, together=False, some=1)  # As an answer is computed.
    say({"cold": cold, "found": found, "status": engine.status()})


def preempted(say: Say, model: str) -> None:
    """More than the engine's cache holds at once, twice: the second time all are checked."""
    prompts = [numbers(seed, 200) for seed in range(4)]
    engine = make(model, CHECKED, num_gpu_blocks_override=24, max_model_len=512)
    first = crowd(engine, prompts)
    engine.forget_local()
    engine.requests.clear()
    again = measured(engine, prompts, max_tokens=80)
    preemptions = [request.num_preemptions for request in engine.requests]
    settled(engine)
    found = {"first": first, "again": again, "preemptions": preemptions}
    say(found | {"status": engine.status()})


@contextmanager
def _planting(engine: Engine, number: int) -> Iterator[None]:
    """Block `number` of the last request is copied out with other keys than were computed.

    Its checksum is of what was copied, so it is valid in itself; the engine's own copy stays right.
    """
    from terrace.connectors.vllm.worker import WorkerHalf

    save = WorkerHalf.save

    def spoiled(half: Any, orders: bytes) -> None:
        if not engine.requests:
            save(half, orders)
            return
        request = engine.requests[-1]
        tables = engine.scheduler.kv_cache_manager.get_block_ids(request.request_id)
        if len(tables[0]) <= number:  # The first step is the canary's alone.
            save(half, orders)
            return
        with spoiled_block(engine._regions[0], tables[0][number]):
            save(half, orders)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkerHalf, "save", spoiled)
        yield


def planted(say: Say, model: str, dtype: str, settings: dict[str, Any]) -> None:
    """A block is stored wrong; then the prompt comes again, and others."""
    prompt, other = numbers(1, 300), numbers(2, 300)
    engine = make(model, settings, dtype=dtype)
    with _planting(engine, PLANTED):
        cold = ask(engine, [prompt])[0]
    cold_other = ask(engine, [other])[0]
    engine.forget_local()
    again = ask(engine, [prompt])[0]
    settled(engine)
    engine.forget_local()
    found = {"again": again, "other": ask(engine, [other])[0], "third": ask(engine, [prompt])[0]}
    found |= {"metrics": engine.metrics(), "status": engine.status()}
    say(found | {"cold": cold, "cold other": cold_other})


def planted_in_rank(say: Say, model: str, rank: int, flag: str) -> None:
    """As `planted`, in one of two worker processes alone, as long as there is a file `flag`."""
    os.environ["PLANT"] = f"{rank} {1 + PLANTED} {flag}"  # After the null block, in a new engine.
    settings = CHECKED | {"shadow.evidence": str(Path(flag).parent)}
    engine = make(model, settings, tensor_parallel_size=2, module=f"{__package__}.planter")
    prompt = numbers(1, 300)
    Path(flag).touch()
    cold = ask(engine, [prompt])[0]
    Path(flag).unlink()
    engine.forget_local()
    again = ask(engine, [prompt])[0]
    settled(engine)
    say({"cold": cold, "again": again, "metrics": engine.metrics(), "status": engine.status()})


def restarted(say: Say, model: str, settings: dict[str, Any], removed: str = "") -> None:
    """After a quarantine, another engine on the same disk; without what lies at `removed`."""
    marks = list(Path(removed).glob("*.quarantined")) if removed else []
    for mark in marks:
        mark.unlink()
    engine = make(model, settings)
    prompt, other = numbers(1, 300), numbers(2, 300)
    found: dict[str, Any] = {"prompt": ask(engine, [prompt])[0]}
    found["other"] = ask(engine, [other])[0]
    engine.forget_local()
    found |= {"again": ask(engine, [prompt])[0], "marks": len(marks)}
    say(found | {"status": engine.status()})


def whole(say: Say, model: str, prompts: list[list[int]], **more: Any) -> None:
    """Cold, then checked: of all ranks, or of all KV groups."""
    engine = make(model, CHECKED, **more)
    cold = ask(engine, prompts)
    engine.forget_local()
    again = ask(engine, prompts)
    settled(engine)
    say({"cold": cold, "again": again, "status": engine.status()})


def narrow(say: Say, model: str) -> None:
    """KV of 8 bits is not checked."""
    engine = make(model, CHECKED, dtype="bfloat16", kv_cache_dtype="fp8")
    ask(engine, [numbers(1, 300)])
    engine.forget_local()
    say({"again": ask(engine, [numbers(1, 300)])[0], "status": engine.status()})
