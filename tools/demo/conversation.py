"""The conversations of the demo: long, deterministic logbooks; nothing has to be shipped."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

PORTS = "Bergen Cadiz Lerwick Oporto Reykjavik Trieste Valletta Gdansk Brest Cork".split()
GOODS = "barley oranges timber salt wool copper cork tin olives paper".split()
CREW = "Ada Bruno Carla Dmitri Elin Farid Greta Hugo Ines Jonas".split()
WEATHER = [
    "a steady wind from the west",
    "fog until noon",
    "a heavy swell",
    "clear skies",
    "rain all night",
    "a falling barometer",
]


@dataclass
class Conversation:
    """One user's conversation: the prompt's text and, once known, the token ids of all turns."""

    name: str
    text: str
    question: str
    tokens: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)


def _logbook(seed: int, days: int) -> str:
    rng = random.Random(seed)
    lines = []
    for day in range(1, days + 1):
        lines.append(
            f"Day {day}: {rng.choice(CREW)} kept the watch with {rng.choice(WEATHER)}; "
            f"we left {rng.choice(PORTS)} carrying {rng.randint(10, 90)} crates of "
            f"{rng.choice(GOODS)} and {rng.randint(2, 9)} passengers."
        )
    return "\n".join(lines)


def make(count: int, days: int) -> list[Conversation]:
    """`count` conversations that share nothing beyond a few words; `days` lines each."""
    made = []
    for number in range(count):
        ship = ["Aurora", "Borealis", "Cassini", "Dorado", "Esperanza"][number % 5]
        made.append(
            Conversation(
                name=ship,
                text=f"<|im_start|>user\nThis is the logbook of the ship {ship}.\n"
                + _logbook(1000 + number, days),
                question="\n\nCopy the line of Day 1 exactly as it stands.<|im_end|>\n"
                "<|im_start|>assistant\nDay 1:",
            )
        )
    return made


NEXT_QUESTION = (
    "<|im_end|>\n<|im_start|>user\nNow copy the line of Day 2 exactly.<|im_end|>\n"
    "<|im_start|>assistant\nDay 2:"
)
