"""A server that is none, for the campaigns' own judgement: honest, or lying in one way."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Sequence
from typing import Any

from tests.soak.conversations import ANSWER_TOKENS, Turn
from tests.soak.place import Answer, Asked, Refused
from tests.soak.watch import Sample

PROCESSES = ("server", "core", "worker")
PROGRESS_LIMIT_S = 20.0
MIB = 1 << 20


def turns(conversations: int = 3, count: int = 4) -> list[Turn]:
    rng = random.Random(1)
    return [
        Turn(
            conversation,
            number,
            [rng.randrange(1000) for _ in range(40 * (number + 1))],
            [rng.randrange(1000) for _ in range(ANSWER_TOKENS)],
            is_steady=True,
        )
        for conversation in range(conversations)
        for number in range(count)
    ]


class StandInClock:
    """Time that passes when somebody waits for it."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def pause(self, seconds: float) -> None:
        self._now += max(seconds, 0.001)


class StandIn:
    """`lie` names what is wrong with it; none of them shows before something was asked."""

    def __init__(self, known: Sequence[Turn], clock: StandInClock, lie: str = "") -> None:
        self.lie = lie
        self.clock = clock
        self.mode = "on"
        self.did: list[str] = []
        self._answers = {tuple(turn.prompt): turn.answer for turn in known}
        self._change = threading.Condition()
        self._asked = 0
        self._seen = 0
        self._starts = 0
        self._is_up = False
        self._is_lost = False
        self._has_disk = False
        self._flips = 0
        self._looked = 0
        self._began = 0.0

    # ---- Life -----------------------------------------------------------------------------------

    def start(self) -> None:
        self._starts += 1
        self._is_up, self._is_lost, self.mode = True, False, "on"
        self._began = self.clock.now()
        self._looked = 0

    def kill(self, target: str = "all") -> bool:
        self.did.append(f"kill {target}")
        self._is_up = False
        return True

    def close(self) -> None:
        self._is_up = False

    def is_alive(self) -> bool:
        return self._is_up and not (self.lie == "dies" and self._asked > 3)

    def output(self) -> str:
        return "Traceback (most recent call last):" if self.lie == "traceback" else "INFO: well"

    # ---- Requests -------------------------------------------------------------------------------

    def _take(self, prompt: list[int]) -> list[int]:
        with self._change:
            self._asked += 1
            self._change.notify_all()
            if not self.is_alive():
                raise Refused("nobody listens")
            if self.lie == "refuses" and self._asked == 5:
                raise Refused("500")
        answer = list(self._answers[tuple(prompt)])
        if self.lie == "wrong token" and self._asked > 5:
            answer[0] += 1
        return answer

    def ask(self, asked: Asked) -> Answer:
        answer = self._take(asked.prompt)
        if asked.is_streamed:
            return Answer([answer])
        count = 1 if self.lie == "one answer of several" else asked.count
        own: dict[str, Any] = {
            "prompt_tokens": len(asked.prompt),
            "hit_tokens": {"host": 32, "disk": 32},
        }
        if self.lie == "no disk":
            own["hit_tokens"] = {"host": 32}
        if self.lie == "wrong ledger":
            own["prompt_tokens"] += 1
        return Answer([answer] * count, own if self.lie != "no ledger" else None)

    def stream(self, asked: Asked, most: int | None) -> list[int]:
        answer = self._take(asked.prompt)
        if self.lie == "wrong piece" and most:
            answer[0] += 1
        return answer[:most]

    # ---- What befalls it ------------------------------------------------------------------------

    def signal(self, process: str, number: signal.Signals) -> None:
        self.did.append(f"{number.name} {process}")

    def lose_directory(self) -> None:
        self._is_lost, self._has_disk, self._flips = True, False, 0

    def flip(self, rng: random.Random) -> int:
        self._flips += 1
        return rng.randrange(1, 9)

    def switch(self, verb: str) -> None:
        wanted = {"pause": "paused", "readonly": "readonly", "resume": "on"}[verb]
        self.mode = "on" if self.lie == "no switch" else wanted

    def reset(self, *, is_external: bool) -> bool:
        self.did.append(f"reset {is_external}")
        return True

    # ---- Looking --------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        self._looked += 1
        slots = dict.fromkeys(("free", "reserved", "filling", "sealed", "evicting"), 0)
        slots |= {"quarantined": 0, "pinned": 0, "free": 10, "sealed": 20}
        self._has_disk = True
        if self.lie in slots:
            slots[self.lie] = 1
        if self.lie == "slots vanish":
            slots["free"] -= self._looked
        problems = ["path=/disk state=lost: its files"] if self._is_lost else []
        if self.lie == "red" or (self.lie == "red beside a loss" and self._is_lost):
            problems.append("disk: EIO")
        waiting = 3 if self.lie == "queue" else 0
        return {
            "health": "red" if problems else "green",
            "problems": problems,
            "ready": True,
            "mode": self.mode,
            "active_requests": 1 if self.lie == "active" else 0,
            "tiers": [{"tier": tier, "state": "open", "slots": slots} for tier in ("host", "disk")],
            "queues": [{"name": "disk_write", "waiting": waiting}],
        }

    def metrics(self) -> dict[str, float]:
        hits = 0.0
        found = {"terrace_disk_adopted_blocks_total": 20.0 if self._has_disk else 0.0}
        if self.lie == "forgets":
            found["terrace_disk_adopted_blocks_total"] = 0.0
        if self.lie == "falls":
            found["terrace_requests_total"] = 1000.0 - self._looked
        if self.lie == "hits more than it may":
            hits = 1e9
        found['terrace_hit_tokens_total{tier="host"}'] = hits
        found["terrace_match_tokens_total"] = hits if self.lie != "hits unasked" else 0.0
        if self.lie == "hits unasked":
            found['terrace_hit_tokens_total{tier="host"}'] = 32.0
        corrupt = 1.0 if self._flips or self.lie == "corrupt" else 0.0
        found['terrace_corrupt_blocks_total{tier="disk"}'] = corrupt
        found["terrace_poisoned"] = float(self.lie == "poisoned")
        found["terrace_waiting_pins"] = float(self.lie == "waiting pin")
        found["terrace_disk_damaged_records_total"] = float(self.lie == "damaged record")
        return found

    def engine_metric(self, name: str) -> float:
        return float(len(name) == 0)

    def samples(self, *, is_idle: bool) -> Sequence[Sample]:
        """While requests may pass it waits for one, so that time does not outrun the users."""
        with self._change:
            if not is_idle and self.is_alive():
                self._change.wait_for(lambda: self._asked > self._seen, PROGRESS_LIMIT_S)
                self._seen = self._asked
        now = self.clock.now()
        life = now - self._began
        anonymous, shared, descriptors, threads = 400.0 * MIB, 50.0 * MIB, 60.0, 20.0
        anonymous += MIB * (life * 10 if self.lie == "anonymous" else int(now) % 3)
        shared += MIB * life if self.lie == "shared" else 0
        descriptors += life / 20 if self.lie == "descriptors" else 0
        threads += life / 20 if self.lie == "threads" else 0
        return [
            Sample(
                now,
                process,
                self._starts * 10 + number,
                int(anonymous),
                int(shared),
                int(descriptors),
                int(threads),
                is_idle,
            )
            for number, process in enumerate(PROCESSES)
        ]
