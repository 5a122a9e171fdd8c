"""./dev plots: draws docs/results/*.svg of the figures that are kept there."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from dev import paths, say, wheels

RESULTS = paths.ROOT / "docs" / "results"
PYGAL = Path("pygal") / "__init__.py"
SCRIPT_OR_COMMENT = re.compile(r"<script.*?</script>|<!--.*?-->", re.DOTALL)
THROTTLES: dict[str, Any] = {
    "logarithmic": True,
    "xrange": (1, 1000),
    "x_labels": (1, 3, 10, 30, 100, 300, 1000),
    "x_value_formatter": lambda value: f"{value:g}",
    "value_formatter": lambda value: f"{value:.3g}",
}
Line = dict[str, Any]
Points = list[tuple[float, float]]


def ensure() -> Path:
    """The folder with what draws, made when absent or damaged."""
    return wheels.ensure("plots", PYGAL)


def rows(name: str) -> list[Line]:
    lines = (RESULTS / name).read_text().splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def points(
    lines: Iterable[Line], place: Callable[[Line], float], value: Callable[[Line], float]
) -> Points:
    return sorted((place(line), value(line)) for line in lines)


def chart(title: str, across: str, up: str, series: dict[str, Points], **more: Any) -> str:
    """An XY chart as SVG: the same text for the same figures, without scripts."""
    pygal = importlib.import_module("pygal")  # Not of the environment: see ensure().
    pale = "#dddddd"
    style = pygal.style.CleanStyle(
        font_family="sans-serif",
        background="white",
        guide_stroke_color=pale,
        major_guide_stroke_color=pale,
    )
    drawn = pygal.XY(
        title=title,
        x_title=across,
        y_title=up,
        style=style,
        js=[],
        width=800,
        height=480,
        dots_size=3,
        legend_at_bottom=True,
        no_prefix=True,
        disable_xml_declaration=True,
        show_x_guides=True,
        **more,
    )
    drawn.uuid = title
    for name, line in series.items():
        drawn.add(name, line)
    text = drawn.render(is_unicode=True)
    return SCRIPT_OR_COMMENT.sub("", text) + "\n"  # A comment has the day.


def ratio(line: Line) -> float:
    return float(line["ratio"])


def per_mille(line: Line) -> float:
    return float(line["params"]["throttle_per_mille"])


def planner() -> str:
    steady = [line for line in rows("sim-plan.jsonl") if line["params"]["changes_every"] == 0]
    series = {}
    for choice, quantile in (
        *(("planner", "p50"), ("planner", "p99")),
        *(("always", "p50"), ("half", "p50"), ("never", "p50")),
    ):
        wanted = {"choice": choice, "quantile": quantile}
        lines = [line for line in steady if wanted.items() <= line["params"].items()]
        series[f"{choice}, {quantile}"] = points(lines, per_mille, ratio)
    return chart(
        "Time to first token over a throttled disk, simulated",
        "thousandths of the disk's full speed",
        "beside the engine alone",
        series,
        **THROTTLES,
        y_labels=(0.2, 0.5, 1, 2, 5, 10, 20),
    )


def throttle() -> str:
    lines = [line for line in rows("vllm-throttle.jsonl") if line["name"].endswith(".fixed")]

    def end(at: int) -> Points:
        return points(lines, per_mille, lambda line: float(line["params"]["ratio_90"][at]))

    return chart(
        "Time to first token over a throttled disk, real engine",
        "thousandths of the disk's full speed",
        "median beside Terrace off",
        {
            "median": points(lines, per_mille, ratio),
            "90 %, from": end(0),
            "90 %, to": end(1),
            "goal": [(1, 1.02), (1000, 1.02)],
        },
        **THROTTLES,
        y_labels=(0.05, 0.1, 0.2, 0.5, 1, 2),
    )


def eviction(trace: str, block_tokens: int, title: str) -> str:
    def is_wanted(line: Line) -> bool:
        told = line["params"]
        return (
            told["trace"].startswith(trace)
            and (told["seed"], told["rate"]) == (1, 1)
            and told["block_tokens"] == block_tokens
        )

    lines = [line for line in rows("eviction.jsonl") if is_wanted(line)]
    by_policy = {
        policy: [line for line in lines if line["name"] == f"simulate.{policy}"]
        for policy in ("lru", "hazard")
    }

    def size(line: Line) -> float:
        return float(line["params"]["host_blocks"])

    return chart(
        title,
        f"blocks of {block_tokens} tokens that host has",
        "hits in percent of the prompts' blocks",
        {
            **{
                name: points(some, size, lambda line: float(line["value"]))
                for name, some in by_policy.items()
            },
            "optimum": points(by_policy["lru"], size, lambda line: float(line["limit"])),
        },
        include_x_axis=True,
    )


def files() -> dict[str, str]:
    """Text by name below docs/results."""
    sys.path.insert(0, str(ensure()))
    try:
        return {
            "planner.svg": planner(),
            "throttle.svg": throttle(),
            "eviction-conversations.svg": eviction(
                "conversation", 512, "Hits by eviction: recorded conversations"
            ),
            "eviction-agents.svg": eviction(
                "kv-cache-tester", 64, "Hits by eviction: coding agents"
            ),
        }
    finally:
        sys.path.pop(0)


def main(arguments: Sequence[str]) -> int:
    if arguments and list(arguments) != ["--check"]:
        raise say.Stop(f"plots does not know {arguments[0]}", "it takes --check or nothing")
    stale = 0
    for name, text in files().items():
        file = RESULTS / name
        if file.exists() and file.read_text() == text:
            continue
        stale += 1
        if arguments:
            say.note(f"{paths.relative(file)} is stale; run ./dev plots")
        else:
            file.write_text(text)
            say.note(f"wrote {paths.relative(file)}")
    return 1 if stale and arguments else 0
