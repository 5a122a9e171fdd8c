"""Words of the glossary that fail as identifiers, and file names that say nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from dev.check import cpp
from dev.check.finding import Finding
from dev.check.layers import Layers
from dev.check.tree import Tree

# Members reached through an object are checked where they are declared.
IDENTIFIER = re.compile(r"(?<![.>\w])(?:std::(?:ranges::)?)?[A-Za-z_]\w*")
PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
ENDINGS = ("", "s", "es", "d", "ed", "ted", "ped", "ing", "ting", "ping", "al")


def pieces(identifier: str) -> list[str]:
    """The words of an identifier in lower case; digits join the word before them."""
    found: list[str] = []
    for part in identifier.split("_"):
        words = PIECE.findall(part)
        for index, word in enumerate(words):
            if word.isdigit() and index > 0:
                found[-1] += word
            else:
                found.append(word.lower())
    return found


def _forms(words: dict[str, str]) -> dict[str, str]:
    """Each forbidden word in its inflected forms."""
    forms = {word + ending: word for word in words for ending in ENDINGS}
    forms.update({word.rstrip("e") + "ing": word for word in words})
    return forms


def _offences(
    path: str, identifiers: Iterator[tuple[int, str]], layers: Layers
) -> Iterator[Finding]:
    words: dict[str, str] = layers.table["words"]
    forms = _forms(words)
    seen: set[str] = set()
    for line, identifier in identifiers:
        bare = identifier.rsplit("::", 1)[-1]
        hit = next((forms[piece] for piece in pieces(bare) if piece in forms), None)
        if hit is None or identifier in seen:
            continue
        seen.add(identifier)
        if identifier.startswith("std::") or layers.is_allowed("words", path, identifier):
            continue
        text = f"'{identifier}' uses the word '{hit}'; the glossary says: {words[hit]}"
        yield Finding(path, line, "words", text)


def _cpp_identifiers(text: str) -> Iterator[tuple[int, str]]:
    code = cpp.INCLUDE.sub("", cpp.code(text))
    for number, row in enumerate(code.split("\n"), start=1):
        for match in IDENTIFIER.finditer(row):
            yield number, match.group(0).replace("std::ranges::", "std::")


def _python_identifiers(text: str) -> Iterator[tuple[int, str]]:
    """Names that this code gives; attributes and keywords of others' interfaces are not ours."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def _names(tree: Tree, layers: Layers) -> Iterator[Finding]:
    forbidden = set(layers.table["names"]["forbidden"])
    told: set[str] = set()
    for path in tree.files:
        for part in PurePosixPath(path).parts:
            stem = part.split(".")[0]
            words = set(re.split(r"[_-]", stem.lower()))
            if words & forbidden and part not in told:
                told.add(part)
                text = f"'{part}' says nothing; name the file or folder after what it holds"
                yield Finding(path, 1, "names", text)


def check(tree: Tree, layers: Layers) -> Iterator[Finding]:
    for path in tree.cpp():
        yield from _offences(path, _cpp_identifiers(tree.text(path)), layers)
    for path in tree.python():
        try:
            yield from _offences(path, _python_identifiers(tree.text(path)), layers)
        except SyntaxError as error:
            yield Finding(path, error.lineno or 1, "words", f"cannot be parsed: {error.msg}")
    yield from _names(tree, layers)
