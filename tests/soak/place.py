"""What a campaign asks of the server it loads; `site.py` has the real one."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tests.soak.conversations import ANSWER_TOKENS
from tests.soak.watch import Sample

MODEL_NAME = "tiny"  # As OnlineEngine serves it.


class Refused(RuntimeError):
    """The server gave no answer, or an error."""


@dataclass
class Asked:
    """One request."""

    prompt: list[int]
    salt: str = ""
    count: int = 1  # Answers.
    has_prompt_logprobs: bool = False
    mode: str = "on"
    is_streamed: bool = False

    def body(self) -> dict[str, Any]:
        own = {"ledger": True, "mode": self.mode}
        body: dict[str, Any] = {
            "model": MODEL_NAME,
            "prompt": self.prompt,
            "max_tokens": ANSWER_TOKENS,
        }
        body |= {"temperature": 0, "ignore_eos": True, "return_token_ids": True}
        body |= {"kv_transfer_params": {"terrace": own}}
        if self.count > 1:  # Refused of greedy requests; the best of one is greedy, too.
            body |= {"n": self.count, "temperature": 1.0, "top_k": 1}
        if self.has_prompt_logprobs:
            body["prompt_logprobs"] = 0
        if self.salt:
            body["cache_salt"] = self.salt
        return body | ({"stream": True} if self.is_streamed else {})


@dataclass
class Answer:
    answers: list[list[int]]
    ledger: dict[str, Any] | None = None


class Place(Protocol):
    """One server at a time, over a cache directory that outlives it."""

    def start(self) -> None: ...
    def kill(self, target: str = "all") -> bool:
        """False when other processes outlived the one."""

    def close(self) -> None: ...
    def is_alive(self) -> bool: ...
    def output(self) -> str:
        """All that the present server has said."""

    def ask(self, asked: Asked) -> Answer:
        """Raises Refused."""

    def stream(self, asked: Asked, most: int | None) -> list[int]:
        """Closes the connection after so many tokens; raises Refused."""

    def signal(self, process: str, number: signal.Signals) -> None: ...
    def lose_directory(self) -> None: ...
    def flip(self, rng: random.Random) -> int: ...
    def switch(self, verb: str) -> None: ...
    def reset(self, *, is_external: bool) -> bool: ...
    def status(self) -> dict[str, Any]: ...
    def metrics(self) -> dict[str, float]: ...
    def engine_metric(self, name: str) -> float: ...
    def samples(self, *, is_idle: bool) -> Sequence[Sample]: ...
