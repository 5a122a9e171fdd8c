"""./dev matrix: what ./dev test proved of tests/matrix.toml; --write makes docs/support.md."""

from __future__ import annotations

import tomllib
import xml.etree.ElementTree as Xml
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev import paths, say

TABLE = paths.ROOT / "tests" / "matrix.toml"
PAGE = paths.ROOT / "docs" / "support.md"
REPORTS = paths.BUILD / "reports"
HEAD = """# What is supported

Made by `./dev matrix --write` from `tests/matrix.toml` and the results of `./dev test`: a row is
here because each of its tests passed on the real engine (vLLM 0.32.0, CPU build), or, where
something is turned away, in the connector's own tests. *Served*: hits are loaded and equal the
engine's own. *Not cached*: the request runs as without Terrace, and is counted. *Passed through*:
the engine does, and its log says why.

| feature | state | tests passed |
|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    feature: str
    state: str
    proof: tuple[str, ...]


def rows(table: Path = TABLE) -> list[Row]:
    listed = tomllib.loads(table.read_text())["row"]
    return [Row(row["feature"], row["state"], tuple(row["proof"])) for row in listed]


def results(reports: Iterable[Path]) -> dict[str, bool]:
    """FOLDER/FILE::TEST[…] -> passed, of junit reports."""
    found: dict[str, bool] = {}
    for report in reports:
        for case in Xml.parse(report).iter("testcase"):
            parts = case.get("classname", "").split(".")
            folder = "python" if parts[:1] == ["python"] else parts[-2] if len(parts) > 1 else ""
            is_bad = any(case.find(tag) is not None for tag in ("failure", "error", "skipped"))
            found[f"{folder}/{parts[-1]}.py::{case.get('name')}"] = not is_bad
    return found


def judge(row: Row, found: dict[str, bool]) -> tuple[int, list[str]]:
    """How many of its tests passed, and what keeps the row from standing."""
    count, problems = 0, []
    for proof in row.proof:
        own = {name: passed for name, passed in found.items() if name.startswith(proof)}
        count += sum(own.values())
        problems += [f"{name} did not pass" for name, passed in own.items() if not passed]
        if not own:
            problems.append(f"{proof} was not run")
    return count, problems


def main(arguments: Sequence[str]) -> int:
    found = results(sorted(REPORTS.glob("*.xml")) if REPORTS.exists() else [])
    text, bad = HEAD, 0
    for row in rows():
        count, problems = judge(row, found)
        bad += bool(problems)
        for problem in problems:
            say.note(f"{row.feature}: {problem}")
        text += f"| {row.feature} | {row.state} | {count} |\n"
    if bad:
        say.line(f"{bad} rows are not proven; run ./dev test first")
        return 1
    if "--write" in arguments:
        PAGE.write_text(text)
        say.note(f"wrote {paths.relative(PAGE)}")
    else:
        say.line(text)
    return 0
