"""The users: threads that hold conversations, give up, and compare answers with their control."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.soak import judge
from tests.soak.conversations import ANSWER_TOKENS, Turn
from tests.soak.judge import Facts, Finding
from tests.soak.place import Asked, Place, Refused

SALTS = ("red", "blue")
JOIN_LIMIT_S = 200.0  # Longer than a request may take.


class Tally:
    """What happened, from all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.hit_tokens: Counter[str] = Counter()
        self.findings: list[dict[str, Any]] = []

    def add(self, name: str, count: int = 1) -> None:
        with self._lock:
            self.counts[name] += count

    def add_ledger(self, ledger: dict[str, Any]) -> None:
        with self._lock:
            self.hit_tokens.update(ledger["hit_tokens"])
            self.counts["prompt_tokens"] += ledger["prompt_tokens"]

    def find(self, found: Sequence[Finding]) -> None:
        now = round(time.monotonic() - self._began, 1)
        with self._lock:
            self.findings += [
                {"what": one.what, "detail": one.detail, "after_s": now} | one.more for one in found
            ]


class Turnstile:
    """Lets requests pass, or not; knows how many are under way."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._is_open = True
        self._has_ended = False
        self._inside = 0
        self.outages = 0  # How often the server was taken from those inside.

    def enter(self) -> int | None:
        """Waits while it is closed; how many outages there were by then, None when it is over.

        Counted here: whoever is inside when the server is taken away has the older number.
        """
        with self._change:
            self._change.wait_for(lambda: self._is_open or self._has_ended)
            if self._has_ended:
                return None
            self._inside += 1
            return self.outages

    def leave(self) -> None:
        with self._change:
            self._inside -= 1
            self._change.notify_all()

    def close(self, limit_s: float) -> bool:
        """True when nobody is inside any more."""
        with self._change:
            self._is_open = False
            return self._change.wait_for(lambda: self._inside == 0, limit_s)

    def take_away(self) -> None:
        """Closed, and whoever is inside will see the server go."""
        with self._change:
            self._is_open = False
            self.outages += 1

    def open(self) -> None:
        with self._change:
            self._is_open = True
            self._change.notify_all()

    def end(self) -> None:
        with self._change:
            self._has_ended = True
            self._change.notify_all()


class Crew:
    """So many users; `start` and `end`."""

    def __init__(
        self, place: Place, turns: Sequence[Turn], users: int, seed: str, think_s: float = 0.4
    ) -> None:
        self.place = place
        self.tally = Tally()
        self.turnstile = Turnstile()
        self.facts = Facts()
        self._think_s = think_s
        self._conversations: dict[int, list[Turn]] = {}
        for turn in turns:
            self._conversations.setdefault(turn.conversation, []).append(turn)
        self.over = threading.Event()
        self._threads = [
            threading.Thread(target=self._live, args=(random.Random(f"{seed}/user/{number}"),))
            for number in range(users)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> bool:
        """False when a user does not come back."""
        self.over.set()
        self.turnstile.end()
        for thread in self._threads:
            if thread.ident is not None:  # Else an interrupt came before it was started.
                thread.join(JOIN_LIMIT_S)
        return not any(thread.is_alive() for thread in self._threads)

    def _live(self, rng: random.Random) -> None:
        while not self.over.is_set():
            conversation = self._conversations[rng.choice(sorted(self._conversations))]
            salt = rng.choice(SALTS) if rng.random() < 0.3 else ""
            for turn in conversation:
                outages = self.turnstile.enter()
                if outages is None:
                    return
                try:
                    self._request(rng, turn, salt, outages)
                except Exception as error:  # A thread that ends unseen would look like rest.
                    self.tally.find([Finding("harness", f"{turn.name}: {error!r}")])
                finally:
                    self.turnstile.leave()
                self.over.wait(rng.random() * self._think_s)

    def _request(self, rng: random.Random, turn: Turn, salt: str, outages: int) -> None:
        asked = Asked(turn.prompt, salt)
        kind = rng.random()
        if kind < 0.15:
            asked.is_streamed = True
        elif kind < 0.30:
            asked.is_streamed = True
            self._give_up(asked, turn, rng.randrange(ANSWER_TOKENS // 2), outages)
            return
        elif kind < 0.38:
            asked.count = 2
        elif kind < 0.46:
            asked.has_prompt_logprobs = True
        elif kind < 0.52:
            asked.mode = rng.choice(("off", "readonly"))
        self.ask(asked, turn, outages)

    def _sent(self, asked: Asked, turn: Turn) -> None:
        self.facts.asked_tokens += len(turn.prompt) * asked.count

    def _refused(self, error: Refused, turn: Turn, outages: int) -> None:
        if self.turnstile.outages != outages:
            self.tally.add("cut_off")
            return
        self.tally.find([Finding("no answer", f"{turn.name}: {error}")])
        if not self.place.is_alive():
            self.over.set()

    def _give_up(self, asked: Asked, turn: Turn, most: int, outages: int) -> None:
        self._sent(asked, turn)
        try:
            tokens = self.place.stream(asked, most)
        except Refused as error:
            self._refused(error, turn, outages)
            return
        self.tally.add("given_up")
        if turn.is_steady and tokens != turn.answer[: len(tokens)]:
            more = {"expected": turn.answer, "given": [tokens], "prompt": turn.prompt}
            self.tally.find([Finding("wrong answer", f"{turn.name}, given up", more)])

    def ask(self, asked: Asked, turn: Turn, outages: int = 0) -> dict[str, Any] | None:
        """One request, judged; its ledger. `outages`: how many there had been when it began."""
        self._sent(asked, turn)
        try:
            answer = self.place.ask(asked)
        except Refused as error:
            self._refused(error, turn, outages)
            return None
        if self.turnstile.outages != outages and asked.is_streamed:
            self.tally.add("cut_off")  # A stream that ends early looks like one that was ended.
            return None
        found = judge.answers(turn, answer.answers, asked.count)
        if not asked.is_streamed:
            found += judge.ledger(turn, answer.ledger)
        self.tally.find(found)
        self.tally.add("answers" if turn.is_steady else "answers_set_aside")
        if answer.ledger is not None:
            self.tally.add_ledger(answer.ledger)
        return answer.ledger
