"""The six steps of the demo, each of which fills a row of the report."""

from __future__ import annotations

import json
import subprocess
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from demo import conversation
from demo.conversation import Conversation
from demo.report import Report, Row
from demo.server import Answer, Server
from terrace import _native
from terrace.cli import damage

ANSWER_TOKENS = 48
# The engine answers before the workers' report of the first step is in: a ledger that names what
# was verified needs a second step. The time to the first token ends before it: the engine's own.
FIRST_TOKENS = 2
SETTLE_LIMIT_S = 60.0
# Nothing that ran without this salt can serve a request that bears it: the same conversation once
# more, by the engine alone.
SALT = "by the engine alone"
Say = Callable[[str], None]


def hits(answer: Answer) -> dict[str, int]:
    """Tokens by where they came from: the engine's own cache is `device`."""
    ledger: dict[str, Any] = answer.ledger
    found = {"device": int(ledger.get("local_tokens", 0))}
    found.update({tier: int(count) for tier, count in ledger.get("hit_tokens", {}).items()})
    return {tier: count for tier, count in found.items() if count}


class Steps:
    """Runs against one server at a time; `start` makes a new one over the same cache."""

    def __init__(
        self,
        start: Callable[[], Server],
        inspect: list[str],
        disk: Path,
        report: Report,
        talks: list[Conversation],
        say: Say,
    ) -> None:
        self._start, self._inspect, self._disk = start, inspect, disk
        self._report, self._talks, self._say = report, talks, say
        self._kept: set[tuple[str, bytes]] = set()  # Salt and hash of each block that must stay.
        self.server = start()

    def run(self) -> None:
        for talk in self._talks:
            talk.tokens = self.server.tokenize(talk.text + talk.question)
        self.cold()
        self.own_prefix()
        self.host()
        self.second_turn()
        self.restart("(e) kill -9, new start")
        self.disk()
        self.flipped_byte()

    # Tokens that a repeated prompt can hit: whole blocks, and one token is always computed.
    def _full(self, tokens: int) -> int:
        block = self._report.block_tokens
        return (tokens - 1) // block * block

    def _row(self, row: Row) -> None:
        self._report.add(row)
        hit = " ".join(f"{tier} {count}" for tier, count in row.hit_tokens.items()) or "computed"
        equal = "answers equal" if row.equal else "ANSWER DIFFERS"
        self._say(f"    {row.ttft_ms:7.0f} ms to the first token   {hit}   {equal}")

    def _complete(self, tokens: list[int], count: int, salt: str = "") -> Answer:
        answer = self.server.complete(tokens, count, salt)
        # The last generated token was never run through the model.
        usable = array("I", [*tokens, *answer.tokens[:-1]])
        hashes = _native.hash_sequence(self._report.block_tokens, usable)
        self._kept.update((salt, key) for key in hashes)
        return answer

    def _first(self, talk: Conversation) -> Answer:
        return self._complete(talk.tokens, FIRST_TOKENS)

    def _whole(self, talk: Conversation) -> list[int]:
        return self._complete(talk.tokens, ANSWER_TOKENS).tokens

    def _answer_equal(self, talk: Conversation, first: Answer) -> bool:
        """What the step answered, then the whole answer on the blocks that it brought."""
        is_equal = first.tokens == talk.answer[:FIRST_TOKENS]
        return self._whole(talk) == talk.answer and is_equal

    def cold(self) -> None:
        talk = self._talks[0]
        self._say(f"(a) {talk.name}: {len(talk.tokens)} tokens, cold")
        first = self._first(talk)
        talk.answer = self._whole(talk)
        self._row(
            Row(
                "a",
                "cold",
                "none",
                len(talk.tokens),
                hits(first),
                [first.ttft_s * 1e3],
                equal=first.tokens == talk.answer[:FIRST_TOKENS],
                expected=not hits(first),
            )
        )

    def own_prefix(self) -> None:
        talk = self._talks[0]
        self._say("(b) the same prompt, out of the engine's own prefix cache")
        answers = [self._first(talk) for _ in range(5)]
        full = {"device": self._full(len(talk.tokens))}
        self._row(
            Row(
                "b",
                "engine's own cache",
                "device",
                len(talk.tokens),
                hits(answers[-1]),
                [answer.ttft_s * 1e3 for answer in answers],
                equal=all(self._answer_equal(talk, answer) for answer in answers),
                expected=all(hits(answer) == full for answer in answers),
            )
        )

    def _tier_row(
        self,
        step: str,
        title: str,
        tier: str,
        talks: Sequence[Conversation],
        due: Callable[[int], int],
        note: str = "",
    ) -> None:
        """The first request of each of `talks`: of so many tokens `tier` must serve `due`."""
        samples, equal, expected, hit = [], True, True, {}
        for talk in talks:
            answer = self._first(talk)
            samples.append(answer.ttft_s * 1e3)
            hit = hits(answer)
            expected = expected and hit == {tier: due(len(talk.tokens))}
            equal = self._answer_equal(talk, answer) and equal
        tokens = len(talks[-1].tokens)
        self._row(Row(step, title, tier, tokens, hit, samples, equal, expected, note))

    def host(self) -> None:
        self._say("(c) other conversations overrun the engine's cache …")
        for talk in self._talks[1:]:
            self._first(talk)
            talk.answer = self._whole(talk)
        self._say("    … and each comes back: out of Terrace's host tier")
        self._tier_row("c", "host tier", "host", self._talks, self._full)

    def second_turn(self) -> None:
        """The prompt now holds turn one's answer: blocks that the engine generated."""
        self._say("(d) turn two, hitting blocks that turn one generated")
        talk = self._talks[0]
        whole = talk.tokens + talk.answer
        tokens = whole + self.server.tokenize(conversation.NEXT_QUESTION)
        answer = self._complete(tokens, FIRST_TOKENS)
        hit = hits(answer)
        # The last generated token was never run through the model.
        due = (len(whole) - 1) // self._report.block_tokens * self._report.block_tokens
        beyond = due - self._full(len(talk.tokens))
        again = self._complete(tokens, ANSWER_TOKENS)
        self._say("    … and both turns once more by the engine alone, to compare")
        first_alone = self._complete(talk.tokens, ANSWER_TOKENS, SALT)
        alone = self._complete(tokens, ANSWER_TOKENS, SALT)
        is_alone = not hits(first_alone) and set(hits(alone)) == {"device"}
        self._row(
            Row(
                "d",
                "turn two",
                "host",
                len(tokens),
                hit,
                [answer.ttft_s * 1e3],
                equal=first_alone.tokens == talk.answer
                and again.tokens == alone.tokens
                and answer.tokens == alone.tokens[:FIRST_TOKENS],
                expected=sum(hit.values()) == due and "host" in hit and beyond > 0 and is_alone,
                note=f"{beyond} hit tokens lie beyond turn one's prompt",
            )
        )

    def restart(self, title: str) -> None:
        self._say(f"{title} …")
        self._wait_sealed()
        self.server.kill()
        self.server = self._start()

    def disk(self) -> None:
        self._say("    … out of Terrace's disk tier, from the first request on")
        self._tier_row("e", "disk tier after kill -9", "disk", self._talks, self._full)

    def flipped_byte(self) -> None:
        self._say("(f) one byte of the cache on disk flipped, new start …")
        self._wait_sealed()
        self.server.kill()
        talk = self._talks[0]
        block = self._report.block_tokens
        bad = self._full(len(talk.tokens)) // block // 2
        hashes = _native.hash_sequence(block, array("I", talk.tokens))
        path, offset = damage.find_frame(self._disk, hashes[bad])
        damage.flip_byte(path, offset + damage.PAGE + 12345)
        self.server = self._start()
        answer = self._first(talk)
        hit = hits(answer)
        reason = answer.ledger.get("first_miss")
        self._row(
            Row(
                "f",
                "disk, one byte flipped",
                "disk",
                len(talk.tokens),
                hit,
                [answer.ttft_s * 1e3],
                equal=self._answer_equal(talk, answer),
                expected=hit == {"disk": bad * block} and reason == "corrupt",
                note=f"block {bad} was damaged: a miss, counted as {reason}, and computed again",
            )
        )

    def _sealed_blocks(self) -> int:
        out = subprocess.run(
            [*self._inspect, "inspect", "--json", str(self._disk)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        return sum(
            int(space["sealed"])
            for directory in json.loads(out)
            for owner in directory["owners"]
            for space in owner["namespaces"]
        )

    def _wait_sealed(self) -> None:
        """Disk writes go on in the background; a kill -9 must find all that this demo counts on."""
        began = time.monotonic()
        sealed = 0
        while time.monotonic() - began < SETTLE_LIMIT_S:
            sealed = self._sealed_blocks()
            if sealed >= len(self._kept):
                return
            time.sleep(0.1)
        due = len(self._kept)
        self._say(f"    only {sealed} of {due} blocks are on disk after {SETTLE_LIMIT_S:.0f} s")
