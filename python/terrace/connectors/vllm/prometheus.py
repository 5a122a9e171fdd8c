"""vLLM's classes for a connector's stats: gains travel from the scheduler to /metrics.

Its counters are called `vllm:terrace_…`: vLLM forgets those of an engine that ended by that prefix,
and who scrapes Terrace itself, too, counts nothing twice.
"""

from __future__ import annotations

import contextlib
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.metrics import (
    KVConnectorPromMetrics,
    KVConnectorStats,
)

from terrace.connectors.vllm import stats


def make_known(connector: type) -> None:
    """Below MultiConnector vLLM looks a child's class up by its name, though it came by a path."""
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory

    with contextlib.suppress(ValueError):  # It is known.
        KVConnectorFactory.register_connector(
            connector.__name__, connector.__module__, connector.__name__
        )


class TerraceStats(KVConnectorStats):  # type: ignore[misc] # vLLM is Any to mypy
    data: stats.Gains

    def reset(self) -> None:
        self.data = {}

    def aggregate(self, other: KVConnectorStats) -> KVConnectorStats:
        self.data = stats.plus(self.data, other.data)
        return self

    def reduce(self) -> dict[str, int | float]:
        return dict(self.data)

    def is_empty(self) -> bool:
        return not self.data


class ToldStats(TerraceStats):
    """For vLLM's log, which would repeat each ten seconds what Terrace's line each minute says."""

    def is_empty(self) -> bool:
        return True


class TerracePromMetrics(KVConnectorPromMetrics):  # type: ignore[misc] # as above
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._counters = {
            one.name: self._counter_cls(
                name=f"vllm:{one.name}",
                documentation=one.help,
                labelnames=[*self._labelnames, *one.labels],
            )
            for one in stats.TOLD
        }

    def observe(self, transfer_stats_data: dict[str, Any], engine_idx: int = 0) -> None:
        engine = self.per_engine_labelvalues[engine_idx]
        for sample, gain in transfer_stats_data.items():
            name, *values = sample.split(" ")
            if counter := self._counters.get(name):
                counter.labels(*engine, *values).inc(gain)
