"""An engine that is asked and switched by the command line while it runs."""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.vllm.engine import Engine, until
from tests.integration.vllm.scenarios.small import OFFLOADED, WRITTEN, make, measured, numbers

Say = Callable[[object], None]
TERRACE = Path(__file__).parents[4] / "build" / "release" / "bin" / "terrace"
BLOCK = 32
LONGEST_TALK = 800  # Tokens.


def command(directory: str, *words: str) -> dict[str, Any]:
    """`terrace WORDS --json` in a process of its own."""
    line = [str(TERRACE), *words, "--directory", directory, "--json"]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    return {"code": ran.returncode, "error": ran.stderr, "out": json.loads(ran.stdout or "[]")}


def printed(directory: str, *words: str) -> dict[str, Any]:
    """The same as people read it."""
    line = [str(TERRACE), *words, "--directory", directory]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    return {"code": ran.returncode, "error": ran.stderr, "out": ran.stdout}


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


def explained(say: Say, model: str) -> None:
    """What `why` and `top` tell of an engine's requests, and what its file of ledgers has."""
    prompt, longer = numbers(1, 300), numbers(1, 300) + numbers(2, 100)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="terrace-live-", dir="/tmp") as place:
        directory, file = f"{place}/s", Path(place) / "ledgers.jsonl"
        settings = {"attach.directory": directory, "ledger.file": str(file)}
        engine = make(model, settings, engine_id="explained")

        def newest() -> str:
            name: str = command(directory, "why")["out"][0]["request"]
            return name

        measured(engine, [prompt])
        found["cold"] = printed(directory, "why", newest())
        found["hit"] = again(engine, longer)["answers"][0]["ledger"]
        name = newest()
        found["json"] = command(directory, "why", name)
        found["text"] = printed(directory, "why", name)
        command(directory, "pause")
        again(engine, prompt)
        found["paused"] = printed(directory, "why", newest())
        command(directory, "resume")
        again(engine, prompt, **opted("off"))
        found["off"] = printed(directory, "why", newest())
        _in_the_middle(
            engine,
            numbers(9, 2 * BLOCK),
            lambda: found.update(running=printed(directory, "why", "in the")),
        )
        found["ended"] = printed(directory, "why", "in the")
        found["unknown"] = printed(directory, "why", "nobody")
        found["top"] = printed(directory, "top", "--once")
        found["top json"] = command(directory, "top", "--once")
        engine.close()
        found["lines"] = [json.loads(line) for line in file.read_text().splitlines()]
        say(found)


def _flip_the_last_payload(disk: str) -> None:
    """One bit of one block on disk."""
    (path,) = Path(disk).rglob("0.slots")
    with path.open("r+b") as file:
        content = file.read()
        frame = content.rindex(b"TRCFRAME")
        file.seek(frame + 4096 + 100)
        file.write(bytes([content[frame + 4096 + 100] ^ 1]))
        file.flush()
        os.fsync(file.fileno())


def scrubbed(say: Say, model: str, disk: str) -> None:
    """What lies on disk is verified when asked, whole and with a flipped bit."""
    prompt = numbers(1, 300)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="terrace-live-", dir="/tmp") as place:
        settings = {"attach.directory": f"{place}/s", "disk.size": "64MiB", "disk.paths": [disk]}
        engine = make(model, settings, engine_id="scrubbed")
        found["cold"] = measured(engine, [prompt])
        size = found["cold"]["grown"][OFFLOADED]
        until("blocks on disk", lambda: engine.metric(WRITTEN) >= size)
        for name in ("whole", "flipped", "after"):
            if name == "flipped":
                _flip_the_last_payload(disk)
            before = engine.metrics()
            found[name] = command(f"{place}/s", "scrub", "--wait") | {"grown": {}}
            found[name]["grown"] = engine.grown(before)
        found["hit"] = again(engine, prompt)
        say(found)


def _rounds(engine: Engine) -> dict[str, Any]:
    """Twelve prompts, three times over, none of them ever in the engine's own cache."""
    prompts = [numbers(seed, 300) for seed in range(20, 32)]
    before = engine.metrics()
    answers = []
    for prompt in prompts * 3:
        engine.forget_local()
        answers += [one["tokens"] for one in measured(engine, [prompt])["answers"]]
    return {"answers": answers, "grown": engine.grown(before)}


def observed(say: Say, model: str, host_blocks: int) -> None:
    """What `advise` tells of an engine that only observes, beside what that size then gives."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="terrace-live-", dir="/tmp") as place:
        directory = f"{place}/s"
        observing = {"attach.directory": directory, "mode": "observe", "host.size": 0}
        engine = make(model, observing, engine_id="observed")
        found["observed"] = _rounds(engine)
        found["status"] = command(directory, "status")
        (status,) = found["status"]["out"]
        size = str(host_blocks * status["forecast"]["block_bytes"])
        found["asked"] = command(directory, "advise", "--host", size)
        found["advice"] = command(directory, "advise")
        found["resume"] = command(directory, "resume")
        engine.close()
    settings = {"host.blocks": host_blocks, "host.size": 0, "host.eviction": "lru"}
    found["real"] = _rounds(make(model, settings))
    say(found)


def _chats(engine: Engine, turns: int = 120) -> dict[str, Any]:
    """Conversations that take turns, the latest ones most often; none in the engine's own cache."""
    rng = random.Random(5)
    talks: list[list[int]] = []
    before = engine.metrics()
    answers, asked = [], 0
    for turn in range(turns):
        if not talks or rng.random() < 0.2:
            talks.append([])
        back = min(int(rng.expovariate(0.15)), len(talks) - 1)
        talk = talks.pop(-1 - back)
        talk += numbers(1000 + turn, rng.randrange(40, 160))
        asked += (len(talk) - 1) // BLOCK * BLOCK
        engine.forget_local()
        (answer,) = measured(engine, [talk], max_tokens=rng.randrange(2, 34))["answers"]
        answers.append(answer["tokens"])
        talk += answer["tokens"][0]
        if len(talk) < LONGEST_TALK:
            talks.append(talk)
    return {"answers": answers, "grown": engine.grown(before), "asked": asked}


def advised(say: Say, model: str, sizes: list[list[int]]) -> None:
    """The same of chats by the default policies, for pairs of host and disk in blocks."""
    found: dict[str, Any] = {"asked": [], "real": []}
    with tempfile.TemporaryDirectory(prefix="terrace-live-", dir="/tmp") as place:
        directory = f"{place}/s"
        observing = {"attach.directory": directory, "mode": "observe", "host.size": 0}
        engine = make(model, observing, engine_id="observed")
        found["observed"] = _chats(engine)
        (status,) = command(directory, "status")["out"]
        block = status["forecast"]["block_bytes"]
        for host, disk in sizes:
            words = ["--host", str(host * block)] + (["--disk", str(disk * block)] if disk else [])
            found["asked"].append(command(directory, "advise", *words))
        engine.close()
        for number, (host, disk) in enumerate(sizes):
            settings: dict[str, Any] = {
                "host.blocks": host,
                "host.size": 0,
                "lookup.pin_share": 0.95,
            }
            if disk:
                path = Path(place) / f"disk-{number}"
                path.mkdir()
                settings |= {"disk.paths": [str(path)], "disk.blocks": disk}
            engine = make(model, settings)
            found["real"].append(_chats(engine))
            engine.close()
    say(found)
