"""What one process holds at one moment, as the kernel counts it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

PAGES = 1024  # /proc/PID/status counts in KiB.


@dataclass(frozen=True)
class Sample:
    """`at` in seconds of the monotonic clock; bytes of resident memory; `is_idle`: no request."""

    at: float
    process: str
    pid: int
    anonymous: int
    shared: int
    descriptors: int
    threads: int
    is_idle: bool


def sample(process: str, pid: int, *, is_idle: bool) -> Sample | None:
    """None when it has ended meanwhile."""
    place = Path(f"/proc/{pid}")
    try:
        lines = (place / "status").read_text().splitlines()
        descriptors = len(list((place / "fd").iterdir()))
    except OSError:
        return None
    fields = dict(line.partition(":\t")[::2] for line in lines if ":\t" in line)
    if "RssAnon" not in fields:  # It has just ended.
        return None

    def size(name: str) -> int:
        return int(fields[name].split()[0]) * PAGES

    return Sample(
        time.monotonic(),
        process,
        pid,
        size("RssAnon"),
        size("RssShmem"),
        descriptors,
        int(fields["Threads"]),
        is_idle,
    )
