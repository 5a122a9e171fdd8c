"""Several scenarios in one process, one engine after the other: a start of Python costs more."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.integration.vllm.engine import Engine

Say = Callable[[object], None]


def run(say: Say, parts: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """`parts`: name -> (`module.function`, its arguments). Answers by name."""
    found: dict[str, Any] = {}
    for name, (scenario, arguments) in parts.items():
        module, _, function = scenario.partition(".")
        package = f"{__package__}.{module}"
        run_one = getattr(importlib.import_module(package), function)
        run_one(partial(found.__setitem__, name), **arguments)
        Engine.close_all()
    say(found)
