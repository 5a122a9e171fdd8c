"""Answers with drafts.  In a process that imported numba, vLLM 0.32 starts no further engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.integration.vllm.engine import Engine
from tests.integration.vllm.scenarios.small import HOST

REFUSED = 'terrace_reports_total{result="refused"}'
LOST = "terrace_lost_steps_total"
Say = Callable[[object], None]


def drafted(say: Say, model: str) -> None:
    """Answers whose drafts are n-grams of the prompt: cold, from the own cache, out of host."""
    drafts = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}
    engine = Engine(model, settings={}, speculative_config=drafts)
    schedule, steps = engine.scheduler.schedule, [0]

    def counted(*arguments: Any, **named: Any) -> Any:
        steps[0] += 1
        return schedule(*arguments, **named)

    engine.scheduler.schedule = counted
    prompt = engine.tokens(300)
    found: dict[str, Any] = {"cold": engine.one(prompt, max_tokens=40)}
    found["local"] = engine.one(prompt, max_tokens=40)
    engine.forget_local()
    before, steps[0] = engine.metrics(), 0
    found["host"] = engine.one(prompt, max_tokens=40)
    found |= {"grown": engine.grown(before), "steps": steps[0]}
    found["short"] = {
        "cold": _twice(engine, engine.tokens(300, 1)),
        # Begins with a prompt that is stored, and goes on otherwise than its answer.
        "tail": _twice(engine, engine.tokens(300) + engine.tokens(30, 1)),
        "last": _twice(engine, engine.tokens(300, 2), max_tokens=1),
    }
    say(found | {name: engine.metric(name) for name in (REFUSED, LOST)})


def _idle(engine: Engine) -> None:
    """Steps on as the loop of a core does that is a process of its own, until it has nothing."""
    while engine.scheduler.has_requests():
        engine.llm.llm_engine.engine_core.get_output()


def _twice(engine: Engine, prompt: list[int], max_tokens: int = 4) -> list[float]:
    """Hit tokens of a prompt and of the same again; no answer fills a block of its own."""
    hits = []
    for _ in range(2):
        engine.forget_local()
        before = engine.metrics()
        engine.one(prompt, max_tokens=max_tokens)
        _idle(engine)
        hits.append(engine.grown(before).get(HOST, 0))
    return hits


def plain(say: Say, model: str) -> None:
    """The same without drafts and without Terrace."""
    engine = Engine(model, settings=None)
    say({"cold": engine.one(engine.tokens(300), max_tokens=40)})
