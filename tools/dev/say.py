"""What a person sees: phases with elapsed time, and errors that name cause and way out."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def _last_line(log: Path | None) -> str:
    """The newest line of a log file, shortened: what the step is at just now."""
    if log is None or not log.exists():
        return ""
    with log.open("rb") as source:
        source.seek(max(0, log.stat().st_size - 2000))
        lines = source.read().decode(errors="replace").split("\n")
    full = [text.strip() for text in lines if text.strip()]
    return f"  {full[-1][:70]}" if full else ""


def _tick(text: str, began: float, done: threading.Event, log: Path | None) -> None:
    terminal = sys.stdout.isatty()
    period = 1.0 if terminal else 30.0
    while not done.wait(period):
        status = f"{text} … {clock(time.monotonic() - began)}{_last_line(log)}"
        if terminal:
            print(f"\r\x1b[K         {status}", end="", flush=True)
        else:
            note(status)


@contextmanager
def on_stderr(wanted: bool) -> Iterator[None]:
    """Sends progress to standard error while standard output is for results alone."""
    with contextlib.redirect_stdout(sys.stderr) if wanted else contextlib.nullcontext():
        yield


@contextmanager
def phase(text: str, log: Path | None = None) -> Iterator[None]:
    """A long step: a line when it starts, signs of life, a line with its duration at the end.

    `log` is the file its output goes to; the newest line of it is shown as the sign of life.
    """
    began = time.monotonic()
    note(text)
    done = threading.Event()
    ticker = threading.Thread(target=_tick, args=(text, began, done, log), name="dev-ticker")
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
