"""Stands in for the demo's engine with Terrace below it: three caches that serve prefixes.

The lowest is a disk, or a bucket that several stand-ins share. What is on disk outlives a stand-in,
in a file of frames like the real one, so that the demo's own damage is done to it and is seen.
`wrong` picks how it misbehaves.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from pathlib import Path

from demo.server import Answer
from terrace import _native
from terrace.cli import damage

BLOCK = 32
DEVICE_BLOCKS = 16  # two turns of one conversation, less than two conversations
FRAME = 8 * damage.PAGE
PAYLOAD = bytes(FRAME - damage.PAGE)
INSPECT = f"""
import json, pathlib, sys
count = pathlib.Path(sys.argv[-1], 'x.slots').stat().st_size // {FRAME}
print(json.dumps([{{'owners': [{{'namespaces': [{{'sealed': count}}]}}]}}]))
"""


def inspect_command() -> list[str]:
    """Answers like `terrace inspect --json FOLDER` as far as the demo reads it."""
    return [sys.executable, "-c", INSPECT]


class StandIn:
    """Answers are a function of the prompt; blocks are known by their real sequence hashes."""

    lowest = "disk"

    def __init__(self, disk: Path, wrong: str = "") -> None:
        self._file = disk / "x.slots"
        self._wrong = wrong
        self._device: list[bytes] = []  # oldest first
        self._host: set[bytes] = set()
        self._disk: set[bytes] = set()
        self._corrupt: set[bytes] = set()
        self._read()

    def _read(self) -> None:
        """What an earlier one left on disk."""
        content = self._file.read_bytes() if self._file.exists() else b""
        for at in range(0, len(content), FRAME):
            key = content[at + damage.HASH_AT : at + damage.HASH_AT + 16]
            is_whole = content[at + damage.PAGE : at + FRAME] == PAYLOAD
            (self._disk if is_whole or self._wrong == "trusts disk" else self._corrupt).add(key)
        if self._wrong == "forgets":
            self._disk.clear()

    def _keys(self, tokens: list[int], salt: str) -> list[bytes]:
        kind = _native.ExtraKey.SALT
        extra = [_native.ExtraKey(kind, salt.encode())] if salt else []
        if self._wrong == "ignores salt":
            extra = []
        return _native.hash_sequence(BLOCK, array("I", tokens), extra)

    def tokenize(self, text: str) -> list[int]:
        return [zlib.crc32(word.encode()) % 50_000 for word in text.split()]

    def complete(self, tokens: list[int], count: int, salt: str = "") -> Answer:
        hits = dict.fromkeys(("device", "host", self.lowest), 0)
        first_miss = None
        for key in self._keys(tokens[:-1], salt):
            tier = self._tier_of(key, hits)
            if not tier:
                first_miss = "corrupt" if key in self._corrupt else "never_stored"
                break
            hits[tier] += BLOCK
        answer = [(sum(tokens) + 7 * index) % 251 for index in range(count)]
        if self._wrong == "lies" and hits["host"] + hits[self.lowest]:
            answer = [token + 1 for token in answer]
        self._keep(self._keys([*tokens, *answer[:-1]], salt))
        local = hits.pop("device")
        ledger = {"local_tokens": local, "hit_tokens": hits, "first_miss": first_miss}
        ttft_s = 0.0 if self._wrong == "measures nothing" else 0.01
        return Answer(answer, ttft_s, ledger)

    def _tier_of(self, key: bytes, hits: dict[str, int]) -> str:
        if key in self._device and not hits["host"] + hits[self.lowest]:
            return "device"
        if key in self._host and self._wrong != "has no host":
            return "host"
        return "disk" if key in self._disk and key not in self._host else ""

    def _keep(self, keys: list[bytes]) -> None:
        kept = [key for key in self._device if key not in keys]
        self._device = [*kept, *keys][-DEVICE_BLOCKS:]
        fresh = [key for key in keys if key not in self._disk | self._corrupt]
        if self._wrong == "never writes":
            fresh = []
        with self._file.open("ab") as sink:
            for key in fresh:
                head = damage.MAGIC.ljust(damage.HASH_AT, b"\0") + key
                sink.write(head.ljust(damage.PAGE, b"\0") + PAYLOAD)
        self._host.update(keys)
        self._disk.update(fresh)

    def kill(self) -> None:
        """Nothing of it runs anywhere."""


class Bucket:
    """The blocks of whole packs, as the server keeps them; none while it is down."""

    def __init__(self, pack_blocks: int) -> None:
        self.pack_blocks = pack_blocks
        self.is_up = True
        self.blocks: set[bytes] = set()

    def packs(self) -> int:
        return len(self.blocks) // self.pack_blocks

    def kill(self) -> None:
        self.is_up = False


class SharingStandIn(StandIn):
    """One of several engines over one bucket; its files lie in a folder of its own."""

    lowest = "object"

    def __init__(self, folder: Path, bucket: Bucket, wrong: str = "") -> None:
        folder.mkdir()
        self._bucket = bucket
        super().__init__(folder, wrong)

    def _tier_of(self, key: bytes, hits: dict[str, int]) -> str:
        if key in self._device and not hits["host"] + hits["object"]:
            return "device"
        if key in self._host and self._wrong != "has no host":
            return "host"
        is_there = self._bucket.is_up or self._wrong == "invents"
        return "object" if is_there and key in self._bucket.blocks - self._host else ""

    def _keep(self, keys: list[bytes]) -> None:
        super()._keep(keys)
        whole = len(keys) // self._bucket.pack_blocks * self._bucket.pack_blocks
        if self._bucket.is_up and self._wrong != "never puts":
            self._bucket.blocks.update(keys[:whole])
