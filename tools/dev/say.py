"""What a person sees: phases with elapsed time, and errors that name cause and way out."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stop(Exception):
    """Ends the run with a message for the person: what is wrong, then what to do."""

    def __init__(self, cause: str, way_out: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.way_out = way_out


START = time.monotonic()


def clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


def line(text: str) -> None:
    print(text, flush=True)


def note(text: str) -> None:
    """One line of progress, stamped with the time since ./dev started."""
    line(f"[{clock(time.monotonic() - START):>6}] {text}")


def error(stop: Stop) -> None:
    print(f"dev: {stop.cause}", file=sys.stderr, flush=True)
    if stop.way_out:
        print(f"     {stop.way_out}", file=sys.stderr, flush=True)


def _tick(text: str, began: float, done: threading.Event) -> None:
    terminal = sys.stdout.isatty()
    period = 1.0 if terminal else 30.0
    while not done.wait(period):
        elapsed = clock(time.monotonic() - began)
        if terminal:
            print(f"\r         {text} … {elapsed}", end="", flush=True)
        else:
            note(f"{text} … {elapsed}")


@contextmanager
def phase(text: str) -> Iterator[None]:
    """A long step: a line when it starts, signs of life, a line with its duration at the end."""
    began = time.monotonic()
    note(text)
    done = threading.Event()
    ticker = threading.Thread(target=_tick, args=(text, began, done), name="dev-ticker")
    ticker.start()
    outcome = "failed"
    try:
        yield
        outcome = "done"
    finally:
        done.set()
        ticker.join()
        if sys.stdout.isatty():
            print("\r\x1b[K", end="")
        note(f"{text}: {outcome} in {time.monotonic() - began:.1f} s")
