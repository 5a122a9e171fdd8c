"""An engine that is asked and switched by the command line while it runs."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.vllm.engine import Engine
from tests.integration.vllm.scenarios.small import make, measured, numbers

Say = Callable[[object], None]
TERRACE = Path(__file__).parents[4] / "build" / "release" / "bin" / "terrace"
BLOCK = 32


def command(directory: str, verb: str) -> dict[str, Any]:
    """`terrace VERB --json` in a process of its own."""
    line = [str(TERRACE), verb, "--directory", directory, "--json"]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    return {"code": ran.returncode, "error": ran.stderr, "out": json.loads(ran.stdout or "[]")}


def opted(mode: str) -> dict[str, Any]:
    return {"extra_args": {"kv_transfer_params": {"terrace": {"ledger": True, "mode": mode}}}}


def again(engine: Engine, prompt: list[int], **more: Any) -> dict[str, Any]:
    """Whatever is hit, Terrace served."""
    engine.forget_local()
    return measured(engine, [prompt], **more)


def _in_the_middle(engine: Engine, prompt: list[int], act: Callable[[], object]) -> list[int]:
    """The answer to a request in the middle of which something is done."""
    from vllm import SamplingParams

    core = engine.llm.llm_engine
    count = 3 * BLOCK
    params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False)
    core.add_request("in the middle", {"prompt_token_ids": prompt}, params)
    tokens: list[int] = []
    steps = 0
    while core.has_unfinished_requests():
        if steps == BLOCK:
            act()
        for output in core.step():
            tokens = list(output.outputs[0].token_ids)
        steps += 1
    return tokens


def switched(say: Say, model: str) -> None:
    prompt, fresh, other, third = (numbers(seed, 300) for seed in range(1, 5))
    found: dict[str, Any] = {}
    # Where a socket's path is short enough.
    with tempfile.TemporaryDirectory(prefix="terrace-live-", dir="/tmp") as place:
        directory = f"{place}/s"
        engine = make(model, {"attach.directory": directory}, engine_id="live")

        def call(name: str, verb: str) -> None:
            found[name] = command(directory, verb)

        found["cold"], found["hit"] = measured(engine, [prompt]), again(engine, prompt)
        call("pause", "pause")
        found["paused"] = again(engine, prompt)
        found["paused fresh"] = again(engine, fresh)
        call("status", "status")
        call("resume", "resume")
        found["resumed"] = again(engine, prompt)
        found["after pause"] = again(engine, fresh)
        call("readonly", "readonly")
        found["read"] = again(engine, prompt)
        found["readonly other"] = [again(engine, other) for _ in range(2)]
        call("on", "resume")
        found["off"] = again(engine, prompt, **opted("off"))
        found["off third"] = again(engine, third, **opted("off"))
        found["reads"] = again(engine, prompt, **opted("readonly"))
        found["reads third"] = again(engine, third, **opted("readonly"))
        found["third"] = again(engine, third)
        engine.forget_local()
        begun = numbers(9, 2 * BLOCK)
        answer = _in_the_middle(engine, begun, lambda: call("middle", "pause"))
        call("end", "resume")
        found["begun"] = again(engine, begun + answer, max_tokens=1)
        found["undisturbed"] = again(engine, begun, max_tokens=3 * BLOCK)
        found["middle answer"] = answer
        found["final"] = engine.status()
        say(found)
