"""Lengths of functions and files, what each folder and each header must have."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import PurePosixPath

from dev.check import cpp
from dev.check.finding import Finding
from dev.check.layers import Layers
from dev.check.tree import CPP_SUFFIXES, Tree

FREE = ("docs/", "LICENSE", "requirements/")


def _python_functions(text: str) -> Iterator[cpp.Function]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            last = node.end_lineno or node.lineno
            yield cpp.Function(node.lineno, node.name, last - node.lineno + 1)


def _functions(tree: Tree) -> Iterator[tuple[str, cpp.Function]]:
    for path in tree.cpp():
        for function in cpp.functions(tree.text(path)):
            yield path, function
    for path in tree.python():
        try:
            found = list(_python_functions(tree.text(path)))
        except SyntaxError:
            continue  # the rule on words names the file
        for function in found:
            yield path, function


def _lengths(tree: Tree, layers: Layers) -> Iterator[Finding]:
    limit: int = layers.table["size"]["function_lines"]
    count = 0
    for path, function in _functions(tree):
        count += 1
        if function.lines <= limit:
            continue
        if not layers.is_allowed("function_lines", path, function.name):
            text = f"{function.name} has {function.lines} lines, at most {limit}; split it"
            yield Finding(path, function.line, "function-lines", text)
    listed = len(layers.excuses("function_lines"))
    share: int = layers.table["size"]["exceptions_per_cent"]
    if listed * 100 > count * share:
        text = f"{listed} exceptions among {count} functions, at most {share} %; split some"
        yield Finding("tools/layers.toml", 1, "function-lines", text)


def _files(tree: Tree, layers: Layers) -> Iterator[Finding]:
    limit: int = layers.table["size"]["file_lines"]
    for path in tree.having(*CPP_SUFFIXES, ".py", ".cmake", "CMakeLists.txt"):
        lines = tree.text(path).count("\n")
        if lines > limit and not layers.is_allowed("file_lines", path):
            text = f"{lines} lines, at most {limit}; split it by what its parts are about"
            yield Finding(path, limit, "file-lines", text)


def _folders(tree: Tree) -> Iterator[Finding]:
    """Each folder under terrace/ says what lives there; each with code is a CMake library."""
    folders: dict[str, set[str]] = {}
    for path in tree.files:
        parent = PurePosixPath(path).parent
        if not str(parent).startswith("terrace/"):
            continue
        folders.setdefault(str(parent), set()).add(PurePosixPath(path).name)
        for above in parent.parents:
            if len(above.parts) > 1:
                folders.setdefault(str(above), set())
    for folder, names in sorted(folders.items()):
        if "README.md" not in names:
            text = "the folder has no README.md; say what lives here and what it may use"
            yield Finding(folder, 1, "folder", text)
        has_code = any(name.endswith(CPP_SUFFIXES) for name in names)
        if has_code and "CMakeLists.txt" not in names:
            text = "the folder has no CMakeLists.txt; a folder is one library (terrace_room)"
            yield Finding(folder, 1, "folder", text)


def _openings(tree: Tree) -> Iterator[Finding]:
    """Each header of ours opens with its purpose and its threading, then `#pragma once`."""
    for path in tree.having(".h"):
        if not path.startswith("terrace/"):
            continue
        text = tree.text(path)
        opening = text.split("#pragma once")[0]
        if "#pragma once" not in text:
            yield Finding(path, 1, "header", "has no #pragma once; write it below the opening")
        elif not text.startswith("//"):
            yield Finding(path, 1, "header", "opens with no purpose; say it in a // comment")
        elif "Threading:" not in opening:
            advice = "immutable, thread-safe, thread-compatible, or owned by a named thread"
            yield Finding(path, 1, "header", f"the opening lacks `// Threading:`; say {advice}")


def check(tree: Tree, layers: Layers) -> Iterator[Finding]:
    yield from _lengths(tree, layers)
    yield from _files(tree, layers)
    yield from _folders(tree)
    yield from _openings(tree)
