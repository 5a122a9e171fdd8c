"""Counts tests from the reports of gtest, ctest and pytest."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def _outcome(case: ElementTree.Element) -> Counts:
    """One test case: JUnit's elements, and gtest's `result` and ctest's `status` attributes."""
    if case.find("failure") is not None or case.find("error") is not None:
        return Counts(failed=1)
    if case.get("status") in ("fail", "failed"):
        return Counts(failed=1)
    skipped = case.find("skipped") is not None or case.get("result") == "skipped"
    if skipped or case.get("status") in ("notrun", "disabled"):
        return Counts(skipped=1)
    return Counts(passed=1)


def _cases(path: Path) -> list[ElementTree.Element]:
    return list(ElementTree.parse(path).getroot().iter("testcase"))


def junit(path: Path) -> Counts:
    """One report file; a missing or broken one means that the suite died: one failure."""
    try:
        cases = _cases(path)
    except (OSError, ElementTree.ParseError):
        return Counts(failed=1)
    return sum(map(_outcome, cases), Counts())


def ctest(report: Path, gtest_folder: Path) -> Counts:
    """ctest's programs, each gtest program replaced by the tests inside it.

    A program that ctest calls failed though its own report shows no failure (a crash or a leak
    after the last test) counts as one failure more.
    """
    try:
        programs = _cases(report)
    except (OSError, ElementTree.ParseError):
        return Counts(failed=1)
    total = Counts()
    for program in programs:
        own = gtest_folder / f"{program.get('name')}.xml"
        outcome = _outcome(program)
        inside = junit(own) if own.exists() else outcome
        if outcome.failed and not inside.failed:
            inside += Counts(failed=1)
        total += inside
    return total
