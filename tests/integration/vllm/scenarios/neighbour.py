"""Two engines at one time over the same disk directories."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.vllm.engine import until
from tests.integration.vllm.scenarios.small import OFFLOADED, WRITTEN, make, measured

Say = Callable[[object], None]


def _meet(folder: str, name: str, number: int) -> None:
    """Waits until the other engine is as far."""
    (Path(folder) / f"{name}-{number}").touch()
    until(f"both are {name}", lambda: (Path(folder) / f"{name}-{1 - number}").exists(), 300.0)


def run(
    say: Say,
    model: str,
    prompts: list[list[int]],
    settings: dict[str, Any],
    folder: str,
    number: int,
) -> None:
    """Number 0 or 1: opens, waits for the other, asks, waits for disk and the other, dies."""
    engine = make(model, settings)
    until("the disk is open", lambda: _is_disk_open(engine.status()))
    _meet(folder, "open", number)
    found = measured(engine, prompts)
    status = engine.status()
    size = found["grown"].get(OFFLOADED, 0)
    until("blocks on disk", lambda: engine.metric(WRITTEN) >= size)
    say(found | {"status": status})
    _meet(folder, "done", number)
    os.kill(os.getpid(), signal.SIGKILL)


def _is_disk_open(status: dict[str, Any]) -> bool:
    return any(tier["tier"] == "disk" and tier["state"] == "open" for tier in status["tiers"])
