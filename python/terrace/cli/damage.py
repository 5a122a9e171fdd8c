"""Flips one byte of one block in a stopped engine's disk tier, and counts what is sealed there.

The frame's layout is docs/formats/frame.md: magic at 0, sequence hash at 40, payload from 4096 on.
"""

from __future__ import annotations

from pathlib import Path

MAGIC = b"TRCFRAME"
PAGE = 4096
HASH_AT = 40


def find_frame(folder: Path, sequence_hash: bytes) -> tuple[Path, int]:
    """The slot file and the offset of the block's frame. Raises LookupError when there is none."""
    for path in sorted(folder.rglob("*.slots")):
        with path.open("rb") as file:
            size = path.stat().st_size
            for offset in range(0, size, PAGE):
                file.seek(offset)
                head = file.read(HASH_AT + 16)
                if head.startswith(MAGIC) and head[HASH_AT:] == sequence_hash:
                    return path, offset
    raise LookupError(f"no frame of block {sequence_hash.hex()} in {folder}")


def flip_byte(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        value = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([value ^ 0x01]))
