"""Second implementation of pack.md, from the document alone: names, places of frames, footers.

Standard library only; `reference.py` writes and compares the vectors.
"""

from __future__ import annotations

import hashlib
import struct

from checksum import splitmix_bytes, xxh3_128

PAGE = 4096

COLUMNS = (
    "by the first one.\n"
    "# name: content digest, layout digest, generation, N, key id (or -), sequence hash of the last"
    " block, name\n"
    "# reset: content digest, layout digest, generation, name\n"
    "# turn: seconds since 1970, seconds of a turn, name\n"
    "# old-turn: seconds since 1970, seconds of a turn, name of another turn, whether it is removed\n"
    "# other: name that is no pack's, no reset's and no turn's\n"
    "# frame: N, ranks, payload bytes of each group, block, group, rank, offset in the pack\n"
    "# footer: N, ranks, payload bytes of each group, tokens of a block, content digest, layout"
    " digest, seed of the sequence hashes (SplitMix64, 16 bytes each), offset in the pack, bytes of"
    " the footer, its bytes before the hashes, its last 24 (between are the hashes, then zeros)"
)


# ---- Name ----------------------------------------------------------------------------------------


def namespace(content: bytes, layout: bytes) -> str:
    message = b"".join(struct.pack("<Q", len(digest)) + digest for digest in (content, layout))
    return hashlib.sha256(message).hexdigest()[:32]


def name(
    content: bytes, layout: bytes, generation: int, blocks: int, key_id: bytes, last: bytes
) -> str:
    key = f"k{key_id.hex()}" if key_id else ""
    text = last.hex()
    folder = f"v1/{namespace(content, layout)}/g{generation}/n{blocks}{key}"
    return f"{folder}/{text[:2]}/{text}.pack"


def reset(content: bytes, layout: bytes, generation: int) -> str:
    return f"v1/{namespace(content, layout)}/resets/{generation:020}"


def turn_at(now: int, span: int) -> int:
    return now // span * span


def turn(number: int) -> str:
    return f"turns/{number:020}"


def is_removed(number: int, present: int, span: int) -> bool:
    return number + max(86_400, 2 * span) < present


# ---- Content -------------------------------------------------------------------------------------


def frame_bytes(payload: int) -> int:
    return PAGE + (payload + PAGE - 1) // PAGE * PAGE


def frame_offset(payloads: list[int], ranks: int, block: int, group: int, rank: int) -> int:
    frames = [frame_bytes(payload) for payload in payloads]
    return ranks * (block * sum(frames) + sum(frames[:group])) + rank * frames[group]


def footer(
    ranks: int, payloads: list[int], tokens: int, digests: tuple[bytes, bytes], hashes: bytes
) -> bytes:
    out = b"TRCPACKF" + struct.pack(
        "<IIHHI", 1, len(hashes) // 16, len(payloads), ranks, tokens
    )
    out += b"".join(digests) + struct.pack(f"<{len(payloads)}Q", *payloads) + hashes
    length = (len(out) + 24 + PAGE - 1) // PAGE * PAGE
    out = out.ljust(length - 24, b"\0") + struct.pack("<Q", length)
    return out + xxh3_128(out)


# ---- vectors -------------------------------------------------------------------------------------

DIGESTS = bytes(range(0x40, 0x60)), bytes(range(0x80, 0xA0))


def name_vectors() -> list[list[str]]:
    hashes = bytes(range(16)), bytes.fromhex("fedcba9876543210") * 2
    key = bytes.fromhex("00ab54a98ceb1f0a")
    rows = []
    for digests, generation, blocks, key_id, last in (
        (DIGESTS, 0, 1, b"", hashes[0]), (DIGESTS, 0, 32, b"", hashes[1]),
        (DIGESTS, 1_767_225_600, 16, key, hashes[1]), (DIGESTS[::-1], 10**18, 4096, key, hashes[0]),
        ((bytes(32), bytes(32)), 7, 100, b"", bytes(16)),
    ):
        rows.append([
            "name", digests[0].hex(), digests[1].hex(), str(generation), str(blocks),
            key_id.hex() or "-", last.hex(), name(*digests, generation, blocks, key_id, last),
        ])
    for generation in (1, 1_767_225_600, 10**18):
        digests_hex = [digest.hex() for digest in DIGESTS]
        rows.append(["reset", *digests_hex, str(generation), reset(*DIGESTS, generation)])
    return rows


