"""What the connector's class itself does between the engine and its halves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from terrace._native import Layout
from terrace.connectors.vllm.scheduler import Step

SCHEDULER, WORKER = 1, 2
PLAIN = Layout(4, 1, ((64,),))
WINDOWED = Layout(4, 1, ((64,), (64,)), (0, 8), 0)
TABLE = [10, 11, 12, 13]


class Stats:
    """What of the owner's counters is to be told to the engine."""

    def __init__(self) -> None:
        self.notes = 0
        self.gains: dict[str, int] = {}

    def note(self) -> None:
        self.notes += 1

    def take(self) -> dict[str, int]:
        return self.gains


class Half:
    """A scheduler's half that answers as told, and breaks when asked to."""

    def __init__(self, layout: Layout) -> None:
        self.is_async = not layout.is_plain
        self.found: int | None = 8
        self.breaks = False
        self.resets: list[bool] = []  # Answers to come.
        self.outputs: list[tuple[Any, ...]] = []
        self.local: list[int] = []
        self.stats = Stats()

    def match(self, _request: Any, local: int) -> int | None:
        self.local.append(local)
        return self.found

    def accept(self, *given: Any) -> None:
        self.local.append(given[1])
        self._break()

    def _break(self, *_args: Any) -> Any:
        if self.breaks:
            raise RuntimeError("odd")

    build_step = _break

    def take_output(self, *given: Any) -> None:
        self.outputs.append(given)

    def reset(self) -> bool:
        return self.resets.pop()

    def promised_blocks(self) -> list[int]:
        return [] if self.is_async else [10]

    def promised_requests(self) -> list[str]:
        return ["promised"] if self.is_async else []

    def end(self, _request: Any) -> None:
        return None


def scheduler_side(connector: Any, monkeypatch: pytest.MonkeyPatch, layout: Layout) -> Any:
    monkeypatch.setattr(connector.TerraceConnector, "_planned", lambda _self: layout)
    monkeypatch.setattr(connector.TerraceConnector, "_open_scheduler", lambda _self: Half(layout))
    groups = SimpleNamespace(kv_cache_groups=[None] * len(layout.groups))
    return connector.TerraceConnector(None, SCHEDULER, groups)


def worker_side(connector: Any, monkeypatch: pytest.MonkeyPatch, half: Any) -> Any:
    monkeypatch.setattr(connector.TerraceConnector, "_open_worker", lambda *_args: half)
    made = connector.TerraceConnector(None, WORKER, None)
    made.register_kv_caches({})
    return made


def request(name: str) -> Any:
    return SimpleNamespace(request_id=name, kv_transfer_params=None)


def blocks() -> Any:
    return SimpleNamespace(get_block_ids=lambda: (TABLE, TABLE))


def run(made: Any, step: Step, connector: Any) -> tuple[set[int], Any]:
    """One step of a worker: blocks that must not be used, and what has arrived."""
    made._connector_metadata = connector.TerraceMetadata(step)
    made.start_load_kv(None)
    return made.get_block_ids_with_load_errors(), made.get_transfer_results(set())


@pytest.mark.parametrize(
    ("layout", "found", "answer"),
    [
        (PLAIN, 8, (8, False)),
        (PLAIN, 0, (0, False)),
        (WINDOWED, 8, (8, True)),
        (WINDOWED, 0, (0, False)),  # vLLM lets nobody wait for nothing.
        (WINDOWED, None, (None, False)),
    ],
)
def test_the_engine_waits_only_for_loads_that_it_need_not(
    connector: Any, monkeypatch: pytest.MonkeyPatch, layout: Layout, found: Any, answer: Any
) -> None:
    made = scheduler_side(connector, monkeypatch, layout)
    made._scheduler.found = found
    assert made.get_num_new_matched_tokens(request("a"), 4) == answer


@pytest.mark.parametrize(
    ("layout", "blocks_owed", "requests_owed"),
    [(PLAIN, (10, 11, 12), ()), (WINDOWED, (), ("promised", "a"))],
)
def test_what_was_promised_when_the_half_falls_is_owed_in_the_next_step(
    connector: Any,
    monkeypatch: pytest.MonkeyPatch,
    layout: Layout,
    blocks_owed: tuple[int, ...],
    requests_owed: tuple[str, ...],
) -> None:
    made = scheduler_side(connector, monkeypatch, layout)
    made.get_num_new_matched_tokens(request("a"), 4)
    made._scheduler.breaks = True
    made.update_state_after_alloc(request("a"), blocks(), 8)
    step = made.build_connector_meta(None).step
    assert (step.orders, step.failed_blocks, step.failed_requests) == (
        b"",
        blocks_owed,
        requests_owed,
    )
    assert not made.build_connector_meta(None).step.promises, "owed once"
    assert made.get_num_new_matched_tokens(request("b"), 0) == (0, False)


