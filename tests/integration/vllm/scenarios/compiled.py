"""An engine whose model is compiled, as it is by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.integration.vllm.scenarios.small import ask, make, measured


def truth(say: Callable[[object], None], model: str, prompts: list[list[int]]) -> None:
    """Without Terrace: cold and out of the engine's own cache; with it: cold and out of host."""
    options: dict[str, Any] = {"enforce_eager": False}
    plain = make(model, None, **options)
    found: dict[str, Any] = {"plain": [], "local": [], "cold": [], "host": []}
    for prompt in prompts:
        found["plain"] += ask(plain, [prompt])
        found["local"] += ask(plain, [prompt])
    config = plain.llm.llm_engine.vllm_config.compilation_config
    found["mode"] = int(config.mode)
    plain.close()
    plain.opened.remove(plain)
    engine = make(model, {}, **options)
    for prompt in prompts:
        found["cold"].append(measured(engine, [prompt]))
        engine.forget_local()
        found["host"].append(measured(engine, [prompt]))
    say(found)
