"""The rules that need no other program hold for this repository; ./dev check has the rest."""

from collections.abc import Callable, Iterable

import pytest

from dev import ptx
from dev.check import ladder, layers, links, shape, sources, tree, words
from dev.check.finding import Finding
from dev.check.tree import Tree
from dev.verbs import VERBS

RULES: dict[str, Callable[[Tree], Iterable[Finding]]] = {
    "ladder": lambda files: ladder.check(files, layers.own()),
    "words": lambda files: words.check(files, layers.own()),
    "shape": lambda files: shape.check(files, layers.own()),
    "sources": lambda files: sources.check(files, layers.own()),
    "links": lambda files: links.check(files, VERBS),
    "ptx": ptx.check,
}


@pytest.mark.parametrize("rule", RULES)
def test_rule_holds(rule: str) -> None:
    found = [str(finding) for finding in RULES[rule](tree.whole())]
    assert not found, "\n" + "\n".join(found)


def test_every_exception_is_used() -> None:
    """A row in tools/layers.toml whose file is gone is taken out."""
    files = tree.whole().files
    for rule, rows in layers.own().table["allow"].items():
        for row in rows:
            path = row.partition(":")[0]
            assert "*" in path or path in files, f"[allow.{rule}] {row}: no such file"
