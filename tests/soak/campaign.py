"""The soak itself: lets users load a server, lets things befall it, and looks on all the time."""

from __future__ import annotations

import itertools
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.soak import actions, judge
from tests.soak.actions import Action
from tests.soak.clock import Clock, RealClock
from tests.soak.conversations import Turn
from tests.soak.crew import Crew
from tests.soak.judge import Facts, Finding, Limits
from tests.soak.place import Place, Refused
from tests.soak.watch import Sample

IDLE_POLL_S = 0.2
MOST_FINDINGS = 20


@dataclass(frozen=True)
class Options:
    seed: int
    seconds: float
    calm_share: float = 0.6  # Of the time: one server lives through it.
    users: int = 6
    idle_every_s: float = 40.0
    idle_limit_s: float = 60.0
    sample_every_s: float = 1.0
    say_every_s: float = 30.0
    think_s: float = 0.4
    has_actions: bool = True
    longest: int = 768  # Tokens of a request.
    tiers: dict[str, int] = field(default_factory=dict)  # Slots, for what must be evicted.
    limits: Limits = field(default_factory=Limits)


class Campaign:
    """One run; `run` returns its report, whose `findings` are empty when all was well."""

    def __init__(
        self,
        place: Place,
        turns: Sequence[Turn],
        options: Options,
        say: Callable[[str], None],
        clock: Clock | None = None,
    ) -> None:
        self.place = place
        self.options = options
        self.crew = Crew(place, turns, options.users, str(options.seed), options.think_s)
        self.tally = self.crew.tally
        self._say = say
        self._clock = clock or RealClock()
        self._samples: list[Sample] = []
        self._totals: Counter[str] = Counter()  # Counters of servers that are gone.
        self._metrics: dict[str, float] = {}  # Of the present one, as last read.
        self._preemptions = 0.0
        self._slots: dict[str, int] = {}
        self._read = 0  # Characters of the present server's output.
        self._done: list[dict[str, Any]] = []
        self._set_aside = sum(not turn.is_steady for turn in turns)
        self._controls = len(turns)

    # ---- Its course -----------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        began = self._clock.now()
        self.place.start()
        self._fresh(flips=0)
        try:
            self.crew.start()
            self._go()
        except KeyboardInterrupt:
            # The server first: users wait for its answers.
            self.crew.turnstile.take_away()
            self.place.close()
            raise
        except (Refused, OSError, AssertionError) as error:
            self._find(Finding("harness", repr(error)))
        finally:
            if not self.crew.end():
                self._find(Finding("requests hang", "a user did not come back"))
        return self._report(began)

    def _go(self) -> None:
        now = self._clock.now()
        end = now + self.options.seconds
        calm_end = now + self.options.seconds * self.options.calm_share
        next_idle, next_say = now + self.options.idle_every_s, now + self.options.say_every_s
        calm = actions.drawn(self.options.seed, actions.CALM)
        rough = actions.drawn(self.options.seed, actions.ROUGH)
        action, next_action = self._draw(calm)
        while (now := self._clock.now()) < end and len(self.tally.findings) < MOST_FINDINGS:
            if self.crew.over.is_set() or not self.place.is_alive():
                self._find(Finding("server ended", judge.cause(self.place.output())))
                return
            if now >= next_idle:
                self._idle_moment()
                next_idle = self._clock.now() + self.options.idle_every_s
            if action is not None and now >= next_action:
                self._act(action)
                action, next_action = self._draw(calm if now < calm_end else rough)
            if now >= next_say:
                self._progress(end)
                next_say += self.options.say_every_s
            self._pass(self.options.sample_every_s)
        self._idle_moment()

    def _draw(self, source: Iterator[Action]) -> tuple[Action | None, float]:
        action = next(source) if self.options.has_actions else None
        return action, self._clock.now() + (action.gap_s if action else 0.0)

    def _pass(self, seconds: float) -> None:
        """Time goes by; resources are read."""
        end = self._clock.now() + seconds
        while True:
            self._samples += self.place.samples(is_idle=False)
            left = end - self._clock.now()
            if left <= 0:
                return
            self._clock.pause(min(left, self.options.sample_every_s))

    def _find(self, *found: Finding) -> None:
        self.tally.find(found)

    # ---- Moments without a request --------------------------------------------------------------

    def _idle_moment(self) -> None:
        crew, options = self.crew, self.options
        if not crew.turnstile.close(options.idle_limit_s * 3):
            self._find(Finding("requests hang", "requests were under way for too long"))
        try:
            status = self._rest()
            self._find(*judge.health(status, crew.facts))
            slots = judge.capacity(status)
            for tier, count in self._slots.items():
                if tier in slots and slots[tier] != count:
                    self._find(Finding("slots", f"{tier} had {count}, has {slots[tier]}"))
            self._slots |= slots
            self._read_metrics()
            self._samples += self.place.samples(is_idle=True)
            self._read_output()
            self.tally.add("idle_moments")
        finally:
            crew.turnstile.open()

    def _rest(self) -> dict[str, Any]:
        """Waits until nothing is under way, and finds what stays."""
        deadline = self._clock.now() + self.options.idle_limit_s
        while True:
            status = self.place.status()
            found = judge.unrest(status, self.place.metrics())
            if not found:
                return status
            if self._clock.now() >= deadline:
                self._find(*found)
                return status
            self._clock.pause(IDLE_POLL_S)

    def _read_metrics(self) -> None:
        preemptions = self.place.engine_metric("vllm:num_preemptions_total")
        metrics = self.place.metrics()
        facts = self.crew.facts
        self._find(*judge.counters(metrics, self._metrics, facts, preemptions))
        self._metrics, self._preemptions = metrics, preemptions

    def _read_output(self) -> None:
        text = self.place.output()
        self._find(*judge.output(text[self._read :]))
        self._read = len(text)

    # ---- What befalls the server ----------------------------------------------------------------

    def _act(self, action: Action) -> None:
        began = self._clock.now()
        getattr(self, f"_{action.name}")(action)
        self._done.append(action.row() | {"took_s": round(self._clock.now() - began, 1)})
        self._totals[f"action {action.name}"] += 1

    def _reset(self, _: Action) -> None:
        self.place.reset(is_external=False)

    def _reset_all(self, _: Action) -> None:
        self.crew.facts.was_reset = True
        self.place.reset(is_external=True)

    def _stop(self, action: Action) -> None:
        self.place.signal(action.process, signal.SIGSTOP)
        try:
            self._pass(action.hold_s)
        finally:
            self.place.signal(action.process, signal.SIGCONT)

    def _flip(self, action: Action) -> None:
        self.crew.facts.flips += 1  # Before: somebody may read it at once.
        self.place.flip(random.Random(action.flips))

    def _pause(self, action: Action) -> None:
        self._switched("pause", "paused", action)

    def _readonly(self, action: Action) -> None:
        self._switched("readonly", "readonly", action)

    def _switched(self, verb: str, mode: str, action: Action) -> None:
        self.place.switch(verb)
        found = self.place.status()["mode"]
        if found != mode:
            self._find(Finding("mode", f"after terrace {verb} it is {found}"))
        self._pass(action.hold_s)
        self.place.switch("resume")

    def _kill(self, _: Action) -> None:
        self._restart("all", is_emptied=False)

    def _kill_one(self, action: Action) -> None:
        self._restart(action.process, is_emptied=False)

    def _empty(self, _: Action) -> None:
        self._restart("all", is_emptied=True)

    def _lose(self, action: Action) -> None:
        """Goes on without the directory for a while, looks whether all is well, starts anew."""
        self.crew.facts.is_lost = True
        self.place.lose_directory()
        self._pass(action.gap_s)
        self._idle_moment()
        self._restart("all", is_emptied=True)

    def _restart(self, target: str, *, is_emptied: bool) -> None:
        crew = self.crew
        status = self.place.status()
        sealed = sum(t["slots"]["sealed"] for t in status["tiers"] if t["tier"] == "disk")
        facts = crew.facts
        self._read_metrics()
        crew.turnstile.take_away()
        if not self.place.kill(target):
            self.tally.add("outlived")
        if not crew.turnstile.close(self.options.idle_limit_s):
            self._find(Finding("requests hang", "a request outlived its server"))
        if is_emptied:
            self.place.lose_directory()
        self.place.start()
        self._fresh(flips=0 if is_emptied else facts.flips)
        if not is_emptied:
            status = self._rest()
            self._metrics = self.place.metrics()
            self._find(*judge.restarted(self._metrics, sealed, facts))
        crew.turnstile.open()

    def _fresh(self, flips: int) -> None:
        """Another server: its counters and its output begin at nothing."""
        self._keep_totals()
        self.crew.facts = Facts(flips=flips, longest=self.options.longest)
        self._metrics, self._preemptions, self._slots, self._read = {}, 0.0, {}, 0
        self.tally.add("starts")

    # ---- What it says ---------------------------------------------------------------------------

    def _keep_totals(self) -> None:
        for name, value in self._metrics.items():
            if name.partition("{")[0].endswith("_total"):
                self._totals[name] += int(value)
        self._totals["preemptions"] += int(self._preemptions)

    def _progress(self, end: float) -> None:
        counts, hits = self.tally.counts, self.tally.hit_tokens
        prompt = max(1, counts["prompt_tokens"])
        share = ", ".join(f"{tier} {100 * hits[tier] / prompt:.0f} %" for tier in sorted(hits))
        last = self._done[-1]["name"] if self._done else "none"
        self._say(
            f"{end - self._clock.now():5.0f} s left: {counts['answers']} answers equal to their "
            f"control, {counts['given_up']} given up, {counts['cut_off']} cut off; prompts hit "
            f"{share or 'nothing'}; {len(self._done)} actions (last: {last}); "
            f"{len(self.tally.findings)} findings"
        )

    def _coverage(self) -> dict[str, float]:
        totals, hits = self._totals, self.tally.hit_tokens
        found: dict[str, float] = {f"hits from {tier}": hits[tier] for tier in self.options.tiers}
        moved = 'terrace_transfer_blocks_total{op="offload",source='
        for source, target in itertools.pairwise(["device", *self.options.tiers]):
            stored = totals[f'{moved}"{source}",target="{target}"}}']
            found[f"evictions in {target}"] = max(0, stored - self.options.tiers[target])
        found["preemptions"] = totals["preemptions"]
        found |= {name: self.tally.counts[name] for name in ("answers", "given_up")}
        if self.options.has_actions:
            found |= {f"action {name}": totals[f"action {name}"] for name in actions.ROUGH}
        return found

    def _report(self, began: float) -> dict[str, Any]:
        self._keep_totals()
        growths = judge.growths(self._samples, self.options.limits)
        self._find(*judge.flat(growths))
        coverage = self._coverage()
        if self.options.tiers:
            self._find(*judge.covered(coverage))
        return {
            "campaign": "soak",
            "seed": self.options.seed,
            "passed": not self.tally.findings,
            "findings": self.tally.findings,
            "seconds": round(self._clock.now() - began),
            "counts": dict(self.tally.counts),
            "controls": self._controls,
            "controls_set_aside": self._set_aside,
            "hit_tokens": dict(self.tally.hit_tokens),
            "coverage": coverage,
            "growths": growths,
            "totals": {name: count for name, count in sorted(self._totals.items()) if count},
            "actions": self._done,
        }
