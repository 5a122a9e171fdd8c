"""Second implementation of checksum.md, and of what other documents name: XXH3, CRC-32C, SplitMix64.

Standard library only; `reference.py` writes and compares the vectors.
"""

from __future__ import annotations

import struct

U64 = (1 << 64) - 1


# ---- XXH3 for inputs of more than 240 bytes, from its specification ------------------------------

PRIME32 = [0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D]
PRIME64 = [
    0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9,
    0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5,
]
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
PIECE = 4096


def secret_words(offset: int) -> tuple[int, ...]:
    return struct.unpack_from("<8Q", SECRET, offset)


def xxh3_accumulate(data: bytes) -> list[int]:
    """Of stripes of 64 bytes; the last one ends with the input, and may reach back into the one
    before."""
    acc = [PRIME32[2], *PRIME64[:4], PRIME32[1], PRIME64[4], PRIME32[0]]
    last = (len(data) - 1) // 64
    for stripe in range(last + 1):
        words = struct.unpack_from("<8Q", data, len(data) - 64 if stripe == last else 64 * stripe)
        secret = secret_words(121 if stripe == last else 8 * (stripe % 16))
        for i in range(8):
            key = words[i] ^ secret[i]
            acc[i ^ 1] = (acc[i ^ 1] + words[i]) & U64
            acc[i] = (acc[i] + (key & 0xFFFFFFFF) * (key >> 32)) & U64
        if stripe % 16 == 15 and stripe < last:
            scramble = secret_words(128)
            acc = [((a ^ (a >> 47) ^ s) * PRIME32[0]) & U64 for a, s in zip(acc, scramble)]
    return acc


def xxh3_merge(acc: list[int], secret_offset: int, value: int) -> int:
    merge = secret_words(secret_offset)
    for i in range(0, 8, 2):
        product = (acc[i] ^ merge[i]) * (acc[i + 1] ^ merge[i + 1])
        value += (product & U64) ^ (product >> 64)
    value &= U64
    value = ((value ^ (value >> 37)) * 0x165667919E3779F9) & U64
    return value ^ (value >> 32)


def xxh3_64_piece(piece: bytes) -> int:
    """XXH3-64, seed 0, of exactly 4096 bytes (the specification's algorithm for long inputs)."""
    return xxh3_merge(xxh3_accumulate(piece), 11, PIECE * PRIME64[0])


def xxh3_128(data: bytes) -> bytes:
    """XXH3-128, seed 0, canonical, of more than 240 bytes."""
    acc = xxh3_accumulate(data)
    low = xxh3_merge(acc, 11, len(data) * PRIME64[0] & U64)
    high = xxh3_merge(acc, 192 - 64 - 11, ~(len(data) * PRIME64[1]) & U64)
    return struct.pack(">QQ", high, low)


# ---- checksum.md ---------------------------------------------------------------------------------


def avalanche(h: int) -> int:
    h = ((h ^ (h >> 33)) * PRIME64[1]) & U64
    h = ((h ^ (h >> 29)) * PRIME64[2]) & U64
    return h ^ (h >> 32)


def payload_checksum(payload: bytes) -> int:
    total = 0
    for index, start in enumerate(range(0, len(payload), PIECE)):
        piece = payload[start : start + PIECE].ljust(PIECE, b"\0")
        total += avalanche((xxh3_64_piece(piece) + (index + 1) * PRIME64[0]) & U64)
    return avalanche((total + (len(payload) + 1) * PRIME64[4]) & U64)


# ---- CRC-32C (Castagnoli), as in iSCSI, RFC 3720 -------------------------------------------------


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


# ---- bytes that look random ----------------------------------------------------------------------


def splitmix_bytes(seed: int, length: int) -> bytes:
    out = bytearray()
    state = seed
    while len(out) < length:
        state = (state + 0x9E3779B97F4A7C15) & U64
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & U64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & U64
        out += struct.pack("<Q", z ^ (z >> 31))
    return bytes(out[:length])
