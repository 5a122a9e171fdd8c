"""What the engine's own /metrics and log tell of Terrace: gains of the owner's counters.

Free of vLLM's types; `prometheus.py` has its classes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from terrace._native import TerraceError
from terrace.connectors.vllm.log import LOGGER

EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Told:
    """A counter of the owner (docs/metrics.md), and its labels, that is told to the engine."""

    name: str  # Without `_total`.
    labels: tuple[str, ...]
    help: str


# Those that move with the engine's steps: what moves later would be told at the next step only.
TOLD = (
    Told("terrace_hit_tokens", ("tier",), "Tokens that came from a tier, verified."),
    Told("terrace_miss_blocks", ("reason",), "Blocks not found, by the reason of the first miss."),
    Told("terrace_loads", ("result",), "Loads that the engine was promised, as loaded or failed."),
    Told("terrace_failed_tokens", (), "Tokens promised to the engine, then not delivered."),
    Told("terrace_corrupt_blocks", ("tier",), "Blocks that did not verify: each was a miss."),
)
_SAMPLE = re.compile(
    rf"^({'|'.join(one.name for one in TOLD)})_total(?:{{([^}}]*)}})? (\d+)$", re.MULTILINE
)
_VALUE = re.compile(r'="([^"]*)"')

# (name, values of its labels) joined by spaces -> what it gained.
Gains = dict[str, int]


def counts(text: str) -> Gains:
    """Of the owner's metrics, those that are told."""
    return {
        " ".join((name, *_VALUE.findall(labels))): int(value)
        for name, labels, value in _SAMPLE.findall(text)
    }


def plus(one: Gains, other: Gains) -> Gains:
    return {name: one.get(name, 0) + other.get(name, 0) for name in one | other}


class Teller:
    """Gains since they were told last: once a second at most while requests run.

    The owner is asked only after something came to its end; the last request's end is told at once,
    since the engine then makes no further steps.
    """

    def __init__(self, read: Callable[[], str], is_idle: Callable[[], bool]) -> None:
        self._read = read
        self._is_idle = is_idle
        self._is_news = False
        self._next = 0.0
        self._told: Gains = {}

    def note(self) -> None:
        """A request or a load has ended."""
        self._is_news = True

    def take(self) -> Gains:
        now = time.monotonic()
        if not self._is_news or (now < self._next and not self._is_idle()):
            return {}
        self._is_news, self._next = False, now + EVERY_S
        try:
            found = counts(self._read())
        except TerraceError as error:  # They are told next time.
            LOGGER.info("terrace: counters not told to the engine: %s", error)
            return {}
        gains = {name: count - self._told.get(name, 0) for name, count in found.items()}
        self._told = found
        return {name: gain for name, gain in gains.items() if gain > 0}


@cache
def _say_once(error: str) -> None:
    LOGGER.warning("terrace: the engine's /metrics does not tell of the tiers: %s", error)


def _made(make: Callable[[Any], Any]) -> Any:
    """Nothing, where this vLLM has other classes for it: no reason to stand aside."""
    try:
        from terrace.connectors.vllm import prometheus

        return make(prometheus)
    except Exception as error:  # Whatever it is, the engine must not see it.
        _say_once(f"{type(error).__name__}: {error}")
        return None


def payload(gains: Gains) -> Any:
    return _made(lambda prometheus: prometheus.TerraceStats(data=gains)) if gains else None


class FrontEnd:
    """Methods of the connector's class that the engine's front end calls: no half is there."""

    @classmethod
    def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> Any:
        return _made(lambda prometheus: prometheus.ToldStats(data=dict(data or {})))

    @classmethod
    def build_prom_metrics(
        cls, vllm_config: Any, metric_types: Any, labelnames: Any, per_engine_labelvalues: Any
    ) -> Any:
        def make(prometheus: Any) -> Any:
            prometheus.make_known(cls)
            return prometheus.TerracePromMetrics(
                vllm_config, metric_types, labelnames, per_engine_labelvalues
            )

        return _made(make)
