"""tools/layers.toml, read."""

from __future__ import annotations

import fnmatch
import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev import paths

TABLE = paths.ROOT / "tools" / "layers.toml"


@dataclass(frozen=True)
class Layers:
    """The table; `allow` says why something that breaks a rule is right where it stands."""

    table: dict[str, Any]

    def reach(self) -> dict[str, frozenset[str]]:
        """For each room all rooms it may include, itself among them."""
        direct: dict[str, list[str]] = self.table["rooms"]
        everything = frozenset(name for name in direct if name != "testing")

        def closure(room: str, seen: frozenset[str]) -> frozenset[str]:
            if "*" in direct[room]:
                return everything | {room}
            for used in direct[room]:
                if used not in seen:
                    seen = closure(used, seen | {used})
            return seen

        return {room: closure(room, frozenset({room})) for room in direct}

    def is_allowed(self, rule: str, path: str, what: str = "") -> bool:
        """Whether [allow.<rule>] excuses the file, or this one thing in it."""
        excuses = self.table.get("allow", {}).get(rule, {})
        for pattern in excuses:
            file, _, thing = pattern.partition(":")
            if fnmatch.fnmatch(path, file) and thing in ("", what):
                return True
        return False

    def excuses(self, rule: str) -> list[str]:
        return list(self.table.get("allow", {}).get(rule, {}))


def load(path: Path) -> Layers:
    return Layers(tomllib.loads(path.read_text()))


@functools.cache
def own() -> Layers:
    return load(TABLE)
