"""Users of a coding agent, as `sessions/agents.jsonl` has them: who asks what, and in what order.

A *round* is one turn of every user, in the order in which the trace's times put them when each
session begins at a moment of its own. What a user says is given as tokens to be added to what was
said before; the model's own answer, of as many tokens as the trace's is worth, belongs to the next
prompt.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SESSIONS = Path(__file__).with_name("sessions") / "agents.jsonl"
CHARACTERS_PER_TOKEN = 4
# Enough for times between tokens.
LEAST_ANSWER, MOST_ANSWER = 8, 64

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Turn:
    at_s: float
    tokens: tuple[int, ...]  # Added to the prompt.
    answer: int  # Tokens.


@dataclass(frozen=True)
class Said:
    """One request of one user."""

    user: int
    turn: Turn


def read(encode: Encode, path: Path = SESSIONS) -> list[list[Turn]]:
    """The sessions' turns. Errors: one that names the file where it is missing or damaged."""
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [[_turn(turn, encode) for turn in row["turns"]] for row in rows]
    except OSError as error:
        raise RuntimeError(f"the sessions are missing ({error}); they belong to the tree") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"{path} is no file of sessions: {error!r}") from error


def _turn(turn: dict[str, object], encode: Encode) -> Turn:
    answer = int(str(turn["answer_chars"])) // CHARACTERS_PER_TOKEN
    return Turn(
        float(str(turn["at_s"])),
        tuple(encode(str(turn["text"]))),
        min(max(answer, LEAST_ANSWER), MOST_ANSWER),
    )


def rounds(
    sessions: Sequence[Sequence[Turn]], users: int, count: int, seed: int = 1
) -> list[list[Said]]:
    """`count` rounds of `users`; the sessions in their order, as far as they are long enough."""
    chosen = [turns for turns in sessions if len(turns) >= count][:users]
    if len(chosen) < users:
        raise ValueError(f"{len(chosen)} sessions have {count} turns; {users} users ask for them")
    rng = random.Random(seed)
    gap = max(turns[count - 1].at_s for turns in chosen) / count
    starts = [rng.uniform(0, gap) for _ in chosen]
    return [
        sorted(
            (Said(user, turns[number]) for user, turns in enumerate(chosen)),
            key=lambda said: starts[said.user] + said.turn.at_s,
        )
        for number in range(count)
    ]


def working_set(rounds_: Sequence[Sequence[Said]]) -> tuple[int, int]:
    """Tokens of all users together halfway through, and of the longest one in the end."""
    lengths: dict[int, int] = {}
    halfway = 0
    for number, said_in_round in enumerate(rounds_):
        for said in said_in_round:
            more = len(said.turn.tokens) + said.turn.answer
            lengths[said.user] = lengths.get(said.user, 0) + more
        if number == len(rounds_) // 2:
            halfway = sum(lengths.values())
    return halfway, max(lengths.values())


def document(sessions: Sequence[Sequence[Turn]], length: int, number: int) -> list[int]:
    """So many tokens of the sessions' text, of which no two numbers begin alike."""
    joined = [token for turns in sessions for turn in turns for token in turn.tokens]
    start = 997 * number % len(joined)
    repeated = (joined[start:] + joined) * (length // len(joined) + 1)
    return [100 + number, *repeated][:length]
