"""The engine that the benchmarks share: a real small model in this process, by the one set of flags
that their figures have in common."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from engine_env import installed

BYTES_PER_TOKEN = 23_040  # bfloat16: 30 layers, K and V, 3 heads of 64


def start_engine(dtype: str = "bfloat16", **options: Any) -> Any:
    """vLLM's LLM; `options` are what the benchmark chooses beyond that."""
    from vllm import LLM

    return LLM(
        model=str(installed()[f"model_{dtype}"]),
        dtype=dtype,
        enforce_eager=True,
        **options,
    )


def connector_of(llm: Any) -> Any:
    """The scheduler's side of Terrace in it."""
    return llm.llm_engine.engine_core.engine_core.scheduler.connector


def metric_total(llm: Any, metric: str) -> float:
    """Sum of Terrace's metrics whose line begins with `metric`: a name, labels as far as needed."""
    text = connector_of(llm)._scheduler.owner.read_metrics()
    lines = [line for line in text.splitlines() if line.startswith(metric)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
