"""What a dashboard is made of, and how a query is narrowed to the engines that were chosen."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

METRIC = re.compile(r"\b((?:terrace|(?:dynamo_)?kvbm)_[a-z0-9_]+)(?:\{([^}]*)\})?")
BAD_IF_ANY = ((0.0, "green"), (1.0, "red"))
WARN_IF_ANY = ((0.0, "green"), (1.0, "orange"))
CHOSEN = 'instance=~"$instance",engine=~"$engine"'


@dataclass(frozen=True)
class Panel:
    """One panel: queries in Prometheus' language, each with its legend.

    `unit` is Grafana's word. `help` says what is shown and what to do when it looks wrong. Steps
    are (from this value on, colour); `words` shows a value as a text.
    """

    title: str
    unit: str
    help: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    steps: tuple[tuple[float, str], ...] = ()
    words: dict[int, str] = field(default_factory=dict)
    stacked: bool = False
    below_zero: bool = False


@dataclass(frozen=True)
class Dashboard:
    name: str
    title: str
    help: str
    panels: tuple[Panel, ...]


def stat(
    title: str,
    unit: str,
    query: str,
    help_text: str,
    steps: tuple[tuple[float, str], ...] = (),
    words: dict[int, str] | None = None,
) -> Panel:
    return Panel(title, unit, help_text, ((query, ""),), "stat", steps, words or {})


def lines(title: str, unit: str, help_text: str, *queries: tuple[str, str]) -> Panel:
    return Panel(title, unit, help_text, queries)


def areas(title: str, unit: str, help_text: str, *queries: tuple[str, str]) -> Panel:
    """Lines upon each other: parts of a sum."""
    return Panel(title, unit, help_text, queries, stacked=True)


def names(query: str) -> set[str]:
    """The metrics that a query asks for."""
    return {match[1] for match in METRIC.finditer(query)}


def chosen(query: str) -> str:
    """The query for the engines that the dashboard's variables choose."""

    def narrow(match: re.Match[str]) -> str:
        own = f"{match[2]}," if match[2] else ""
        return f"{match[1]}{{{own}{CHOSEN}}}"

    return METRIC.sub(narrow, query)


def rate(metric: str) -> str:
    return f"rate({metric}[$__rate_interval])"


def mean(metric: str) -> str:
    """Of a summary's or a histogram's times."""
    return f"sum({rate(metric + '_sum')}) / sum({rate(metric + '_count')})"


def quantile(share: str, histogram: str) -> str:
    """The time below which this share of the times lie."""
    return f"histogram_quantile({share}, sum by (le) ({rate(histogram + '_bucket')}))"


def gain(metric: str) -> str:
    """By how much a counter grew in the whole time that is shown."""
    return f"increase({metric}[$__range])"
