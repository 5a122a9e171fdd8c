"""What the engine's own /metrics and log hear of Terrace."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from terrace._native import Code, TerraceError
from terrace.connectors.vllm import stats
from terrace.connectors.vllm.stats import Teller
from tests.test_connector import PLAIN, request, scheduler_side

OURS = "terrace.connectors.vllm.prometheus"
METRICS = "vllm.distributed.kv_transfer.kv_connector.v1.metrics"
TEXT = """# HELP terrace_hit_tokens_total Tokens.
# TYPE terrace_hit_tokens_total counter
terrace_hit_tokens_total{{tier="host"}} {host}
terrace_hit_tokens_total{{tier="disk"}} 0
terrace_miss_blocks_total{{reason="evicted"}} 2
terrace_failed_tokens_total 0
terrace_hit_rate{{tier="host"}} 0.5
terrace_transfer_bytes_total{{op="onboard",source="host",target="device"}} 9
kvbm_matched_tokens 7
"""


class Owner:
    def __init__(self) -> None:
        self.host, self.reads, self.is_idle = 0, 0, True
        self.error: TerraceError | None = None

    def read(self) -> str:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return TEXT.format(host=self.host)

    def teller(self) -> Teller:
        return Teller(self.read, lambda: self.is_idle)


def test_only_gains_are_told_and_only_once() -> None:
    owner = Owner()
    teller = owner.teller()
    assert teller.take() == {}
    assert owner.reads == 0  # Nothing has ended: the owner is not asked.
    owner.host = 64
    teller.note()
    assert teller.take() == {"terrace_hit_tokens host": 64, "terrace_miss_blocks evicted": 2}
    assert teller.take() == {}
    owner.host = 96
    teller.note()
    assert teller.take() == {"terrace_hit_tokens host": 32}
    assert owner.reads == 2


def test_a_busy_engine_is_told_once_a_second_and_the_last_end_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(stats, "time", SimpleNamespace(monotonic=lambda: now[0]))
    owner = Owner()
    owner.is_idle = False
    teller = owner.teller()
    for moment, reads in ((100.0, 1), (100.5, 1), (101.1, 2), (101.2, 2)):
        now[0] = moment
        teller.note()
        teller.take()
        assert owner.reads == reads
    owner.is_idle, owner.host = True, 5
    assert teller.take() == {"terrace_hit_tokens host": 5}


def test_what_could_not_be_read_is_told_the_next_time() -> None:
    owner = Owner()
    teller = owner.teller()
    owner.error = TerraceError("terrace_read_metrics", Code.EXHAUSTED, "no memory")
    teller.note()
    assert teller.take() == {}
    owner.error, owner.host = None, 3
    teller.note()
    assert teller.take()["terrace_hit_tokens host"] == 3


@pytest.fixture
def classes(connector: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Our classes over vLLM's as they are: a dict of data, and labels for each engine."""
    del connector  # Makes the modules above.
    module = ModuleType(METRICS)

    class Base:
        def __init__(self, data: dict[str, Any] | None = None) -> None:
            self.data = {} if data is None else data

    class Prom:
        def __init__(self, _config: Any, types: Any, names: Any, engines: Any) -> None:
            self._counter_cls, self._labelnames = types[Counter], names
            self.per_engine_labelvalues = engines

    vars(module).update(KVConnectorStats=Base, KVConnectorPromMetrics=Prom)
    monkeypatch.setitem(sys.modules, METRICS, module)
    monkeypatch.delitem(sys.modules, OURS, raising=False)
    yield importlib.import_module(OURS)
    sys.modules.pop(OURS)
    vars(sys.modules["terrace.connectors.vllm"]).pop("prometheus", None)


def test_gains_arrive_as_counters_of_their_engine(classes: Any) -> None:
    registry = CollectorRegistry()

    def counter(**words: Any) -> Counter:
        return Counter(**words, registry=registry)

    engines = {0: ["m", "0"], 1: ["m", "1"]}
    told = classes.TerracePromMetrics(None, {Counter: counter}, ["model_name", "engine"], engines)
    one = classes.TerraceStats({"terrace_hit_tokens host": 64, "terrace_failed_tokens": 1})
    one.aggregate(classes.TerraceStats({"terrace_hit_tokens host": 6, "terrace_loads loaded": 1}))
    told.observe(one.data, 1)
    told.observe({"terrace_hit_tokens host": 1, "of a later version x": 1}, 1)
    text = generate_latest(registry).decode()
    hit = 'vllm:terrace_hit_tokens_total{engine="1",model_name="m",tier="host"} 71.0'
    assert hit in text.splitlines()
    assert 'vllm:terrace_failed_tokens_total{engine="1",model_name="m"} 1.0' in text.splitlines()
    assert 'engine="0"' not in text


def test_the_connector_hands_them_to_the_engine(
    connector: Any, classes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = scheduler_side(connector, monkeypatch, PLAIN)
    half = scheduler._scheduler
    assert scheduler.get_kv_connector_stats() is None
    half.stats.gains = {"terrace_hit_tokens host": 64}
    told = scheduler.get_kv_connector_stats()
    assert isinstance(told, classes.TerraceStats)
    assert told.data == half.stats.gains
    assert isinstance(scheduler.build_kv_connector_stats(told.data), classes.ToldStats)
    assert half.stats.notes == 0
    scheduler.request_finished_all_groups(request("a"), ())
    assert half.stats.notes == 1
    meta = connector.TerraceWorkerMetadata([b"report"], [])
    scheduler.update_connector_output(
        SimpleNamespace(kv_connector_worker_meta=meta, invalid_block_ids=(), failed_recving=())
    )
    assert half.stats.notes == 2


def test_an_engine_without_such_classes_is_served_all_the_same(
    connector: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stats._say_once.cache_clear()
    scheduler = scheduler_side(connector, monkeypatch, PLAIN)
    scheduler._scheduler.stats.gains = {"terrace_hit_tokens host": 64}
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert scheduler.get_kv_connector_stats() is None
    assert scheduler.build_prom_metrics(None, {}, [], {}) is None
    assert scheduler._scheduler is not None
    assert len([row for row in caplog.records if "does not tell of the tiers" in row.message]) == 1


def test_the_engines_log_does_not_repeat_what_ours_says(classes: Any) -> None:
    gains = {"terrace_hit_tokens host": 64}
    assert not classes.TerraceStats(dict(gains)).is_empty()
    assert classes.TerraceStats({}).is_empty()
    logged = classes.ToldStats(dict(gains))
    assert logged.is_empty()
    assert logged.aggregate(classes.ToldStats(dict(gains))).is_empty()
    assert logged.reduce() == {"terrace_hit_tokens host": 128}
    logged.reset()
    assert logged.data == {}
