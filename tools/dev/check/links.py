"""What files point at is there: Markdown's links, headings, paths and verbs, code's documents."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterator
from urllib.parse import unquote

from dev.check.finding import Finding
from dev.check.tree import Tree

LINK = re.compile(r"(?<!\\)\[[^\]\n]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$", re.MULTILINE)
VERB = re.compile(r"\./dev ([a-z]+)\b")
PATH = re.compile(r"`([\w.-]+/[^`\s<…]*)`")
DOCUMENT = re.compile(r"(?<![\w/.-])(?:[\w.-]+/)*([\w-]+\.md)\b")
BRACES = re.compile(r"\{([^{}]*)\}")


def _blank_fences(text: str) -> str:
    return FENCE.sub(lambda match: "\n" * match.group(0).count("\n"), text)


def anchor(heading: str) -> str:
    """A heading's anchor, as Git hosts make it."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(text: str) -> set[str]:
    found: dict[str, int] = {}
    result = set()
    for match in HEADING.finditer(_blank_fences(text)):
        name = anchor(match.group(1))
        count = found.get(name, 0)
        result.add(f"{name}-{count}" if count else name)
        found[name] = count + 1
    return result


def _exists(tree: Tree, path: str) -> bool:
    folder = path.rstrip("/") + "/"
    return path in tree.files or any(name.startswith(folder) for name in tree.files)


def _link(tree: Tree, source: str, line: int, target: str) -> Iterator[Finding]:
    if re.match(r"^[a-z][a-z0-9+.-]*:", target):
        return
    path, _, fragment = unquote(target).partition("#")
    folder = posixpath.dirname(source)
    resolved = posixpath.normpath(posixpath.join(folder, path)) if path else source
    if not _exists(tree, resolved) and resolved != ".":
        text = f"the link '{target}' leads nowhere; {resolved} is not in the repository"
        yield Finding(source, line, "links", text)
    elif fragment and resolved.endswith(".md") and fragment not in anchors(tree.text(resolved)):
        text = f"the link '{target}' names no heading of {resolved}"
        yield Finding(source, line, "links", text)


def _spelled_out(path: str) -> list[str]:
    """The paths that `a.{h,cc}` stands for."""
    found = BRACES.search(path)
    if found is None:
        return [path.rstrip("/")]
    parts = [part.strip() for part in found[1].split(",")]
    return [
        p
        for part in parts
        for p in _spelled_out(path[: found.start()] + part + path[found.end() :])
    ]


def _paths(tree: Tree, source: str, prose: str) -> Iterator[Finding]:
    """Paths in code that begin with a folder of the repository."""
    tops = {name.partition("/")[0] for name in tree.files if "/" in name}
    folder = posixpath.dirname(source)
    for match in PATH.finditer(prose):
        if match[1].partition("/")[0] not in tops:
            continue
        for path in _spelled_out(match[1]):
            places = (path, posixpath.join(folder, path))
            if any(_exists(tree, place) or fnmatch.filter(tree.files, place) for place in places):
                continue
            line = prose.count("\n", 0, match.start()) + 1
            yield Finding(source, line, "links", f"`{path}` is not in the repository")


def _documents(tree: Tree) -> Iterator[Finding]:
    """Documents that code and its comments name, by their names alone: some are put into links."""
    names = {posixpath.basename(name) for name in tree.having(".md")}
    for source in [*tree.cpp(), *tree.python()]:
        if source.startswith("tests/tools/"):
            continue
        text = tree.text(source)
        for match in DOCUMENT.finditer(text):
            if match[1] not in names:
                line = text.count("\n", 0, match.start()) + 1
                yield Finding(source, line, "links", f"{match[0]} is not in the repository")


def check(tree: Tree, verbs: tuple[str, ...]) -> Iterator[Finding]:
    yield from _documents(tree)
    for source in tree.having(".md"):
        text = tree.text(source)
        prose = _blank_fences(text)
        for pattern in (LINK, REFERENCE):
            for match in pattern.finditer(prose):
                line = prose.count("\n", 0, match.start()) + 1
                yield from _link(tree, source, line, match.group(1))
        yield from _paths(tree, source, prose)
        for match in VERB.finditer(text):
            if match.group(1) not in verbs:
                line = text.count("\n", 0, match.start()) + 1
                known = ", ".join(verbs)
                text_ = f"./dev has no verb '{match.group(1)}'; it has {known}"
                yield Finding(source, line, "links", text_)
