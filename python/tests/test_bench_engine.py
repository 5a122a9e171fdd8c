"""What the benchmarks on the engine read of Terrace's metrics."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.vllm import engine

METRICS = """# TYPE terrace_transfer_blocks_total counter
terrace_transfer_blocks_total{op="offload",source="device",target="host"} 3
terrace_transfer_blocks_total{op="offload",source="device",target="disk"} 4
terrace_transfer_blocks_total{op="offload",source="host",target="disk"} 50
"""


def llm() -> Any:
    owner = SimpleNamespace(read_metrics=lambda: METRICS)
    connector = SimpleNamespace(_scheduler=SimpleNamespace(owner=owner))
    core = SimpleNamespace(scheduler=SimpleNamespace(connector=connector))
    return SimpleNamespace(
        llm_engine=SimpleNamespace(engine_core=SimpleNamespace(engine_core=core))
    )


def test_a_metric_is_the_sum_of_the_lines_that_begin_so() -> None:
    offloads = 'terrace_transfer_blocks_total{op="offload",source="device"'
    assert engine.metric_total(llm(), offloads) == 7
    assert engine.metric_total(llm(), "terrace_nothing") == 0


def test_a_folder_is_made_empty_whatever_was_in_it(tmp_path: Path) -> None:
    old = tmp_path / "cache" / "terrace-00" / "slots"
    old.parent.mkdir(parents=True)
    old.touch()
    for _ in range(2):
        engine.make_empty(tmp_path / "cache")
        assert not list((tmp_path / "cache").iterdir())
