"""Includes go along the arrows of tools/layers.toml, never upward; foreign ones stay in place."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dev.check import cpp
from dev.check.finding import Finding
from dev.check.layers import Layers
from dev.check.tree import Tree, is_test, room_of

SYSTEM_FOLDERS = ("sys/", "linux/", "netinet/", "arpa/", "net/", "asm/")
PUBLIC = "include/"
SYSTEM_HEADERS = Path(__file__).with_name("system_headers.txt")


@functools.cache
def system_headers() -> frozenset[str]:
    """Headers of the language and of the system, which every room may include."""
    return frozenset(SYSTEM_HEADERS.read_text().split())


def resolve(tree: Tree, name: str) -> str | None:
    """The repository's file that an include names."""
    for candidate in (name, f"include/{name}", f"tests/{name}"):
        if candidate in _members(tree):
            return candidate
    return None


@functools.lru_cache(maxsize=4)
def _known(files: tuple[str, ...]) -> frozenset[str]:
    return frozenset(files)


def _members(tree: Tree) -> frozenset[str]:
    return _known(tree.files)


def reached(tree: Tree, path: str) -> dict[str, list[str]]:
    """All files of ours that `path` includes, also through others, each with its chain."""
    chains: dict[str, list[str]] = {}
    waiting = [(path, [path])]
    while waiting:
        current, chain = waiting.pop()
        for include in cpp.includes(tree.text(current)):
            target = resolve(tree, include.name)
            if target is not None and target not in chains and target != path:
                chains[target] = [*chain, target]
                waiting.append((target, chains[target]))
    return chains


def _form(path: str, include: cpp.Include, target: str | None) -> Iterator[Finding]:
    """How an include is written."""
    if target is None:
        # C is for people outside, who copy it out of the tree.
        if include.is_quoted and not path.endswith(".c"):
            text = f'"{include.name}" names no file from the root; write "terrace/<room>/<name>.h"'
            yield Finding(path, include.line, "include", text)
        return
    public = target.startswith(PUBLIC)
    if public and include.is_quoted:
        text = f"write <{include.name}>: the public header comes in angle brackets"
        yield Finding(path, include.line, "include", text)
    if not public and not include.is_quoted:
        text = f'write "{include.name}": our own headers come in quotes'
        yield Finding(path, include.line, "include", text)


def _upward(layers: Layers, path: str, include: cpp.Include, target: str) -> Iterator[Finding]:
    """Whether the room may see the target."""
    room, other = room_of(path), room_of(target)
    if target.startswith("terrace/") and PurePosixPath(target).stem.endswith("_internal"):
        same = PurePosixPath(target).parent == PurePosixPath(path).parent
        if not same and not path.startswith("fuzz/"):
            text = f"{include.name} is private to its folder; include the part's header"
            yield Finding(path, include.line, "ladder", text)
    if room is None or is_test(path):
        return
    if is_test(target):
        text = f"{include.name} is for tests; move what both need to the lowest room both see"
        yield Finding(path, include.line, "ladder", text)
        return
    reach = layers.reach()
    if room not in reach:
        text = f"the room {room} is not in tools/layers.toml; add it with what it may use"
        yield Finding(path, include.line, "ladder", text)
    elif other is not None and other not in reach[room]:
        text = (
            f"{room} may not see {other} (it sees {', '.join(sorted(reach[room] - {room}))}); "
            f"declare an interface in {room} and let the room above inject it"
        )
        yield Finding(path, include.line, "ladder", text)


def _is_below(path: str, folder: str) -> bool:
    """Whether the file lies in terrace/<folder>; a "*" stands for one folder's name."""
    below = PurePosixPath(path).parts[1:-1]
    wanted = PurePosixPath(folder).parts
    return len(below) >= len(wanted) and all(
        fnmatch.fnmatch(part, pattern) for part, pattern in zip(below, wanted, strict=False)
    )


