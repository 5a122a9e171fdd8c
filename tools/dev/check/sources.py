"""House rules on single lines: time, randomness, environment, waits, locks, threads, marks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dev.check import cpp
from dev.check.finding import Finding
from dev.check.layers import Layers
from dev.check.tree import Tree, is_test, room_of

MARK = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
PREPROCESSOR = re.compile(r"^[ \t]*#[ \t]*(?:if|ifdef|ifndef|elif)\b", re.MULTILINE)
WAIT = re.compile(
    r"""(?:\.|->)wait\s*\((?P<wait>[^;]*)
      | \b(?P<call>io_uring_wait_cqe|pthread_cond_wait|sem_wait|arrive_and_wait)\s*\(
      | \b(?:poll|epoll_wait)\s*\([^;]*,\s*-1\s*\)""",
    re.VERBOSE,
)
LIMIT = re.compile(
    r"deadline|timeout|until|limit|_ns\b|within|seconds|nap|step|tick|duration|interval|remaining",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Rule:
    """A pattern that may not stand in code, where it may, and what to write instead."""

    name: str
    pattern: re.Pattern[str]
    advice: str
    in_tests: bool = True


RULES = (
    Rule(
        "time",
        re.compile(
            r"\b(?:steady_clock|system_clock|high_resolution_clock|clock_gettime|gettimeofday)\b"
            r"|(?<![\w.>:])time\s*\(\s*(?:nullptr|NULL|0|&\w+)\s*\)|\bstd::time\b"
        ),
        "time is read only in base/clock; take a Clock&",
    ),
    Rule(
        "random",
        re.compile(
            r"\b(?:random_device|mt19937(?:_64)?|default_random_engine|getrandom|arc4random)\b"
            r"|(?<![\w.>])s?rand\s*\(|\b[dlm]rand48\b"
        ),
        "randomness comes only from base/rng; take an Rng&",
    ),
    Rule(
        "environment",
        re.compile(r"\b(?:getenv|secure_getenv|environ|putenv|setenv)\b"),
        "the environment is read only in config/; take a plain Options struct",
    ),
    Rule(
        "locks",
        re.compile(
            r"\bstd::(?:(?:shared_|recursive_|timed_)*mutex|condition_variable(?:_any)?"
            r"|lock_guard|unique_lock|scoped_lock|shared_lock)\b|\bpthread_mutex_"
        ),
        "use base/mutex.h, which the thread-safety analysis understands",
        in_tests=False,
    ),
    Rule(
        "threads",
        re.compile(
            r"\bpthread_create\b|\bstd::j?thread(?:\s+\w+)?\s*[({]|\bstd::async\b|\.detach\s*\("
        ),
        "start threads by base/thread.h: named, all signals blocked, joined",
        in_tests=False,
    ),
    Rule(
        "sleep",
        re.compile(r"\b(?:sleep_for|sleep_until|usleep|nanosleep)\b|(?<![\w.>:])sleep\s*\("),
        "wait for the event with a deadline, or use the fake clock",
    ),
    Rule(
        "print",
        re.compile(r"\bstd::(?:cout|cerr|clog)\b|(?<![\w:])f?printf\s*\(\s*(?:stdout|stderr|\")"),
        "a guest prints nothing: log through the injected sink; only cli/ and benches print",
        in_tests=False,
    ),
)
HOME_ROOMS = {"environment": ("config",), "print": ("cli", "testing")}


def _rules(path: str, code: str, layers: Layers) -> Iterator[Finding]:
    for rule in RULES:
        if is_test(path) and not rule.in_tests:
            continue
        if room_of(path) in HOME_ROOMS.get(rule.name, ()) or path.startswith("examples/"):
            continue
        if layers.is_allowed(rule.name, path):
            continue
        for match in rule.pattern.finditer(code):
            text = f"'{match.group(0).strip()}': {rule.advice}"
            yield Finding(path, cpp.line_of(code, match.start()), rule.name, text)


def _waits(path: str, code: str, layers: Layers) -> Iterator[Finding]:
    if layers.is_allowed("wait", path):
        return
    for match in WAIT.finditer(code):
        if match.group("wait") is not None and LIMIT.search(match.group("wait")):
            continue
        text = "this wait has no deadline; use the form that takes one (wait_for, wait_until)"
        yield Finding(path, cpp.line_of(code, match.start()), "wait", text)


def _preprocessor(path: str, code: str, layers: Layers) -> Iterator[Finding]:
    """`#if` in headers only where machines or devices differ."""
    if not (path.endswith(".h") and path.startswith("terrace/")):
        return
    if room_of(path) == "base" or "/device/" in path or "/backends/" in path:
        return
    if layers.is_allowed("preprocessor", path):
        return
    for match in PREPROCESSOR.finditer(code):
        text = "#if in a header; only base/, device/ and backends/ may, so move the choice there"
        yield Finding(path, cpp.line_of(code, match.start()), "preprocessor", text)


def _marks(tree: Tree) -> Iterator[Finding]:
    for path in [*tree.cpp(), *tree.python()]:
        if path.startswith(("tools/dev/check/", "tests/tools/")):
            continue
        for number, row in enumerate(tree.text(path).split("\n"), start=1):
            if MARK.search(row):
                yield Finding(path, number, "marks", "finish it now, or leave the mark out")


def check(tree: Tree, layers: Layers) -> Iterator[Finding]:
    for path in tree.cpp():
        code = cpp.code(tree.text(path))
        yield from _rules(path, code, layers)
        yield from _waits(path, code, layers)
        yield from _preprocessor(path, code, layers)
    yield from _marks(tree)
