"""What `terrace doctor` says of encryption: the keys at hand, and what needs which of them."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from terrace.cli import program
from terrace.finding import Asked, Finding, fail, note, ok, warn

NAME_KEY = "name the file of that key in encryption.key_file or encryption.old_key_files"
PLAIN = "encryption.accept_plain = true serves them, and whatever else is put there in clear"
LIMIT_S = 60.0  # Records of 10^7 blocks are read in some seconds.
_PACKS = re.compile(r"n\d+(?:k([0-9a-f]{16}))?")


def encryption(asked: Asked) -> Iterator[Finding]:
    given = asked.settings or {}
    paths = [text.strip() for text in str(given.get("disk.paths", "")).split(",") if text.strip()]
    store = str(given.get("object.path", ""))
    is_bucket = given.get("object.enabled") == "true"
    serves_plain = given.get("encryption.accept_plain") == "true"
    if not (paths or store or is_bucket):
        return  # Host memory is not encrypted.
    ids, problem = _ids()
    if problem:
        yield fail(f"encryption: {problem}", "engines refuse to start until it is mended")
    elif ids:
        old = f"; reads {', '.join(ids[1:])}, too" if ids[1:] else ""
        yield ok(f"encryption: writes with key {ids[0]}{old}")
    else:
        yield note(
            "encryption: no key, so blocks below host memory are not encrypted",
            "`terrace key new PATH` makes one, encryption.key_file names it",
        )
    for path in paths:
        if Path(path).is_dir():
            yield from _disk(path, bool(ids), serves_plain)
    if store and Path(store).is_dir():
        yield from _packs(Path(store), ids, serves_plain)
    if is_bucket:
        yield note(
            "object.bucket: which keys its packs need was not looked at",
            "`terrace object gc --dry-run` lists them by key",
        )


def _ids() -> tuple[list[str], str]:
    """Of the keys that the settings name, the one that writes first; or why they cannot be had."""
    ran = _ran("key", "id", "--json")
    if ran.returncode:
        return [], ran.stderr.strip().removeprefix("terrace key id: ")
    return json.loads(ran.stdout), ""


def _ran(*words: str) -> subprocess.CompletedProcess[str]:
    command = [str(program.find()), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)


def _disk(path: str, has_keys: bool, serves_plain: bool) -> Iterator[Finding]:
    ran = _ran("inspect", "--json", path)
    plain, needed, at_hand = 0, Counter[str](), set[str]()
    for report in json.loads(ran.stdout or "[]"):
        for owner in report["owners"]:
            for one in owner["namespaces"]:
                found: dict[str, Any] = one["encryption"]
                plain += found["plain_blocks"]
                for key in found["keys"]:
                    needed[key["id"]] += key["blocks"]
                    at_hand |= {key["id"]} if key["at_hand"] else set()
    name = f"disk.paths {path}"
    for key_id, blocks in sorted(needed.items()):
        if key_id in at_hand:
            yield ok(f"{name}: {blocks} blocks are encrypted with key {key_id}, which is at hand")
        else:
            yield warn(
                f"{name}: {blocks} blocks need key {key_id}, which is not at hand: they are misses",
                NAME_KEY,
            )
    if plain and has_keys and not serves_plain:
        yield note(f"{name}: {plain} blocks are not encrypted, and not served beside a key", PLAIN)


def _packs(store: Path, ids: list[str], serves_plain: bool) -> Iterator[Finding]:
    seen = {
        match[1] or ""
        for folder in store.glob("v1/*/g*/n*")
        if (match := _PACKS.fullmatch(folder.name))
    }
    name = f"object.path {store}"
    for key_id in sorted(seen - {""}):
        if key_id in ids:
            yield ok(f"{name}: has packs that are encrypted with key {key_id}, which is at hand")
        else:
            yield note(
                f"{name}: has packs that need key {key_id}, which is not at hand: misses here",
                NAME_KEY,
            )
    if "" in seen and ids and not serves_plain:
        yield note(f"{name}: has packs that are not encrypted; not served beside a key", PLAIN)
