"""Second implementation of object-dir.md, from the document alone: names of objects, paths of files.

Standard library only; `reference.py` writes and compares the vectors.
"""

from __future__ import annotations

import re

import pack

COLUMNS = (
    "by the first one.\n"
    "# object: name, path below the root\n"
    "# foreign: path below the root, of a file that is no object"
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
    return rows + [["foreign", name] for name in foreign]
