"""Results as JSON lines, and the statistics behind them."""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
from collections.abc import Callable, Sequence
from typing import Any


def machine() -> dict[str, Any]:
    cpu = ""
    with open("/proc/cpuinfo") as facts:
        for line in facts:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_bytes": pages,
        "gpu": None,
        "disk": "",
        "kernel": platform.release(),
    }


def commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def interval(values: Sequence[float], percent: float = 90, rounds: int = 2000) -> list[float]:
    """Bootstrap interval of the median (Efron 1979); seeded, so that a rerun gives the same."""
    rng = random.Random(7)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(rounds))
    cut = int(rounds * (100 - percent) / 200)
    return [medians[cut], medians[-cut - 1]]


def ratio_interval(
    values: Sequence[Sequence[float]],
    limits: Sequence[Sequence[float]],
    statistic: Callable[[Sequence[float]], float] = statistics.median,
    percent: float = 90,
    rounds: int = 1000,
) -> list[float]:
    """Bootstrap interval of statistic(values) / statistic(limits), of groups that were measured in
    turn: whole groups are drawn, of both sides the same, as what lies in one is alike."""
    rng = random.Random(7)
    numbers = range(len(values))
    ratios = []
    for _ in range(rounds):
        drawn = rng.choices(numbers, k=len(numbers))
        value = statistic([one for number in drawn for one in values[number]])
        ratios.append(value / statistic([one for number in drawn for one in limits[number]]))
    ratios.sort()
    cut = int(rounds * (100 - percent) / 200)
    return [ratios[cut], ratios[-cut - 1]]


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest of them; values need no order."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def emit(
    name: str,
    params: dict[str, Any],
    unit: str,
    values: Sequence[float],
    limit_name: str,
    limits: Sequence[float],
    better: str = "lower",
) -> None:
    """One JSON line on standard output; `value` and `limit` are medians."""
    ordered = sorted(values)
    value, limit = statistics.median(ordered), statistics.median(limits)
    quarter = len(ordered) // 4
    line = {
        "name": name,
        "params": params,
        "unit": unit,
        "better": better,
        "value": value,
        "p25": ordered[quarter],
        "p75": ordered[-quarter - 1],
        "runs": len(ordered),
        "limit_name": limit_name,
        "limit": limit,
        "ratio": value / limit if limit else None,
        "machine": machine(),
        "commit": commit(),
    }
    print(json.dumps(line), flush=True)
