"""What stays in which tier, and when a hit is not taken: late, not worth it, out of scope."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.vllm.engine import Engine, until
from tests.integration.vllm.scenarios.small import ask, make, measured, numbers

Say = Callable[[object], None]


def late(
    say: Say, model: str, prompts: list[list[int]], settings: dict[str, Any], **more: Any
) -> None:
    """A disk that brings less than is wanted in time; what it brings later is there then."""
    engine = make(model, settings, **more)
    first = measured(engine, prompts)
    later: list[dict[str, Any]] = []

    def hits() -> bool:
        engine.forget_local()
        later.append(measured(engine, prompts))
        return bool(later[-1]["answers"][0]["cached"])

    until("a later look-up hits", hits)
    lengths = [one["answers"][0]["cached"] for one in (first, later[-1])]
    own = _own_hit(engine, prompts[0], lengths[1])
    split = _split(engine, prompts[0], lengths[0])
    say({"first": first, "later": later[-1], "own": own, "split": split})


def _own_hit(engine: Engine, prompt: list[int], length: int) -> dict[str, Any]:
    """The same blocks out of the engine's own cache, and no others from anywhere."""
    engine.forget_local()
    ask(engine, [prompt[: length + 1]], max_tokens=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.half, "match", lambda *_arguments: 0)
        return ask(engine, [prompt])[0]


def _split(engine: Engine, prompt: list[int], length: int) -> dict[str, Any]:
    """The same prompt computed whole, in two chunks that meet where a hit of `length` ends."""
    from vllm import SamplingParams

    engine.forget_local()
    core, budget = engine.llm.llm_engine, engine.scheduler.max_num_scheduled_tokens
    params = SamplingParams(
        temperature=0, max_tokens=8, ignore_eos=True, detokenize=False, logprobs=3
    )
    core.add_request("split", {"prompt_token_ids": prompt, "cache_salt": "split"}, params)
    engine.scheduler.max_num_scheduled_tokens = length or budget
    answers: list[Any] = []
    while engine.requests[-1].num_computed_tokens < (length or 1):
        answers += core.step()
    engine.scheduler.max_num_scheduled_tokens = budget
    while core.has_unfinished_requests():
        answers += core.step()
    return engine._answer(answers[-1])


def _rush(engine: Engine) -> None:
    """As if the engine had computed as many tokens in one step as a call may name."""
    owner = engine.half.owner
    seeds = iter(range(30, 60))

    def is_rushing() -> bool:
        handle = owner.begin_request(array("I", numbers(9, 32)), 4, ())  # 4: stores nothing.
        owner.advance_request(handle, 1 << 26, array("I"), [[1]], None, 0)
        # Another prompt each time. Its first step orders nothing, and tells nothing of its time,
        # where the look-up has not been answered by then.
        engine.one(numbers(next(seeds), 200))
        owner.end_request(handle)
        return bool(engine.status()["prefill_tokens_per_second"] > 1e6)

    until("the engine seems to compute at once", is_rushing)


def planned(say: Say, model: str) -> None:
    """The planner at work: before it knows the rates, after, and once computing costs nothing."""
    engine = Engine(model, settings={"planner.enabled": True})
    prompt = engine.tokens(300)
    found: dict[str, Any] = {"cold": engine.one(prompt)}
    for name in ("unknown", "known", "refused"):
        if name == "refused":
            _rush(engine)
        status = engine.status()
        engine.forget_local()
        before = engine.metrics()
        answer = engine.one(prompt)
        found[name] = {"answer": answer, "grown": engine.grown(before), "status": status}
    say(found)


def structured(say: Say, model: str) -> None:
    """An answer of a given form, computed on a hit."""
    from vllm.sampling_params import StructuredOutputsParams

    engine = Engine(model, settings={})
    prompt = engine.tokens(200)
    chosen = StructuredOutputsParams(choice=["yes", "no", "perhaps"])
    sampling = {"structured_outputs": chosen, "ignore_eos": False, "logprobs": None}
    engine.one(prompt, max_tokens=1)
    local = engine.one(prompt, **sampling)
    engine.forget_local()
    before = engine.metrics()
    outside = engine.one(prompt, **sampling)
    say({"local": local, "outside": outside, "grown": engine.grown(before)})


def hot(say: Say, model: str, eviction: str) -> None:
    """A system prompt that the engine always hits itself; all others overrun the host tier."""
    engine = make(model, {"host.blocks": 40, "host.eviction": eviction})
    system = numbers(1, 256)
    tails = iter(range(100, 200))

    def talk() -> dict[str, Any]:
        return measured(engine, [system + numbers(next(tails), 50)])

    def others(seeds: range) -> None:
        for seed in seeds:
            ask(engine, [numbers(seed, 300)])

    found: dict[str, Any] = {"first": talk()}
    for seed in range(200, 210):
        others(range(seed, seed + 1))
        talk()
    engine.forget_local()
    found["hot"] = talk()
    found["others"] = [measured(engine, [numbers(seed, 300)]) for seed in range(200, 210)]
    others(range(210, 220))  # Without the system prompt between them: by `lru` it ages out now.
    found["again"], found["once"] = talk(), talk()
    engine.forget_local()
    found["back"] = talk()
    say(found)


def prompt_only(say: Say, model: str) -> None:
    """Turn two where only prompts are stored."""
    engine = make(model, {"offload.scope": "prompt"})
    prompt = numbers(1, 300)
    (answer,) = ask(engine, [prompt], max_tokens=100)
    longer = prompt + answer["tokens"][0] + numbers(2, 10)
    engine.forget_local()
    # The longer prompt is stored as a whole: only its first look-up shows what turn one left.
    say({"outside": measured(engine, [longer]), "local": ask(engine, [longer])})
