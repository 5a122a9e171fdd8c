"""The slow checks see offenders, and remember only what passed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dev import paths, run
from dev.check import memo, programs
from dev.check.finding import Finding
from dev.check.tree import Tree

MakeTree = Callable[[dict[str, str]], Tree]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRACE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(paths, "LOGS", tmp_path / "logs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "captured", lambda command: CAPTURED(command, cwd=tmp_path))


CAPTURED = run.captured


def test_a_header_that_needs_another_first_is_caught(tree_of: MakeTree) -> None:
    tree = tree_of(
        {
            "terrace/base/good.h": "#pragma once\n#include <string>\nstd::string f();\n",
            "terrace/base/bad.h": "#pragma once\nstd::string f();\n",
        }
    )
    found = programs.headers(tree)
    assert {finding.path for finding in found} == {"terrace/base/bad.h"}
    assert found[0].rule == "header-alone"


def test_the_public_header_is_c(tree_of: MakeTree) -> None:
    text = "#pragma once\nnamespace terrace {}\n"
    found = programs.headers(tree_of({"include/terrace/terrace.h": text}))
    assert {finding.path for finding in found} == {"include/terrace/terrace.h"}


def test_what_passed_is_remembered_until_something_it_includes_changes(
    tree_of: MakeTree,
) -> None:
    files = {"a.cc": '#include "b.h"\n', "b.h": "int b();\n"}
    ran: list[str] = []

    def work(path: str) -> list[Finding]:
        ran.append(path)
        return []

    for text in ("int b();\n", "int b();\n", "int c();\n"):
        tree = tree_of({**files, "b.h": text})
        memo.each("rule", [("a.cc", memo.fingerprint(tree, "a.cc"))], work)
    assert ran == ["a.cc", "a.cc"]


def test_what_failed_is_not_remembered() -> None:
    bad = Finding("a.cc", 1, "rule", "bad")
    assert memo.each("rule", [("a.cc", "key")], lambda _path: [bad]) == [bad]
    assert memo.each("rule", [("a.cc", "key")], lambda _path: [bad]) == [bad]
