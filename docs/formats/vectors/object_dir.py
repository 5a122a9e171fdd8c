"""Second implementation of object-dir.md, from the document alone: names of objects, paths of files.

Standard library only; `reference.py` writes and compares the vectors.
"""

from __future__ import annotations

import re

import pack

COLUMNS = (
    "by the first one.\n"
    "# object: name, path below the root\n"
    "# foreign: path below the root, of a file that is no object\n"
    "# marker: content of TERRACE-OBJECTS, what a folder with it is: root, empty or refused\n"
    "# entry: what a folder without a marker has, what it is: empty or refused"
)


def folder(last: str) -> str:
    value = 2166136261
    for byte in last.encode():
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return f"={(value ^ value >> 12 ^ value >> 24) & 0xFFF:03x}"


def path(name: str) -> str:
    *folders, last = name.split("/")
    return "/".join([*folders, folder(last), last])


def name_of(path_: str) -> str | None:
    """The object's name; nothing for a foreign file."""
    *folders, between, last = ["", *path_.split("/")][1:] if "/" in path_ else ["", path_]
    name = "/".join([*folders, last])
    parts = name.split("/")
    is_name = len(name) <= 512 and all(
        re.fullmatch(r"[a-z0-9._-]{1,200}", part) and part not in (".", "..") for part in parts
    )
    return name if is_name and between == folder(last) else None


def marked(content: bytes) -> str:
    if not content:
        return "empty"
    title, *rest = content.split(b"\n")
    return "root" if title == b"terrace object directory" and rest[:1] == [b"format 1"] else "refused"


def unmarked(entry: str) -> str:
    return "empty" if entry in ("lost+found", ".snapshot") or entry.startswith("=new-") else "refused"


def root_vectors() -> list[list[str]]:
    own = b"terrace object directory\nformat 1\n"
    markers = [
        own, own[:-1], own + b"more\n", b"", own[:-2], own[:24], own[:10], b"\n" + own,
        own.replace(b"1", b"2"), own.replace(b"1", b"10"), own.replace(b"1", b"01"),
        own.replace(b"1", b"1 "), own.replace(b"\n", b"\r\n"), own.upper(), b"\0" * 34,
    ]
    entries = [
        "lost+found", ".snapshot", "=new-node7-4711-0123456789abcdef", "=0bf", ".nfs0001",
        "Lost+found", ".snapshots", "terrace-00", "v1",
    ]
    rows = [["marker", content.hex(), marked(content)] for content in markers]
    return rows + [["entry", entry, unmarked(entry)] for entry in entries]


def vectors() -> list[list[str]]:
    digests = bytes(range(0x40, 0x60)), bytes(range(0x80, 0xA0))
    key = bytes.fromhex("00ab54a98ceb1f0a")
    names = [
        "x", "models/a1/0001.pack", "a/b/c/d", "0", "writable/if-absent",
        "turns/00000000001767225600", "a.b/_-./0", "z" * 200, pack.reset(*digests, 1),
        pack.name(*digests, 0, 32, b"", bytes(range(16))),
        pack.name(*digests, 1_767_225_600, 16, key, bytes.fromhex("fedcba9876543210") * 2),
    ]
    rows = [["object", name, path(name)] for name in names]
    foreign = [
        "TERRACE-OBJECTS", "x", "=0be/x", "=0BF/x", "=0bf/X", "models/=f1e/a1/0001.pack",
        "models/a1/=f1e/=new-node7-4711-0123456789abcdef", "Models/a1/=f1e/0001.pack",
        "a b/=0bf/x", f"{folder('z' * 201)}/{'z' * 201}", "models/0001.pack", "=f1e/=0bf/x",
    ]
    assert all(name_of(path(name)) == name for name in names)
    assert not any(map(name_of, foreign))
    return rows + [["foreign", name] for name in foreign] + root_vectors()
