"""A fault in each hook of the connector: the engine goes on, with the right answers."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm.engine import Engine
from tests.integration.vllm.scenarios.small import make

Say = Callable[[object], None]

SCHEDULER = ("begin", "match", "accept", "build_step", "take_output", "end", "events", "reset")
WORKER = ("before_step", "load", "save", "report")
# Called once in a connector's life: each has an engine of its own.
AT_START = ("__init__", "register_kv_caches", "bind_kv_cache_manager")
AT_END = ("shutdown",)
BASES = ("KVConnectorBase_V1", "SupportsHMA")
BASE_FILE = "distributed/kv_transfer/kv_connector/v1/base.py"
PACKAGE = Path(__file__).parents[4] / "python" / "terrace" / "connectors" / "vllm"


class Deliberate(Exception):
    pass


def _can_fail(method: ast.FunctionDef) -> bool:
    """More than a text and a constant answer."""
    body = method.body[ast.get_docstring(method) is not None :]
    return not all(
        isinstance(one, ast.Return) and isinstance(one.value, ast.Constant) for one in body
    )


def _methods(source: Path, *classes: str) -> list[ast.FunctionDef]:
    module = ast.parse(source.read_text())
    return [
        method
        for one in module.body
        if isinstance(one, ast.ClassDef) and one.name in classes
        for method in one.body
        if isinstance(method, ast.FunctionDef)
    ]


def _overridden(theirs: set[str]) -> tuple[str, ...]:
    ours = _methods(PACKAGE / "connector.py", "TerraceConnector")
    return tuple(one.name for one in ours if one.name in theirs and _can_fail(one))


def overridden() -> tuple[str, ...]:
    """Every method through which the engine enters the connector, read from both sources."""
    files = (PACKAGE / "contracts").glob("*.json")
    contracts = [json.loads(file.read_text()) for file in files]
    return _overridden({name for one in contracts for base in BASES for name in one[base]})


def overridden_here() -> tuple[str, ...]:
    """The same of the engine that is installed, by its own text."""
    found = importlib.util.find_spec("vllm")
    assert found is not None and found.submodule_search_locations
    base = Path(found.submodule_search_locations[0]) / BASE_FILE
    return _overridden({one.name for one in _methods(base, *BASES)})


def unguarded() -> list[str]:
    """Overriding methods whose failure would reach the engine."""
    return [
        one.name
        for one in _methods(PACKAGE / "connector.py", "TerraceConnector")
        if one.name in METHODS
        and one.name != "__init__"  # By hand.
        and not any(ast.unparse(mark).startswith("hook(") for mark in one.decorator_list)
    ]


METHODS = overridden()


@contextmanager
def broken_body(name: str) -> Iterator[None]:
    """Every call of the connector's method fails, in whichever process's half, behind its guard."""
    from terrace.connectors.vllm.connector import TerraceConnector

    if name == "__init__":  # Guarded by hand, where the constructor begins work of its own.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TerraceConnector, "_refused", _failing(TerraceConnector._refused))
            yield
        return
    guarded = vars(TerraceConnector)[name]
    assert "method" in guarded.__code__.co_freevars, f"{name} is no @hook"
    cell = guarded.__closure__[guarded.__code__.co_freevars.index("method")]
    method = cell.cell_contents
    cell.cell_contents = _failing(method)
    try:
        yield
    finally:
        cell.cell_contents = method


def _failing(method: Any) -> Any:
    @functools.wraps(method)
    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise Deliberate(method.__name__)

    return fail


@contextmanager
def broken(half: Any, name: str) -> Iterator[None]:
    """Every call of the half's method fails."""

    setattr(half, name, _failing(getattr(half, name)))
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
    own._has_fallen = worker._has_fallen = False
    own._refusal = worker._refusal = ""
    for request_id in list(halves[0]._live):
        halves[0].owner.end_request(halves[0]._live.pop(request_id).handle)
    halves[0]._pending = type(halves[0]._pending)()


def _has_fallen(engine: Engine) -> bool:
    return engine.connector._scheduler is None or engine.worker_connector._worker is None


def _call(engine: Engine, name: str) -> None:
    """What an engine calls at other times than a prompt's, or when configured otherwise."""
    if name == "reset_cache":
        engine.llm.reset_prefix_cache(reset_connector=True)
    if name == "request_finished":
        engine.connector.request_finished(engine.requests[-1], [])


def _try(engine: Engine, prompts: list[list[int]], halves: tuple[Any, Any]) -> dict[str, Any]:
    engine.forget_local()
    answers = engine.generate(prompts)
    fallen = _has_fallen(engine)
    # Whatever was stored meanwhile must be right, too.
    _mend(engine, halves)
    engine.forget_local()
    return {"answers": answers, "fell": fallen, "after": engine.generate(prompts)}


def _twice(engine: Engine, prompts: list[list[int]]) -> dict[str, Any]:
    answers = engine.generate(prompts)
    fallen = _has_fallen(engine)
    engine.forget_local()
    return {"answers": answers, "fell": fallen, "after": engine.generate(prompts)}


def once(say: Say, model: str, name: str) -> None:
    """A fault in a method that an engine calls at its start or at its end."""
    with broken_body(name):
        engine = make(model, {})
        prompts = _prompts(engine)
        found: dict[str, Any] = {}
        if name in AT_END:
            engine.generate(prompts)
            halves = (engine.half, engine.worker_connector._worker)
            engine.connector.shutdown()
            engine.worker_connector.shutdown()
            found["open"] = [bool(halves[0].owner._handle), bool(halves[1].worker._handle)]
            engine.forget_local()
        found |= _twice(engine, prompts)
        found["is_told"] = engine.connector._scheduler is None
        Engine.close_all()
    say(found)


def _prompts(engine: Engine) -> list[list[int]]:
    return [engine.tokens(300, 0), engine.tokens(300, 0)[:290] + engine.tokens(30, 1)]


def run(say: Say, model: str) -> None:
    engine = make(model, {}, kv_events_config={"enable_kv_cache_events": True, "publisher": "null"})
    prompts = _prompts(engine)
    cold = engine.generate(prompts)
    local = engine.generate(prompts)
    halves = (engine.half, engine.worker_connector._worker)
    found: dict[str, Any] = {"cold": cold, "local": local, "faults": {}}
    for name in METHODS:
        if name not in AT_START + AT_END:
            with broken_body(name):
                _call(engine, name)
                found["faults"][f"{name}()"] = _try(engine, prompts, halves)
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