@pytest.mark.parametrize(
    ("has_events", "is_whole", "lines"), [(True, True, 1), (True, False, 0), (False, True, 0)]
)
def test_events_that_cannot_match_the_engines_own_are_warned_of(
    connector: Any,
    monkeypatch: pytest.MonkeyPatch,
    has_events: bool,
    is_whole: bool,
    lines: int,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(connector.compat, "has_kv_events", lambda _config: has_events)
    monkeypatch.setattr(connector.compat, "sends_whole_hashes", lambda: is_whole)
    monkeypatch.setattr(connector.LOGGER, "warning", lambda text, *_args: said.append(text))
    scheduler_side(connector, monkeypatch, PLAIN)
    assert len([text for text in said if "USE_INT_BLOCK_HASHES" in text]) == lines


def test_an_admission_without_load_owes_nothing(
    connector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scheduler_side(connector, monkeypatch, WINDOWED)
    made._fall("odd")
    made.build_connector_meta(None)
    made.update_state_after_alloc(request("a"), blocks(), 0)
    assert not made.build_connector_meta(None).step.promises


@pytest.mark.parametrize("answer", [True, False])
def test_a_reset_reaches_what_a_half_that_fell_has_stored(
    connector: Any, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    made = scheduler_side(connector, monkeypatch, PLAIN)
    half = made._scheduler
    made._fall("odd")
    half.resets = [answer]
    assert made.reset_cache() is answer
    assert half.resets == []
    assert made.reset_cache() is False, "a half that raises has not told the disk"


def test_a_request_that_ended_leaves_no_local_length_behind(
    connector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scheduler_side(connector, monkeypatch, PLAIN)
    made.get_num_new_matched_tokens(request("a"), 4)
    made.request_finished(request("a"), [])
    assert not made._local


def test_the_half_hears_of_reports_bad_blocks_and_failed_requests(
    connector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scheduler_side(connector, monkeypatch, WINDOWED)
    half = made._scheduler
    meta = connector.TerraceWorkerMetadata([b"r"], [])
    made.update_connector_output(
        SimpleNamespace(kv_connector_worker_meta=meta, invalid_block_ids={3}, failed_recving={"a"})
    )
    assert half.outputs == [([b"r"], {3}, {"a"})]


def test_a_worker_that_stands_aside_takes_the_scheduler_along(
    connector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scheduler_side(connector, monkeypatch, PLAIN)
    meta = connector.TerraceWorkerMetadata([], ["why"])
    made.update_connector_output(
        SimpleNamespace(kv_connector_worker_meta=meta, invalid_block_ids=None, failed_recving=None)
    )
    assert made.get_num_new_matched_tokens(request("a"), 0) == (0, False)
    assert "why" in made._refusal


def test_loads_of_requests_arrive_by_name_and_name_no_blocks(
    connector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def load(orders: bytes, of_step: tuple[int, ...]) -> set[int]:
        seen.append((orders, of_step))
        return {11}

    made = worker_side(connector, monkeypatch, SimpleNamespace(load=load))
    step = Step(b"o", load_requests=(("a", (10,)), ("b", (11,))), failed_requests=("c",))
    bad, arrived = run(made, step, connector)
    assert seen == [(b"o", (10, 11))]
    assert bad == set(), "vLLM refuses block ids for loads that it does not wait for"
    assert arrived.finished_recving == {"a", "b", "c"}
    assert arrived.failed_recving == {"b", "c"}


def test_requests_that_nobody_loads_arrive_as_failed_without_orders(
    connector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = worker_side(connector, monkeypatch, SimpleNamespace(load=lambda *_args: set()))
    _, arrived = run(made, Step(failed_requests=("a",)), connector)
    assert (arrived.finished_recving, arrived.failed_recving) == ({"a"}, {"a"})


def test_bad_blocks_are_those_of_the_loads_and_those_that_nobody_loads(
    connector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = worker_side(connector, monkeypatch, SimpleNamespace(load=lambda *_args: {11}))
    bad, _ = run(made, Step(b"o", (10, 11), (20,)), connector)
    assert bad == {11, 20}


def test_a_worker_that_breaks_in_a_load_fails_all_of_the_step(
    connector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_args: Any) -> set[int]:
        raise RuntimeError("odd")

    made = worker_side(connector, monkeypatch, SimpleNamespace(load=load))
    step = Step(b"o", load_requests=(("a", (10,)),))
    _, arrived = run(made, step, connector)
    assert (arrived.finished_recving, arrived.failed_recving) == ({"a"}, {"a"})
    _, arrived = run(made, step, connector)  # And without it, later on.
    assert (arrived.finished_recving, arrived.failed_recving) == ({"a"}, {"a"})
