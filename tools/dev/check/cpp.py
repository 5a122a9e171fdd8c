"""Reads C++ just well enough for the rules: code without comments and texts, functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

TOKEN = re.compile(
    r"""//[^\n]*
      | /\*.*?\*/
      | (?:u8|[uUL])?R"(?P<mark>[^()\s\\]{0,16})\(.*?\)(?P=mark)"
      | "(?:\\.|[^"\\\n])*"
      | (?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'
    """,
    re.VERBOSE | re.DOTALL,
)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", re.MULTILINE)
SCOPE_WORDS = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b")
CONTROL = re.compile(r"^\s*(if|for|while|switch|catch|return|else|do)\b")


def _blank(match: re.Match[str]) -> str:
    """As many lines as the original; a text stays an empty text, so that calls keep arguments."""
    token = match.group(0)
    lines = "\n" * token.count("\n")
    return lines if token.startswith("/") else f'""{lines}'


def code(text: str) -> str:
    """The source with comments removed and texts emptied; line numbers stay."""
    return TOKEN.sub(_blank, text)


def line_of(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


@dataclass(frozen=True)
class Include:
    line: int
    is_quoted: bool
    name: str


def includes(text: str) -> list[Include]:
    return [
        Include(line_of(text, match.start()), match.group(1) == '"', match.group(2))
        for match in INCLUDE.finditer(text)
    ]


@dataclass(frozen=True)
class Function:
    line: int
    name: str
    lines: int


def _is_function(head: str) -> bool:
    """Whether the words before a brace open a function's body rather than a scope or a value."""
    if "(" not in head or CONTROL.match(head):
        return False
    before = head[: head.index("(")]
    return not SCOPE_WORDS.search(before) and not before.rstrip().endswith("=")


def _name(head: str) -> str:
    """The function's name; a gtest macro's arguments belong to it."""
    gtest = re.search(r"\b(?:TEST|TEST_F|TEST_P|TYPED_TEST)\(\s*(\w+)\s*,\s*(\w+)", head)
    if gtest:
        return f"{gtest.group(1)}.{gtest.group(2)}"
    before = head[: head.index("(")].rstrip()
    found = re.search(r"(~?\w+|operator\W+)$", before)
    return found.group(1).strip() if found else "?"


def functions(text: str) -> Iterator[Function]:
    """Every function with a body that stands in a namespace or class; lambdas belong to theirs."""
    body = DIRECTIVE.sub(lambda match: "\n" * match.group(0).count("\n"), code(text))
    start, depth = 0, 0
    opened: tuple[int, str] | None = None
    scopes: list[bool] = []
    for match in re.finditer(r"[{};]", body):
        mark, offset = match.group(0), match.start()
        if opened is not None:
            depth += {"{": 1, "}": -1, ";": 0}[mark]
            if depth == 0:
                begin, name = opened
                first = line_of(body, begin)
                yield Function(first, name, line_of(body, offset) - first + 1)
                opened, start = None, offset + 1
            continue
        head = body[start:offset]
        if mark == "{" and _is_function(head):
            begin = start + len(head) - len(head.lstrip())
            opened, depth = (begin, _name(head)), 1
        elif mark == "{":
            scopes.append(True)
            start = offset + 1
        elif mark == "}":
            if scopes:
                scopes.pop()
            start = offset + 1
        elif "(" not in head or head.count("(") == head.count(")"):
            start = offset + 1