def _foreign(layers: Layers, path: str, include: cpp.Include) -> Iterator[Finding]:
    """Where a library's header may be included."""
    name = include.name
    if name in system_headers() or name.startswith(SYSTEM_FOLDERS):
        return
    for row in layers.table["foreign"]:
        if not any(name.startswith(prefix) for prefix in row["headers"]):
            continue
        if is_test(path) or not path.startswith("terrace/"):
            return
        if any(_is_below(path, folder) for folder in row["allowed"]):
            if row.get("sources_only") and path.endswith(".h"):
                text = f"<{name}> is dear to compile; include it in a .cc file"
                yield Finding(path, include.line, "foreign", text)
            return
        places = ", ".join(f"terrace/{folder}" for folder in row["allowed"])
        text = f"<{name}> belongs in {places}; use it there, behind a header of ours"
        yield Finding(path, include.line, "foreign", text)
        return
    if not include.is_quoted:
        text = f"<{name}> is unknown; a new dependency needs an ADR and a row in tools/layers.toml"
        yield Finding(path, include.line, "foreign", text)


def _special(layers: Layers, path: str, include: cpp.Include) -> Iterator[Finding]:
    """Pure rooms, threads, and headers that nvcc reads."""
    room, table = room_of(path), layers.table
    if room is None or is_test(path):
        return
    if room in table["pure"]["rooms"] and include.name in table["pure"]["headers"]:
        text = (
            f"{room} is a pure state machine and may not use {include.name}; inject what it needs"
        )
        yield Finding(path, include.line, "pure", text)
    threads = table["threads"]
    may_have_threads = any(_is_below(path, folder) for folder in threads["allowed"])
    if include.name == threads["header"] and not may_have_threads:
        text = f"{room} may have no threads; let a room that may have some drive it"
        yield Finding(path, include.line, "threads", text)
    if path in table["nvcc"]["headers"] and include.name.startswith("terrace/base/"):
        text = "nvcc reads this header: C++20 and nothing of base/"
        yield Finding(path, include.line, "nvcc", text)


def _blind(tree: Tree, layers: Layers, path: str) -> Iterator[Finding]:
    """Headers that a room may not see, not even through others."""
    room = room_of(path)
    if room is None or is_test(path):
        return
    banned = [head for head, rooms in layers.table["blind"].items() if room in rooms]
    if not banned:
        return
    chains = reached(tree, path)
    for header in banned:
        if header in chains:
            chain = " -> ".join(Path(step).name for step in chains[header])
            text = f"{room} may not see {header}, but does: {chain}; split what it needs off"
            yield Finding(path, 1, "blind", text)


def _spread(tree: Tree) -> Iterator[Finding]:
    """A plug-in part (backend, tier, policy) is named by at most 3 files outside its folder."""
    patterns = ("terrace/transfer/backends/*/", "terrace/tier/*/", "terrace/policy/*/*/")
    users: dict[str, set[str]] = {}
    for path in tree.cpp():
        if is_test(path):
            continue
        for include in cpp.includes(tree.text(path)):
            folder = str(PurePosixPath(include.name).parent) + "/"
            is_part = any(fnmatch.fnmatch(folder, pattern) for pattern in patterns)
            if is_part and not path.startswith(folder):
                users.setdefault(folder, set()).add(path)
    for folder, paths in users.items():
        if len(paths) > 3:
            text = (
                f"{len(paths)} files outside {folder} include it; at most 3 may, as in builtin.cc"
            )
            yield Finding(sorted(paths)[0], 1, "spread", text)


def check(tree: Tree, layers: Layers) -> Iterator[Finding]:
    for path in tree.cpp():
        for include in cpp.includes(tree.text(path)):
            target = resolve(tree, include.name)
            yield from _form(path, include, target)
            if target is not None:
                yield from _upward(layers, path, include, target)
            else:
                yield from _foreign(layers, path, include)
            yield from _special(layers, path, include)
        yield from _blind(tree, layers, path)
    yield from _spread(tree)
