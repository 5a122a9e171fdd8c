"""What a check of `terrace doctor` says, and what its checks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Finding:
    state: str  # ok, note, warn, fail
    text: str
    way_out: str = ""


def ok(text: str) -> Finding:
    return Finding("ok", text)


def note(text: str, way_out: str = "") -> Finding:
    return Finding("note", text, way_out)


def warn(text: str, way_out: str) -> Finding:
    return Finding("warn", text, way_out)


def fail(text: str, way_out: str) -> Finding:
    return Finding("fail", text, way_out)


@dataclass
class Asked:
    """What the command line said, and what the settings came to."""

    model: str = ""
    port: int = 0
    settings: dict[str, Any] | None = None


Check = Callable[[Asked], Iterator[Finding]]


def file_system(path: Path) -> str:
    """Of the mount that holds the path; "" when /proc does not say."""
    best, kind = "", ""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        _, place, name, *_ = line.split()
        place = place.encode().decode("unicode_escape")
        is_above = str(path) == place or str(path).startswith(place.rstrip("/") + "/")
        if is_above and len(place) >= len(best):
            best, kind = place, name
    return kind
