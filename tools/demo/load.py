"""A small load, to be looked at: conversations that come back, and some that are new.

    python -m demo.load [--port 8000]

asks an engine of this machine until it is ended; `./dev demo --stack` does it itself.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from demo import conversation
from demo.conversation import Conversation

# About 1,400 tokens each: together more than the engine's own cache of ./dev demo holds, and than
# the host tier of --stack.
TALKS, DAYS = 6, 40
NEW_EVERY = 6  # One request of so many is about what nobody has computed.
ANSWER_TOKENS = 8
PAUSE_S = 2.0
LIMIT_S = 180.0
Post = Callable[[str, dict[str, Any]], dict[str, Any]]


@dataclass
class Load:
    """`post` sends a JSON body to a path of the engine and gives the answer's."""

    post: Post
    talks: list[Conversation] = field(default_factory=lambda: conversation.make(TALKS, DAYS))
    requests: int = 0
    prompt_tokens: int = 0
    tokens_from: dict[str, int] = field(default_factory=dict)
    _draw: random.Random = field(default_factory=lambda: random.Random(7))

    def one(self) -> None:
        """One request; raises what `post` raises."""
        talk = self._draw.choice(self.talks)
        self.requests += 1
        # What bears a salt of its own shares no block with anything.
        is_new = self.requests % NEW_EVERY == 0
        reply = self.post(
            "/v1/completions",
            {
                "model": "smol",
                "prompt": talk.text + talk.question,
                "max_tokens": ANSWER_TOKENS,
                "temperature": 0,
                "kv_transfer_params": {"terrace": {"ledger": True}},
                **({"cache_salt": f"new {self.requests}"} if is_new else {}),
            },
        )
        self.prompt_tokens += int(reply["usage"]["prompt_tokens"])
        own = (reply.get("kv_transfer_params") or {}).get("terrace") or {}
        ledger = own.get("ledger") or {}
        # The engine's own cache is `device`.
        found = {"device": ledger.get("local_tokens", 0), **ledger.get("hit_tokens", {})}
        for place, count in found.items():
            if count:
                self.tokens_from[place] = self.tokens_from.get(place, 0) + int(count)

    def line(self) -> str:
        shares = {place: count / self.prompt_tokens for place, count in self.tokens_from.items()}
        shares["computed"] = 1 - sum(shares.values())
        told = ", ".join(f"{place} {share:.0%}" for place, share in shares.items())
        return f"{self.requests} requests, {self.prompt_tokens:,} prompt tokens: {told}"


def post_to(port: int) -> Post:
    """Asks 127.0.0.1."""

    def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=LIMIT_S) as reply:
            answer: dict[str, Any] = json.load(reply)
            return answer

    return post


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.load")
    parser.add_argument("--port", type=int, default=8000, help="the engine's, on 127.0.0.1")
    parser.add_argument("--requests", type=int, help="end after so many")
    options = parser.parse_args(arguments)
    load = Load(post_to(options.port))
    try:
        while load.requests != options.requests:
            load.one()
            if load.requests % 10 == 0:
                print(load.line(), flush=True)
            time.sleep(PAUSE_S)
    except (urllib.error.URLError, OSError, ValueError) as error:
        print(f"load: 127.0.0.1:{options.port}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