def turn_vectors() -> list[list[str]]:
    rows = []
    for now, span in ((1_767_225_600, 3600), (1_767_229_199, 3600), (1_767_229_200, 3600),
                      (1_767_225_601, 1), (1_767_225_600, 604_800), (59, 60), (0, 3600)):
        rows.append(["turn", str(now), str(span), turn(turn_at(now, span))])
    for span in (1, 3600, 43_200, 43_201, 604_800):
        now = 1_767_225_617
        present = turn_at(now, span)
        line = present - max(86_400, 2 * span)
        for number in (0, line - 1, line, line + 1, present - 1, present + span, 10**18):
            verdict = "yes" if is_removed(number, present, span) else "no"
            rows.append(["old-turn", str(now), str(span), turn(number), verdict])
    return rows


def other_vectors() -> list[list[str]]:
    """Nearly a name: each is one that somebody could have put."""
    folder, key = f"v1/{namespace(*DIGESTS)}", "00ab54a98ceb1f0a"
    last = bytes(range(16)).hex()
    packs = [
        # A second name for what has one.
        "g00/n32/00", "g01/n32/00", "g0/n032/00", "g0/n032k" + key + "/00", "g0/n0032/00",
        "g/n32/00", "g0/n/00", "g+0/n32/00", "g-1/n32/00", "g0x0/n32/00", "g0/n32K" + key + "/00",
        "g0/n32k" + key.upper() + "/00", "g0/n32k" + key[1:] + "/00", "g0/n32k/00", "g0/n0/00",
        "g0/n4097/00", "g18446744073709551616/n32/00", "g0/n32/01", "g0/n32/0", "g0/n32", "G0/n32/00",
        "g0/n32/00/00", "n32/g0/00",
    ]
    turns = ["", "0", "1767225600", f"{1:019}", f"{1:021}", "0000000000x767225600",
             "-0000000001767225600", "99999999999999999999"]
    resets = ["1", f"{1:019}", f"{1:021}", f"{10**18 + 1:020}", f"{1:020}x"]
    return [
        *(["other", f"{folder}/{middle}/{last}.pack"] for middle in packs),
        ["other", f"v1/{namespace(*DIGESTS).upper()}/g0/n32/00/{last}.pack"],
        ["other", f"v2/{namespace(*DIGESTS)}/g0/n32/00/{last}.pack"],
        ["other", f"{folder}/g0/n32/00/{last}.pac"], ["other", f"{folder}/g0/n32/00/{last}"],
        ["other", f"{folder}/g0/n32/00/{last[:-1]}.pack"],
        *(["other", f"{folder}/resets/{number}"] for number in resets),
        *(["other", f"turns/{number}"] for number in turns), ["other", "writable/if-absent"],
    ]


def footer_vectors() -> list[list[str]]:
    # With two groups 248 hashes fill one page to the last byte.
    cases = [
        (1, 1, [1], 1), (4, 2, [98_304, 4097], 16), (248, 1, [4096, 4096], 16),
        (249, 1, [4096, 4096], 16), (247, 64, [737_280, 12_288, 1], 32),
        (32, 8, [4096 * i + 1 for i in range(64)], 256), (4096, 1, [65_536], 16),
    ]
    rows = []
    for seed, (blocks, ranks, payloads, tokens) in enumerate(cases):
        layout = [str(blocks), str(ranks), ",".join(map(str, payloads))]
        for place in sorted({(0, 0, 0), (blocks - 1, len(payloads) - 1, ranks - 1),
                             (blocks // 2, len(payloads) // 2, ranks // 2)}):
            offset = frame_offset(payloads, ranks, *place)
            rows.append(["frame", *layout, *map(str, (*place, offset))])
        hashes = splitmix_bytes(seed, 16 * blocks)
        whole = footer(ranks, payloads, tokens, DIGESTS, hashes)
        rows.append([
            "footer", *layout, str(tokens), DIGESTS[0].hex(), DIGESTS[1].hex(), str(seed),
            str(frame_offset(payloads, ranks, blocks, 0, 0)), str(len(whole)),
            whole[: 88 + 8 * len(payloads)].hex(), whole[-24:].hex(),
        ])
    return rows


def vectors() -> list[list[str]]:
    return name_vectors() + turn_vectors() + other_vectors() + footer_vectors()
