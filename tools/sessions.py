"""Sessions of processes, such as an engine's: what ends them, and what they leave when killed.

Whoever starts one does it in `starting`, so that `ending` finds it. An engine's processes talk
through segments in /dev/shm, up to 250 MB each. Who is killed does not remove its own; they would
lie in memory until the machine starts anew.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SEGMENTS = "/dev/shm/"  # Where Linux keeps what shm_open() makes.
TRACKERS_LIMIT_S = 3.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class _Starts:
    """What this process started and nobody has killed yet."""

    known: set[int] = field(default_factory=set)
    is_under_way: bool = False
    interrupt: int = 0  # The signal that came meanwhile.


_starts = _Starts()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """`kill` and a terminal that closes end the block as ^C does; whatever comes later does not.

    The KeyboardInterrupt has the signal's number.
    """

    def interrupt(number: int, _frame: object) -> None:
        for each in SIGNALS:  # What ends the parts is not to be broken off.
            signal.signal(each, signal.SIG_IGN)
        if _starts.is_under_way:
            _starts.interrupt = number
        else:
            raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def starting() -> Iterator[set[int]]:
    """For the id of a session that is started in here; an interrupt waits until it is told."""
    _starts.is_under_way = True
    try:
        yield _starts.known
    finally:
        _starts.is_under_way = False
        number, _starts.interrupt = _starts.interrupt, 0
        if number:
            raise KeyboardInterrupt(number)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """`interruptible`; no session that is started in the block outlives it, however it ends."""
    before = frozenset(_starts.known)
    with interruptible():
        try:
            yield
        finally:
            for session in sorted(_starts.known - before):
                kill(session)


def living(session: int) -> dict[int, int]:
    """Processes of the session that live, with their parents."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:  # Ended meanwhile.
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found[int(entry.name)] = int(fields[1])
    return found


def _read(process: int, name: str) -> str:
    try:
        return Path(f"/proc/{process}/{name}").read_text(errors="replace")
    except OSError:  # Ended meanwhile.
        return ""


def segments(processes: Iterable[int]) -> set[Path]:
    """Shared memory with a name that they have mapped."""
    found = set()
    for process in processes:
        for line in _read(process, "maps").splitlines():
            at = line.find(SEGMENTS)
            if at >= 0 and not line.endswith(" (deleted)"):
                found.add(Path(line[at:]))
    return found


def kill(session: int) -> None:
    """kill -9 of all its processes, and the removal of their shared memory. Python's trackers of
    such memory go last: they know also what is not mapped."""
    processes = living(session)
    left = segments(processes)
    for process in processes:
        if "resource_tracker" not in _read(process, "cmdline"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    deadline = time.monotonic() + TRACKERS_LIMIT_S
    while living(session) and time.monotonic() < deadline:
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)
    for segment in left:
        segment.unlink(missing_ok=True)
    _starts.known.discard(session)
