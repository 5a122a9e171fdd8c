"""Which things befall the server, in which order: drawn from the seed alone, whatever happens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

PROCESSES = ("server", "core", "worker")
CALM = {"reset": 2, "reset_all": 1, "stop": 4, "flip": 2, "pause": 2, "readonly": 1}
ROUGH = CALM | {"kill": 5, "kill_one": 4, "lose": 2, "empty": 1}
GAP_S = (4.0, 14.0)
HOLD_S = (1.0, 6.0)


@dataclass(frozen=True)
class Action:
    """`gap_s` before it; `hold_s` during which a process stands still, or a switch is set."""

    number: int
    name: str
    gap_s: float
    hold_s: float
    process: str
    flips: int  # Seed of the bytes that are flipped.

    def text(self) -> str:
        process = f" {self.process}" if self.name in ("stop", "kill_one") else ""
        hold = f" {self.hold_s:.1f} s" if self.name in ("stop", "pause", "readonly") else ""
        return f"#{self.number} {self.name}{process}{hold}"

    def row(self) -> dict[str, Any]:
        return asdict(self)


def drawn(seed: int, weights: dict[str, int]) -> Iterator[Action]:
    """Endless; each name once first, in random order, so that a short run has them all."""
    rng = random.Random(f"{seed}/{','.join(weights)}")
    first = sorted(weights)
    rng.shuffle(first)
    number = 0
    while True:
        names = first if number < len(first) else rng.choices(list(weights), list(weights.values()))
        name = names[number] if number < len(first) else names[0]
        yield Action(
            number,
            name,
            rng.uniform(*GAP_S),
            rng.uniform(*HOLD_S),
            rng.choice(PROCESSES),
            rng.randrange(1 << 30),
        )
        number += 1
