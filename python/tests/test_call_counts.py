"""How many C calls each engine step makes, hook by hook, over the connector's own class.

The lists are exact: one call more anywhere fails here.  vLLM's base class is a stand-in, so that
neither torch nor an engine is needed.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from terrace._native import Layout
from terrace.connectors.vllm import log, scheduler, stats
from terrace.connectors.vllm.keys import KeyMaker
from terrace.connectors.vllm.scheduler import SchedulerHalf
from terrace.connectors.vllm.worker import WorkerHalf
from tests.engine_objects import Output, Request, Scheduled
from tests.native_table import Table, make_owner, make_worker

BLOCK = 4
BASE = "vllm.distributed.kv_transfer.kv_connector.v1.base"
SOURCE = Path(scheduler.__file__).parent / "connector.py"
STORE = ["build_orders", "run_canary", "run_saves", "build_report", "take_report"]


def stand_in() -> ModuleType:
    class Base:
        def __init__(self, *_args: Any) -> None:
            self._connector_metadata: Any = None
            self._kv_cache_config = SimpleNamespace(kv_cache_groups=[None])

        def bind_connector_metadata(self, metadata: Any) -> None:
            self._connector_metadata = metadata

        def clear_connector_metadata(self) -> None:
            self._connector_metadata = None

    module: Any = ModuleType(BASE)
    module.KVConnectorBase_V1 = Base
    module.KVConnectorRole = SimpleNamespace(SCHEDULER=0, WORKER=1)
    module.KVConnectorTransferResults = SimpleNamespace
    for name in ("KVConnectorMetadata", "KVConnectorWorkerMetadata", "SupportsHMA"):
        setattr(module, name, type(name, (), {}))
    return module  # type: ignore[no-any-return]


@pytest.fixture
def connector(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The connector's module, loaded beside the one that an engine would load."""
    parts = BASE.split(".")
    for end in range(1, len(parts)):
        name = ".".join(parts[:end])
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, BASE, stand_in())
    spec = importlib.util.spec_from_file_location("connector_under_count", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


class Clock:
    """What the connector's timers read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        for module in (log, scheduler, stats):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))


class Engine:
    """Calls every hook of both roles as vLLM does in a step, and returns the C calls of each."""

    def __init__(self, module: Any, *, has_events: bool) -> None:
        self.table = Table()
        self.table.texts = {"build_orders": b"orders", "build_report": b"report"}
        roles = [module.TerraceConnector.__new__(module.TerraceConnector) for _ in range(2)]
        for role in roles:
            role._refused = lambda: "a test opens the halves"
            role.__init__(None, 1, None)
            role._fallen.clear()
        self.scheduler, self.worker = roles
        owner = make_owner(self.table, BLOCK)
        keys = KeyMaker(lambda _path: "digest")
        self.scheduler._scheduler = SchedulerHalf(
            owner, keys, Layout(BLOCK, 1, ((64, 64),)), has_events=has_events
        )
        self.worker._worker = WorkerHalf(make_worker(self.table))
        self.settle()

    def settle(self) -> None:
        """The timed reads of the log, of events and of counters have just been made."""
        self.scheduler.update_connector_output(output_of(None))
        self.scheduler._scheduler.stats.note()
        self.scheduler.get_kv_connector_stats()
        self.scheduler.take_events()
        self.worker._worker._drain.due()
        self.table.calls.clear()

    def taken(self) -> list[str]:
        assert self.scheduler._scheduler is not None, "a hook failed"
        assert self.worker._worker is not None, "a hook failed"
        names = [name for name, _ in self.table.calls]
        self.table.calls.clear()
        return names

    def begin(self, *requests: Request) -> list[str]:
        for request in requests:
            self.scheduler.on_new_request(request)
        return self.taken()

    def look_up(self, request: Request, external: int | None = 0) -> list[str]:
        self.table.external = [external]
        found, _ = self.scheduler.get_num_new_matched_tokens(request, 0)
        assert found == external
        if found is not None:
            blocks = table_of(len(request.all_token_ids))
            tables = SimpleNamespace(get_block_ids=lambda: (blocks,))
            self.scheduler.update_state_after_alloc(request, tables, found)
        return self.taken()

    def step(self, *parts: Scheduled) -> list[str]:
        metadata = self.scheduler.build_connector_meta(Output(list(parts)))
        rank = self.worker
        rank.bind_connector_metadata(metadata)
        rank.handle_preemptions(metadata)
        rank.start_load_kv(None)
        for layer in ("0", "1"):
            rank.wait_for_layer_load(layer)
            rank.save_kv_layer(layer, None, None)
        rank.wait_for_save()
        assert rank.get_kv_connector_stats() is None
        for name in ("get_finished", "get_kv_connector_kv_cache_events"):
            getattr(rank, name, lambda *_: None)(set())
        assert rank.get_block_ids_with_load_errors() == set()
        report = rank.build_connector_worker_meta()
        rank.clear_connector_metadata()
        self.scheduler.update_connector_output(output_of(report))
        assert self.scheduler.get_kv_connector_stats() is None
        assert list(self.scheduler.take_events()) == []
        return self.taken()

    def end(self, request: Request) -> list[str]:
        self.scheduler.request_finished_all_groups(request, ([],))
        return self.taken()


def output_of(report: Any) -> Any:
    return SimpleNamespace(
        kv_connector_worker_meta=report, failed_recving=(), invalid_block_ids=set()
    )


def table_of(tokens: int) -> list[int]:
    return list(range(10, 10 + -(-tokens // BLOCK)))


def prefill(request: Request, computed: int = 0) -> Scheduled:
    count = len(request.all_token_ids) - computed
    return Scheduled(request, computed, count, table_of(computed + count))


def decode(request: Request) -> Scheduled:
    request.all_token_ids.append(7)
    known = len(request.all_token_ids)
    return Scheduled(request, known - 1, 1, table_of(known), is_new=False)


Start = Callable[..., Engine]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def start(connector: Any, clock: Clock) -> Iterator[Start]:
    del clock
    yield lambda has_events=False: Engine(connector, has_events=has_events)


def running(engine: Engine, count: int) -> list[Request]:
    """Requests of one block and two tokens, past their first step."""
    requests = [Request(str(number), list(range(6))) for number in range(count)]
    engine.begin(*requests)
    for request in requests:
        engine.look_up(request)
    engine.step(*(prefill(request) for request in requests))
    return requests


def test_a_request_is_begun_polled_accepted_and_ended(start: Start) -> None:
    engine = start()
    request = Request("a", list(range(10)))
    assert engine.begin(request) == ["begin_request"]
    assert engine.look_up(request) == ["poll_request", "accept_load"]
    assert engine.step(prefill(request)) == ["advance_request", *STORE]
    assert engine.end(request) == ["end_request"]


def test_steps_with_nothing_due_make_no_call(start: Start) -> None:
    engine = start()
    (request,) = running(engine, 1)
    assert engine.step(decode(request)) == [], "a decode step in which no block fills"
    assert engine.step() == [], "a step that schedules nothing"
    engine.end(request)
    assert engine.step() == ["read_metrics"], "the last request's end is told at once"
    assert engine.step() == [], "and no step after it"


def test_a_step_that_fills_blocks_tells_each_request_once_and_does_the_rest_together(
    start: Start,
) -> None:
    engine = start()
    requests = running(engine, 3)
    assert engine.step(*map(decode, requests)) == []
    assert engine.step(*map(decode, requests)) == ["advance_request"] * 3 + STORE


def test_blocks_that_are_stored_already_cost_no_call_of_the_worker(start: Start) -> None:
    engine = start()
    (request,) = running(engine, 1)
    engine.table.texts["build_orders"] = b""
    engine.step(decode(request))
    assert engine.step(decode(request)) == ["advance_request", "build_orders"]


def test_a_step_that_loads_has_one_call_more(start: Start) -> None:
    engine = start()
    request = Request("a", list(range(6)))
    engine.begin(request)
    engine.look_up(request, 4)
    told = ["advance_request", "build_orders", "run_canary", "run_loads"]
    assert engine.step(prefill(request, 4)) == [*told, *STORE[2:]]


def test_a_request_that_waits_costs_two_calls_a_step(start: Start) -> None:
    engine = start()
    running(engine, 1)
    engine.table.texts["build_orders"] = b""
    waiting = Request("w", list(range(6)))
    engine.begin(waiting)
    for _ in range(3):
        calls: Sequence[str] = engine.look_up(waiting, None) + engine.step()
        assert calls == ["poll_request", "build_orders"]


def test_the_clock_alone_makes_one_call_a_second(start: Start, clock: Clock) -> None:
    engine = start()
    (request,) = running(engine, 1)
    clock.now += log.DRAIN_EVERY_S
    assert engine.step(decode(request)) == ["read_log", "read_metrics"], "a report had come"
    assert engine.step() == []
    clock.now += log.DRAIN_EVERY_S
    assert engine.step() == ["read_log"], "none since"


def test_events_are_asked_for_after_reports_and_now_and_then(start: Start, clock: Clock) -> None:
    engine = start(has_events=True)
    (request,) = running(engine, 1)
    assert engine.step(decode(request)) == []
    assert engine.step(decode(request)) == ["advance_request", *STORE, "take_events"]
    clock.now += scheduler.EVENTS_EVERY_S
    assert engine.step() == ["take_events"]
    assert engine.step() == []
