"""./dev check: every rule that a machine can see."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from dev import ptx, say, setup
from dev.check import ladder, layers, links, memo, programs, shape, sources, tree, words
from dev.check.finding import Finding
from dev.check.tree import Tree
from dev.verbs import VERBS

Check = Callable[[Tree], Iterable[Finding]]

CHECKS: dict[str, Check] = {
    "format": programs.clang_format,
    "ladder": lambda files: ladder.check(files, layers.own()),
    "words": lambda files: words.check(files, layers.own()),
    "shape": lambda files: shape.check(files, layers.own()),
    "sources": lambda files: sources.check(files, layers.own()),
    "links": lambda files: links.check(files, VERBS),
    "ptx": ptx.check,
    "ruff": programs.ruff,
    "mypy": programs.mypy,
    "headers": programs.headers,
    "tidy": programs.clang_tidy,
}
GROUPS = ("build", "engine", "check")


def main(arguments: Sequence[str]) -> int:
    unknown = [name for name in arguments if name not in CHECKS]
    if unknown:
        raise say.Stop(f"there is no check '{unknown[0]}'", f"known are: {', '.join(CHECKS)}")
    setup.require(GROUPS)
    memo.sweep()
    files = tree.whole()
    total = 0
    for name in arguments or CHECKS:
        began = time.monotonic()
        found = sorted(set(CHECKS[name](files)))
        for finding in found:
            say.line(str(finding))
        outcome = f"{len(found)} findings" if found else "clean"
        say.note(f"{name}: {outcome}, {time.monotonic() - began:.1f} s")
        total += len(found)
    say.line(f"{total} findings" if total else "all clean")
    return 1 if total else 0
