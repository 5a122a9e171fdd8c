"""A fault in each hook of the connector: the engine goes on, with the right answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.integration.vllm.engine import Engine
from tests.integration.vllm.scenarios.small import make

Say = Callable[[object], None]

SCHEDULER = ("begin", "match", "accept", "build_step", "take_output", "end", "events", "reset")
WORKER = ("before_step", "load", "save", "report")


class Deliberate(Exception):
    pass


@contextmanager
def broken(half: Any, name: str) -> Iterator[None]:
    """Every call of the half's method fails."""

    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise Deliberate(name)

    setattr(half, name, fail)
    try:
        yield
    finally:
        delattr(half, name)


@contextmanager
def changed(half: Any, name: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """The half's method answers something else."""
    method = getattr(half, name)
    setattr(half, name, lambda *args, **kwargs: change(method(*args, **kwargs)))
    try:
        yield
    finally:
        delattr(half, name)


def _mend(engine: Engine, halves: tuple[Any, Any]) -> None:
    """As after a start: both halves stand again, and nothing is owed."""
    own, worker = engine.connector, engine.worker_connector
    own._scheduler, worker._worker = halves
    own._kept, worker._kept, worker._fallen = [], [], []
    for request_id in list(halves[0]._live):
        halves[0].owner.end_request(halves[0]._live.pop(request_id).handle)
    halves[0]._pending = type(halves[0]._pending)()


def _try(engine: Engine, prompts: list[list[int]], halves: tuple[Any, Any]) -> dict[str, Any]:
    engine.forget_local()
    answers = engine.generate(prompts)
    fallen = engine.connector._scheduler is None or engine.worker_connector._worker is None
    # Whatever was stored meanwhile must be right, too.
    _mend(engine, halves)
    engine.forget_local()
    return {"answers": answers, "fell": fallen, "after": engine.generate(prompts)}


def run(say: Say, model: str) -> None:
    engine = make(model, {}, kv_events_config={"enable_kv_cache_events": True, "publisher": "null"})
    prompts = [engine.tokens(300, 0), engine.tokens(300, 0)[:290] + engine.tokens(30, 1)]
    cold = engine.generate(prompts)
    local = engine.generate(prompts)
    halves = (engine.half, engine.worker_connector._worker)
    found: dict[str, Any] = {"cold": cold, "local": local, "faults": {}}
    for half, names in zip(halves, (SCHEDULER, WORKER), strict=True):
        for name in names:
            with broken(half, name):
                if name == "reset":
                    engine.llm.reset_prefix_cache(reset_connector=True)
                found["faults"][name] = _try(engine, prompts, halves)

    def cut(step: Any) -> Any:
        return type(step)(step.orders[: len(step.orders) // 2], step.load_blocks, ())

    def of_another_version(step: Any) -> Any:
        return type(step)(bytes([255 - b for b in step.orders]), step.load_blocks, ())

    with changed(halves[0], "build_step", cut):
        found["faults"]["cut orders"] = _try(engine, prompts, halves)
    with changed(halves[0], "build_step", of_another_version):
        found["faults"]["foreign orders"] = _try(engine, prompts, halves)
    with changed(halves[1], "report", lambda report: report[: len(report) // 2]):
        found["faults"]["cut reports"] = _try(engine, prompts, halves)
    with changed(halves[1], "report", lambda _report: b""):
        found["faults"]["lost reports"] = _try(engine, prompts, halves)
    found["status"] = engine.status()
    say(found)
