"""The worker's half: every promised block is either loaded or named."""

from __future__ import annotations

import pytest

from terrace._native import Code, TerraceError
from terrace.connectors.vllm.scheduler import Step
from terrace.connectors.vllm.worker import Arrivals, WorkerHalf, failed_without_worker
from tests.native_table import Table, make_worker


def make() -> tuple[Table, WorkerHalf]:
    table = Table()
    return table, WorkerHalf(make_worker(table))


def test_failed_blocks_are_named() -> None:
    table, half = make()
    table.failed = [5]
    assert half.load(b"orders", (4, 5)) == {5}


def test_unreadable_orders_fail_all_that_they_should_have_loaded() -> None:
    table, half = make()
    table.codes["run_loads"] = Code.INVALID
    assert half.load(b"orders", (4, 5)) == {4, 5}


def test_a_step_with_nothing_due_makes_no_call() -> None:
    table, half = make()
    table.calls.clear()
    half.before_step(b"")
    assert half.load(b"", ()) == set()
    half.save(b"")
    assert half.report() == b""
    assert table.calls == []


def test_a_step_with_orders_runs_canary_loads_saves_and_reports() -> None:
    table, half = make()
    table.texts["build_report"] = b"report"
    half.before_step(b"orders")
    half.load(b"orders", (1,))
    half.save(b"orders")
    assert half.report() == b"report"
    names = [name for name, _ in table.calls if name != "read_worker_log"]
    assert names == ["open_worker", "run_canary", "run_loads", "run_saves", "build_report"]


def calls_of(table: Table) -> list[str]:
    names = [name for name, _ in table.calls if name not in ("open_worker", "read_worker_log")]
    table.calls.clear()
    return names


def drafting_step(half: WorkerHalf, orders: bytes) -> bytes:
    """As an engine with drafts runs it: it asks for the report before the saves."""
    half.before_step(orders)
    half.load(orders, (1,))
    report = half.report()
    half.save(orders)
    return report


def test_no_report_is_built_while_the_saves_of_its_orders_are_to_run() -> None:
    table, half = make()
    table.texts["build_report"] = b"report"
    assert drafting_step(half, b"orders") == b""
    assert calls_of(table) == ["run_canary", "run_loads", "run_saves"]
    assert drafting_step(half, b"") == b"report", "a step without orders takes it along"
    assert calls_of(table) == ["build_report"]
    assert drafting_step(half, b"") == b""
    assert calls_of(table) == []


def test_with_orders_in_each_step_each_report_comes_a_step_later() -> None:
    table, half = make()
    told = []
    for number in range(4):
        table.texts["build_report"] = b"of %d;" % (number - 1)  # Built before anything is run.
        told.append(drafting_step(half, b"orders %d" % number))
        built = ["build_report"] if number else []
        assert calls_of(table) == [*built, "run_canary", "run_loads", "run_saves"]
    assert told == [b"", b"of 0;", b"of 1;", b"of 2;"]


def test_saves_that_the_engine_never_lets_run_hold_no_report_back_for_longer_than_a_step() -> None:
    table, half = make()
    table.texts["build_report"] = b"report"
    half.before_step(b"orders")
    assert half.report() == b""
    half.before_step(b"")
    assert half.report() == b"report"


def test_a_report_that_found_no_memory_comes_with_a_later_one() -> None:
    table, half = make()
    table.texts["build_report"] = b"report"
    drafting_step(half, b"orders")
    table.codes["build_report"] = Code.EXHAUSTED
    assert drafting_step(half, b"") == b""
    del table.codes["build_report"]
    assert drafting_step(half, b"more") == b"report"
    assert drafting_step(half, b"") == b"report"


def test_saves_that_fail_hold_no_report_back() -> None:
    table, half = make()
    table.texts["build_report"] = b"report"
    table.codes["run_saves"] = Code.UNAVAILABLE
    half.before_step(b"orders")
    half.save(b"orders")
    assert half.report() == b"report"


def test_what_was_not_saved_is_no_error_but_poison_is() -> None:
    table, half = make()
    table.codes["run_saves"] = Code.REFUSED
    half.save(b"orders")
    table.codes["run_saves"] = Code.INTERNAL
    with pytest.raises(TerraceError):
        half.save(b"orders")


def test_without_a_worker_everything_promised_has_failed() -> None:
    assert failed_without_worker(Step(b"orders", (1, 2), (3,))) == {1, 2, 3}


def test_each_arrival_is_told_once_and_a_bad_block_names_its_requests() -> None:
    arrivals = Arrivals()
    step = Step(load_requests=(("a", (4, 5)), ("b", (5, 6)), ("c", (7,))), failed_requests=("d",))
    arrivals.note(step, {5})
    assert arrivals.take() == ({"a", "b", "c", "d"}, {"a", "b", "d"})
    assert arrivals.take() == (set(), set())


def test_without_a_worker_every_request_has_arrived_and_failed() -> None:
    arrivals = Arrivals()
    arrivals.note_all_failed(Step(load_requests=(("a", (4,)),), failed_requests=("d",)))
    assert arrivals.take() == ({"a", "d"}, {"a", "d"})
