"""Second implementation of encryption.md, from the document alone: HKDF, AES-256-GCM, frames.

Slow and simple; the test vectors need no more. Standard library only; `reference.py` writes and
compares the vectors.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable


# ---- HKDF-SHA256, RFC 5869 -----------------------------------------------------------------------


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    """The first 32 bytes, which are one round."""
    pseudorandom = hmac.new(salt or bytes(32), key, hashlib.sha256).digest()
    return hmac.new(pseudorandom, info + b"\1", hashlib.sha256).digest()


# ---- AES-256, FIPS 197 ---------------------------------------------------------------------------


def xtime(a: int) -> int:
    return ((a << 1) ^ 0x1B) & 0xFF if a & 0x80 else a << 1


def make_sbox() -> list[int]:
    # 3 generates all of the field's units: powers give logarithms, and those inverses.
    powers, value = [], 1
    for _ in range(255):
        powers.append(value)
        value ^= xtime(value)
    logarithm = {power: i for i, power in enumerate(powers)}
    box = []
    for a in range(256):
        b = powers[-logarithm[a] % 255] if a else 0
        rotated = b
        for _ in range(4):
            b = ((b << 1) | (b >> 7)) & 0xFF
            rotated ^= b
        box.append(rotated ^ 0x63)
    return box


SBOX = make_sbox()


def expand_key(key: bytes) -> list[bytes]:
    words = [key[i : i + 4] for i in range(0, 32, 4)]
    constant = 1
    for i in range(8, 60):
        word = words[i - 1]
        if i % 8 == 0:
            word = bytes(SBOX[b] for b in word[1:] + word[:1])
            word = bytes([word[0] ^ constant]) + word[1:]
            constant = xtime(constant)
        elif i % 8 == 4:
            word = bytes(SBOX[b] for b in word)
        words.append(bytes(a ^ b for a, b in zip(words[i - 8], word)))
    return [b"".join(words[i : i + 4]) for i in range(0, 60, 4)]


def encrypt_block(rounds: list[bytes], block: bytes) -> bytes:
    state = [a ^ b for a, b in zip(block, rounds[0])]
    for number in range(1, 15):
        state = [SBOX[state[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if number < 14:
            mixed = []
            for column in range(0, 16, 4):
                a = state[column : column + 4]
                every = a[0] ^ a[1] ^ a[2] ^ a[3]
                mixed += [a[i] ^ every ^ xtime(a[i] ^ a[(i + 1) % 4]) for i in range(4)]
            state = mixed
        state = [a ^ b for a, b in zip(state, rounds[number])]
    return bytes(state)


# ---- GCM, NIST SP 800-38D ------------------------------------------------------------------------


def multiply(x: int, y: int) -> int:
    product = 0
    for bit in range(127, -1, -1):
        if (x >> bit) & 1:
            product ^= y
        y = (y >> 1) ^ (0xE1 << 120 if y & 1 else 0)
    return product


def seal(key: bytes, nonce: bytes, additional: bytes, plain: bytes) -> tuple[bytes, bytes]:
    """Encrypted bytes and tag."""
    rounds = expand_key(key)
    stream = b"".join(
        encrypt_block(rounds, nonce + struct.pack(">I", counter))
        for counter in range(2, 2 + (len(plain) + 15) // 16)
    )
    stored = bytes(a ^ b for a, b in zip(plain, stream))
    subkey = int.from_bytes(encrypt_block(rounds, bytes(16)), "big")
    value = 0
    for part in (additional, stored):
        for at in range(0, len(part), 16):
            block = part[at : at + 16].ljust(16, b"\0")
            value = multiply(value ^ int.from_bytes(block, "big"), subkey)
    lengths = struct.pack(">QQ", 8 * len(additional), 8 * len(stored))
    value = multiply(value ^ int.from_bytes(lengths, "big"), subkey)
    mask = encrypt_block(rounds, nonce + struct.pack(">I", 1))
    return stored, bytes(a ^ b for a, b in zip(value.to_bytes(16, "big"), mask))


# ---- encryption.md -------------------------------------------------------------------------------


def key_id(master: bytes) -> bytes:
    return hkdf(master, b"", b"TERRACE\0key id\1")[:8]


def namespace_key(master: bytes, content: bytes, layout: bytes) -> bytes:
    return hkdf(master, b"", b"TERRACE\0namespace\1" + content + layout)


Checksum = Callable[[bytes], int]


def frame(
    master: bytes, fields: dict[str, bytes], numbers: tuple[int, int, int, int], plain: bytes,
    checksum: Checksum,
) -> tuple[bytes, bytes]:
    """Bytes 0 to 199 of the header page, and the stored payload. `numbers`: group, rank,
    generation, era."""
    group, rank, generation, number_of_era = numbers
    era = struct.pack("<Q", number_of_era)
    start = b"TRCFRAME" + struct.pack("<IHHHHIQ", 1, 1, group, rank, 0, generation, len(plain))
    rest = fields["hash"] + fields["content"] + fields["layout"] + key_id(master) + fields["salt"]
    identity = start + era + rest
    key = hkdf(
        namespace_key(master, fields["content"], fields["layout"]), fields["salt"],
        b"TERRACE\0frame\1" + identity,
    )
    private = struct.pack("<QQ", checksum(plain), 0)
    stored, tag = seal(key, bytes(12), identity, private + plain)
    header = start + struct.pack("<Q", checksum(stored[16:])) + rest + stored[:16] + tag + era
    return header, stored[16:]
