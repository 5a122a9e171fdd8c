"""The steps of `./dev demo --s3`: two engines, two host tiers, one bucket below both."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from demo import steps
from demo.conversation import Conversation
from demo.report import Report, Row
from demo.server import Server
from demo.steps import Say, hits

STEPS = "abcde"
PACK_BLOCKS = 16  # object.pack_blocks as it is by default.


class SharedSteps(steps.Steps):
    """`server` is the first engine until the second one has started; `first` goes on beside it."""

    def __init__(
        self,
        start: Callable[[], Server],
        packs: Callable[[], int],
        end_store: Callable[[], None],
        report: Report,
        talks: list[Conversation],
        say: Say,
        pack_blocks: int = PACK_BLOCKS,
    ) -> None:
        self._packs, self._end_store = packs, end_store
        self._pack_tokens = pack_blocks * report.block_tokens
        super().__init__(start, [], Path(), report, talks, say)
        self.first = self.server

    def run(self) -> None:
        for talk in self._talks:
            talk.tokens = self.server.tokenize(talk.text + talk.question)
        self.cold()
        self.own_prefix()
        self.fill_bucket()
        self.server = self._start()
        self.second_engine()
        self.its_host()
        self.without_store()

    def _packed(self, tokens: int) -> int:
        """Tokens that whole packs hold of a prompt: what another engine can be served."""
        return self._full(tokens) // self._pack_tokens * self._pack_tokens

    def fill_bucket(self) -> None:
        self._say("    the first engine computes the other conversations, too …")
        for talk in self._talks[1:]:
            self._first(talk)
            talk.answer = self._whole(talk)
        # The last generated token was never run through the model.
        lengths = [len(talk.tokens) + len(talk.answer) - 1 for talk in self._talks]
        due = sum(length // self._pack_tokens for length in lengths)
        began = time.monotonic()
        while (there := self._packs()) < due and time.monotonic() - began < steps.SETTLE_LIMIT_S:
            time.sleep(0.1)
        self._say(f"    … and {there} of {due} packs of {self._pack_tokens} tokens are in S3")

    def second_engine(self) -> None:
        """All conversations but the last, which is kept for when the server is gone."""
        self._say("(c) a second engine with an empty host tier: out of S3, from its first request")
        computed = "what the first engine computed; the rest of a pack's length is computed here"
        title = "second engine, out of S3"
        self._tier_row("c", title, "object", self._talks[:-1], self._packed, computed)

    def its_host(self) -> None:
        self._say("(d) the same once more: out of the second engine's own host tier")
        title = "second engine, its host tier"
        self._tier_row("d", title, "host", self._talks[:-1], self._full)

    def without_store(self) -> None:
        self._say("(e) the S3 server killed: the second engine computes, and goes on")
        self._end_store()
        talk = self._talks[-1]
        answer = self._first(talk)
        self._row(
            Row(
                "e",
                "S3 server killed",
                "none",
                len(talk.tokens),
                hits(answer),
                [answer.ttft_s * 1e3],
                equal=self._answer_equal(talk, answer),
                expected=not hits(answer),
                note="a store that is gone costs hits, no answers",
            )
        )
