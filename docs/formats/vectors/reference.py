"""Second implementation of Terrace's hashes, from the format documents alone; makes the test vectors.

`python3 reference.py` compares the .tsv files beside it with what it computes (exit status 1 where
they differ); `--write` makes them anew. Standard library only.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import disk
import encryption
import learned
import object_dir
import pack
from checksum import PIECE, U64, payload_checksum, splitmix_bytes, xxh3_128


# ---- sequence-hash.md ----------------------------------------------------------------------------


@dataclass(frozen=True)
class ExtraKey:
    kind: int  # 1 salt, 2 LoRA, 3 multimodal
    identity: bytes
    first_token: int = 0
    token_count: int = 0

    def text(self) -> str:
        return f"{self.kind}:{self.identity.hex()}:{self.first_token}:{self.token_count}"


def sequence_hashes(block_tokens: int, tokens: list[int], extra: list[ExtraKey]) -> list[bytes]:
    root = b"TERRACE\0root\0\0\0\1" + struct.pack("<Q", block_tokens)
    parent = hashlib.sha256(root).digest()[:16]
    hashes = []
    for start in range(0, len(tokens) - block_tokens + 1, block_tokens):
        entries = [encode_extra(key, start) for key in extra if enters(key, start, block_tokens)]
        message = b"TRSB\0\0\0\1" + struct.pack("<II", block_tokens, len(entries)) + parent
        message += struct.pack(f"<{block_tokens}I", *tokens[start : start + block_tokens])
        message += b"".join(entries)
        parent = hashlib.sha256(message).digest()[:16]
        hashes.append(parent)
    return hashes


def enters(key: ExtraKey, start: int, block_tokens: int) -> bool:
    if key.kind != 3:
        return start == 0
    end = key.first_token + key.token_count
    return max(key.first_token, start) < min(end, start + block_tokens)


def encode_extra(key: ExtraKey, start: int) -> bytes:
    out = struct.pack("<BQ", key.kind, len(key.identity))
    if key.kind == 3:
        out += struct.pack("<qQ", key.first_token - start, key.token_count)
    return out + key.identity


def sequence_vectors() -> list[list[str]]:
    salt, lora = ExtraKey(1, b"tenantA"), ExtraKey(2, b"adapter-7")
    image = ExtraKey(3, bytes(range(32)), 5, 20)
    cases: list[tuple[str, int, list[int], list[ExtraKey]]] = [
        ("plain_16", 16, list(range(48)), []),
        ("plain_32", 32, list(range(64)), []),
        ("partial_block_is_not_hashed", 16, list(range(47)), []),
        ("nothing_full", 16, list(range(15)), []),
        ("one_token_blocks", 1, [0, 0xFFFFFFFF, 7], []),
        ("salt", 16, list(range(32)), [salt]),
        ("empty_salt_is_a_salt", 16, list(range(32)), [ExtraKey(1, b"")]),
        ("lora", 16, list(range(32)), [lora]),
        ("lora_then_salt", 16, list(range(32)), [lora, salt]),
        ("salt_then_lora", 16, list(range(32)), [salt, lora]),
        ("image_over_two_blocks", 16, list(range(48)), [image]),
        ("image_outside", 16, list(range(48)), [ExtraKey(3, b"x", 48, 4)]),
        ("image_of_no_tokens", 16, list(range(32)), [ExtraKey(3, b"x", 4, 0)]),
        ("two_images_and_all", 4, list(range(100, 112)),
         [salt, lora, ExtraKey(3, b"\x00\xff", 0, 3), ExtraKey(3, b"b", 3, 6)]),
    ]
    rows = []
    for name, block_tokens, tokens, extra in cases:
        hashes = sequence_hashes(block_tokens, tokens, extra)
        rows.append([
            name, str(block_tokens), ",".join(map(str, tokens)),
            ";".join(key.text() for key in extra), ",".join(h.hex() for h in hashes),
        ])
    return rows


# ---- fingerprint.md ------------------------------------------------------------------------------


def fingerprint_digest(part: str, fields: list[tuple[bytes, bytes]]) -> str:
    domain = {"content": b"TERRACE\0content\1", "layout": b"TERRACE\0layout\0\1"}[part]
    message = domain + struct.pack("<Q", len(fields))
    for name, value in sorted(fields):
        message += struct.pack("<Q", len(name)) + name + struct.pack("<Q", len(value)) + value
    return hashlib.sha256(message).hexdigest()


def fingerprint_vectors() -> list[list[str]]:
    cases: list[tuple[str, str, list[tuple[bytes, bytes]]]] = [
        ("nothing", "content", []),
        ("nothing", "layout", []),
        ("two_fields", "content", [(b"model", b"SmolLM2-135M"), (b"dtype", b"float32")]),
        ("same_fields_other_part", "layout", [(b"model", b"SmolLM2-135M"), (b"dtype", b"float32")]),
        ("any_bytes", "content", [(b"a=b", b"\x00\xff\n\\"), (b"utf8", "ß".encode())]),
        ("boundary_moved", "content", [(b"ab", b"c")]),
        ("boundary_moved_back", "content", [(b"a", b"bc")]),
    ]
    return [
        [name, part, ";".join(f"{n.hex()}={v.hex()}" for n, v in fields),
         fingerprint_digest(part, fields)]
        for name, part, fields in cases
    ]


# ---- checksum.md ---------------------------------------------------------------------------------


def checksum_vectors() -> list[list[str]]:
    lengths = [0, 1, 8, 63, 64, 65, 1000, 4095, 4096, 4097, 8192, 12289, 24576, 100_000, 737_280]
    rows = []
    for length in lengths:
        rows.append(["zeros", "0", str(length), f"{payload_checksum(bytes(length)):016x}"])
        random = splitmix_bytes(length + 1, length)
        rows.append(["splitmix64", str(length + 1), str(length), f"{payload_checksum(random):016x}"])
    return rows


# ---- frame.md ------------------------------------------------------------------------------------


def frame_vectors() -> list[list[str]]:
    content, layout = bytes(range(0x40, 0x60)), bytes(range(0x80, 0xA0))
    cases = [
        (0x0102, 0x0304, 0x05060708, 0x1112131415161718, 737_280, 0x1122334455667788),
        (0, 0, 0, 0, 1, 0), (3, 2, 1, 1, 98_304, U64), (0, 63, 7, U64, 4096, 1),
    ]
    rows = []
    for group, rank, generation, era, length, checksum in cases:
        page = b"TRCFRAME" + struct.pack(
            "<IHHHHIQQ", 1, 0, group, rank, 0, generation, length, checksum
        )
        page += bytes(range(16)) + content + layout + bytes(72) + struct.pack("<Q", era)
        page = page.ljust(PIECE - 16, b"\0")
        rows.append([
            bytes(range(16)).hex(), content.hex(), layout.hex(),
            *map(str, (group, rank, generation, era, length, checksum)),
            page[:200].hex(), xxh3_128(page).hex(),
        ])
    return rows


# ---- encryption.md -------------------------------------------------------------------------------


def encryption_vectors() -> list[list[str]]:
    masters = [bytes(range(32)), splitmix_bytes(99, 32)]
    content, layout = bytes(range(0x40, 0x60)), bytes(range(0x80, 0xA0))
    rows = [["key", m.hex(), encryption.key_id(m).hex()] for m in masters]
    for content_part, layout_part in ((content, layout), (layout, content)):
        key = encryption.namespace_key(masters[0], content_part, layout_part)
        rows.append(["namespace", masters[0].hex(), content_part.hex(), layout_part.hex(), key.hex()])
    cases = [
        (masters[0], (0, 0, 1, 0), 16),
        (masters[0], (0x0102, 0x0304, 0x05060708, 0x1112131415161718), 4096),
        (masters[1], (0, 3, 7, 1), 5000), (masters[1], (1, 0, 0, U64), 8192),
    ]
    for number, (master, numbers, length) in enumerate(cases):
        fields = {
            "hash": bytes(range(16)), "content": content, "layout": layout,
            "salt": splitmix_bytes(1000 + number, 32),
        }
        plain = splitmix_bytes(length, length)
        header, stored = encryption.frame(master, fields, numbers, plain, payload_checksum)
        rows.append([
            "frame", master.hex(), fields["content"].hex(), fields["layout"].hex(),
            fields["hash"].hex(), *map(str, numbers), fields["salt"].hex(), str(length), str(length),
            header.hex(), hashlib.sha256(stored).hexdigest(),
        ])
    return rows


# ---- files ---------------------------------------------------------------------------------------


def files() -> dict[str, str]:
    def table(columns: str, rows: list[list[str]]) -> str:
        lines = ["# Made by reference.py. Columns, tab-separated:", f"# {columns}"]
        return "\n".join(lines + ["\t".join(row) for row in rows]) + "\n"

    return {
        "sequence-hash.tsv": table(
            "name, block_tokens, tokens, extra keys (kind:identity in hex:first_token:token_count;…),"
            " one hash per full block",
            sequence_vectors(),
        ),
        "fingerprint.tsv": table(
            "name, part, fields (name in hex=value in hex;…), digest", fingerprint_vectors()
        ),
        "checksum.tsv": table(
            "payload (zeros, or little-endian SplitMix64 words), seed, bytes, checksum",
            checksum_vectors(),
        ),
        "encryption.tsv": table(
            "key, master key, key id | namespace, master key, content digest, layout digest, key |"
            " frame, master key, content digest, layout digest, hash, group, rank, generation, era,"
            " salt, seed and bytes of the payload (SplitMix64), header bytes 0 to 199, SHA-256 of the"
            " stored payload",
            encryption_vectors(),
        ),
        "frame.tsv": table(
            "hash, content digest, layout digest, group, rank, generation, era, payload bytes,"
            " payload checksum, header bytes 0 to 199 (codec 0), header bytes 4080 to 4095",
            frame_vectors(),
        ),
        "disk.tsv": table(disk.COLUMNS, disk.vectors()),
        "learned.tsv": table(learned.COLUMNS, learned.vectors()),
        "pack.tsv": table(pack.COLUMNS, pack.vectors()),
        "object-dir.tsv": table(object_dir.COLUMNS, object_dir.vectors()),
    }


def main() -> int:
    folder = Path(__file__).resolve().parent
    differing = []
    for name, content in files().items():
        path = folder / name
        if "--write" in sys.argv[1:]:
            path.write_text(content)
        elif not path.exists() or path.read_text() != content:
            differing.append(name)
    for name in differing:
        print(f"{name}: differs from what reference.py computes")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
