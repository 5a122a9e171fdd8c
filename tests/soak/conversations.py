"""What users say: conversations whose prompts contain all earlier turns, over shared beginnings.

Pure.  The same for every run and every seed, so that answers of the engine alone can be kept.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

CONVERSATIONS = 20
TURNS = 5
ANSWER_TOKENS = 28
BEGINNINGS = 4
LIBRARY_SEED = 20
FIRST_WORDS, TURN_WORDS = 75, 24

WORDS = (
    "a the old new red small quiet tall careful early late river mountain keeper baker train "
    "letter garden clock window sailor teacher bridge market winter summer morning evening reads "
    "writes finds keeps opens closes paints counts visits forgets remembers beside behind under "
    "over near before after because while although whether and but then slowly quickly never again "
    "why how where who said asked wanted hoped believed bread water paper stone light music road"
).split()

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Turn:
    """One request: its prompt, the answer of the engine alone, and whether that repeats itself."""

    conversation: int
    number: int
    prompt: list[int]
    answer: list[int]
    is_steady: bool

    @property
    def name(self) -> str:
        return f"conversation {self.conversation}, turn {self.number}"


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def beginning(conversation: int) -> str:
    """The shared beginning of a conversation: what a system prompt is."""
    number = conversation % BEGINNINGS
    rng = random.Random(f"{LIBRARY_SEED}/beginning/{number}")
    return f"You are assistant number {number}. Keep this in mind: {_words(rng, FIRST_WORDS)}.\n"


def said(conversation: int, turn: int) -> str:
    rng = random.Random(f"{LIBRARY_SEED}/turn/{conversation}/{turn}")
    return f"\nUser: tell me {_words(rng, TURN_WORDS)}?\nAssistant:"


def prompt(encode: Encode, conversation: int, answers: list[list[int]]) -> list[int]:
    """The tokens of the next turn, after so many answers."""
    tokens = encode(beginning(conversation))
    for turn in range(len(answers) + 1):
        tokens = tokens + encode(said(conversation, turn))
        if turn < len(answers):
            tokens = tokens + answers[turn]
    return tokens
