"""Second implementation of the payload of learned.meta (disk.md), from the document alone.

Standard library only; `reference.py` writes and compares the vectors.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field, replace

CELLS = 46
TICKS = 64  # Of a second.
TURN, GAP, SIZE, ENDING, ANSWER, PROMISE = range(1, 7)
Path = tuple[tuple[int, int], ...]  # Kind and value of each class below the first.

COLUMNS = (
    "by the first one. A class is its path (kind.value, one below the other; all = the first one),"
    " its returns and those that had not returned (cell=number), divided by |.\n"
    "# payload: classes in the order of the list, divided by ;, bytes\n"
    "# refused: why, bytes\n"
    "# history: requests, one after the other, divided by ;: conversation, tick of arrival (64 a second), blocks"
    " of the prompt, tick of the end, tokens of the answer, ending, promise (0 = none), each"
    " conversation's prompts beginning alike; classes with a number that is not 0, by their paths"
)


# ---- Bytes ---------------------------------------------------------------------------------------


@dataclass
class Class:
    path: Path
    returns: dict[int, float] = field(default_factory=dict)
    not_yet: dict[int, float] = field(default_factory=dict)

    def text(self) -> str:
        path = "/".join(f"{kind}.{value}" for kind, value in self.path) or "all"
        numbers = [
            ",".join(f"{cell}={value:.10g}" for cell, value in sorted(counts.items()))
            for counts in (self.returns, self.not_yet)
        ]
        return "|".join([path, *numbers])


def encode_class(parent: int, name: int, *counts: dict[int, float]) -> bytes:
    numbers = [each.get(cell, 0.0) for each in counts for cell in range(CELLS)]
    return struct.pack(f"<II{2 * CELLS}f", parent, name, *numbers)


def encode(classes: list[Class]) -> bytes:
    out = b"TERTRN02" + struct.pack("<I", len(classes))
    places = {one.path: place for place, one in enumerate(classes)}
    for one in classes:
        kind, value = one.path[-1] if one.path else (0, 0)
        parent = places[one.path[:-1]]
        out += encode_class(parent, 256 * kind + value, one.returns, one.not_yet)
    return out


# ---- What is counted -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    conversation: int
    arrives: int
    blocks: int
    ends: int
    answer: int
    ending: int = 0
    promise: int = 0

    def text(self) -> str:
        numbers = (self.conversation, self.arrives, self.blocks, self.ends, self.answer)
        return ",".join(map(str, (*numbers, self.ending, self.promise)))


@dataclass
class Ended:
    at: int
    path: Path
    turn: int
    cell: int = 0  # The next one that it comes to.
    has_returned: bool = False


def log4(number: int) -> int:
    return (number.bit_length() - 1) // 2


def cell_of(age: int) -> int:
    return min(max((age * age).bit_length() - 4, 0), CELLS - 1)


def first_tick(cell: int) -> int:
    """The least whole number of ticks that is not before the cell."""
    return math.isqrt(2 ** (cell + 3) - 1) + 1 if cell > 0 else 0


def path_of(one: Request, before: Ended | None) -> Path:
    gap = 0 if before is None else min(6, 1 + log4((one.arrives - before.at) // TICKS + 1))
    turn = 1 if before is None else before.turn + 1
    answer = 0
    if one.answer >= 8:
        answer = min(5, ((one.answer**2).bit_length() - 1) // 3 - 1)
    path = ((TURN, min(5, turn)), (GAP, gap), (SIZE, min(6, log4(one.blocks + 1))),
            (ENDING, one.ending), (ANSWER, answer))
    return ((PROMISE, one.promise), *path) if one.promise else path


def count(history: list[Request]) -> list[Class]:
    classes: dict[Path, Class] = {}
    ended: list[Ended] = []
    last: dict[int, Ended] = {}

    def add(path: Path, cell: int, *, is_return: bool) -> None:
        for length in range(len(path) + 1):
            one = classes.setdefault(path[:length], Class(path[:length]))
            counts = one.returns if is_return else one.not_yet
            counts[cell] = counts.get(cell, 0) + 1

    def advance(now: int) -> None:
        for one in ended:
            while one.cell < CELLS and now - one.at >= first_tick(one.cell):
                if not one.has_returned:
                    add(one.path, one.cell, is_return=False)
                one.cell += 1

    for request in history:
        advance(request.arrives)
        before = last.get(request.conversation)
        if before is not None:
            add(before.path, cell_of(request.arrives - before.at), is_return=True)
            before.has_returned = True
        advance(request.ends)
        turn = 1 if before is None else before.turn + 1
        last[request.conversation] = Ended(request.ends, path_of(request, before), turn)
        ended.append(last[request.conversation])
    return [classes[path] for path in sorted(classes)]


# ---- vectors -------------------------------------------------------------------------------------


def payload_vectors() -> list[list[str]]:
    first = Class((), {0: 1.0, 7: 0.75, 45: 1e9}, {0: 2.5, 1: 3.0, 44: 0.0009765625, 45: 1.0})
    turn = Class(((TURN, 1),), {2: 1.0}, {2: 2.0, 3: 2.0})
    lists = [
        [first],
        # A promise behind another class, and a child before its uncle.
        [first, turn, Class((*turn.path, (GAP, 0)), {}, {3: 2.0}),
         Class(((PROMISE, 9),), {45: 4.0}, {}), Class(((PROMISE, 9), (TURN, 5)), {1: 0.5}, {})],
        # A kind that nobody knows yet.
        [first, Class(((0xFFFFFF, 0xFF),), {5: 6.0}, {6: 7.0})],
    ]
    return [["payload", ";".join(one.text() for one in each), encode(each).hex()] for each in lists]


def refused_vectors() -> list[list[str]]:
    whole = encode([Class((), {3: 1.0}, {3: 2.0})])
    head = whole[:12]
    own = encode_class(0, 0, {}, {})
    two = whole[:8] + struct.pack("<I", 2) + own
    wrong = {
        "nothing": b"", "no number of classes": whole[:8], "a number cut": whole[:11],
        "another version": b"TERTRN01" + whole[8:], "no classes": whole[:8] + bytes(4),
        "cut": whole[:-1], "something behind": whole + b"\0",
        "a first class with a parent": head + encode_class(1, 0, {}, {}),
        "a parent that is itself": two + encode_class(1, 257, {}, {}),
        "below 0": head + encode_class(0, 0, {45: -1.0}, {}),
        "above 10^9": head + encode_class(0, 0, {}, {0: 1_000_000_064.0}),
        "no number": head + encode_class(0, 0, {}, {45: math.nan}),
        "infinite": head + encode_class(0, 0, {0: math.inf}, {}),
    }
    return [["refused", why, data.hex()] for why, data in wrong.items()]


def at_seconds(history: list[Request]) -> list[Request]:
    return [replace(one, arrives=TICKS * one.arrives, ends=TICKS * one.ends) for one in history]


def history_vectors() -> list[list[str]]:
    of_seconds = [
        [Request(1, 1000, 10, 1000, 100), Request(2, 1003, 3, 1003, 7)],
        # Turns of one conversation: a return in the cell that it has just come to.
        [Request(1, 1000, 10, 1002, 8, 2), Request(1, 1010, 15, 1010, 22, 1),
         Request(1, 1010, 16, 1011, 23, 1), Request(1, 1012, 63, 1013, 63, 3),
         Request(1, 1100, 64, 1101, 64, 4), Request(1, 9000, 4095, 9001, 2_000_000, 0)],
        # The edges of ages and gaps: 3 and 15 seconds less and more, and what waits for long.
        [Request(1, 1000, 4, 1000, 100), Request(2, 1000, 4, 1000, 100),
         Request(1, 1002, 8, 1002, 511), Request(2, 1003, 8, 1003, 512),
         Request(1, 1016, 12, 1016, 1449), Request(2, 1018, 12, 1018, 1448),
         Request(3, 6_000_000, 255, 6_000_000, 4096, 2)],
        # Promises, kept and not.
        [Request(1, 1000, 20, 1000, 100, 1, 2), Request(2, 1001, 20, 1001, 100, 2, 1),
         Request(3, 1002, 20, 1002, 100, 2, 5), Request(1, 1009, 30, 1009, 100, 2, 9),
         Request(3, 1020, 30, 1020, 100, 2), Request(4, 1100, 1, 1100, 0)],
    ]
    # Within a second: each cell's last tick and the next cell's first one; a gap just below a second.
    of_ticks = [
        [Request(1, 640, 4, 641, 100), Request(2, 642, 4, 642, 100), Request(1, 644, 8, 644, 100),
         Request(2, 646, 8, 646, 100), Request(1, 650, 12, 650, 100), Request(2, 651, 12, 651, 100),
         Request(1, 655, 16, 656, 100), Request(2, 663, 16, 664, 100), Request(1, 719, 20, 719, 100),
         Request(2, 728, 20, 728, 100), Request(3, 20_000_000, 4, 20_000_000, 100)],
    ]
    histories = [at_seconds(each) for each in of_seconds] + of_ticks
    return [
        ["history", ";".join(one.text() for one in history),
         ";".join(one.text() for one in count(history))]
        for history in histories
    ]


def vectors() -> list[list[str]]:
    return payload_vectors() + refused_vectors() + history_vectors()
