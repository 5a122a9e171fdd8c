"""The second implementation of the formats, against the vectors that the C++ tests read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

VECTORS = Path(__file__).resolve().parents[2] / "docs" / "formats" / "vectors"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=VECTORS, capture_output=True, text=True, timeout=120
    )


def test_the_vectors_are_what_the_documents_say() -> None:
    done = subprocess.run(
        [sys.executable, "-B", "reference.py"],
        cwd=VECTORS,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_crc_is_the_published_one() -> None:
    """The usual check value, and RFC 3720's of 32 zeros (B.4)."""
    done = run("import checksum as c\nprint(c.crc32c(b'123456789'), c.crc32c(bytes(32)))")
    assert done.stdout.split() == [str(0xE3069283), str(0x8A9136AA)], done.stderr


def test_the_ciphers_are_the_published_ones() -> None:
    """FIPS 197 C.3, the GCM specification's test case 16, RFC 5869's cases 1 and 3."""
    done = run(
        "import encryption as e\n"
        "b = bytes.fromhex\n"
        "rounds = e.expand_key(bytes(range(32)))\n"
        "print(e.encrypt_block(rounds, b('00112233445566778899aabbccddeeff')).hex())\n"
        "plain = b('d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72'\n"
        "          '1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39')\n"
        "aad = b('feedfacedeadbeeffeedfacedeadbeefabaddad2')\n"
        "key = b('feffe9928665731c6d6a8f9467308308' * 2)\n"
        "print(e.seal(key, b('cafebabefacedbaddecaf888'), aad, plain)[1].hex())\n"
        "salt, info = bytes(range(13)), bytes(range(0xf0, 0xfa))\n"
        "print(e.hkdf(b('0b' * 22), salt, info).hex())\n"
        "print(e.hkdf(b('0b' * 22), b'', b'').hex())\n"
    )
    assert done.stdout.split() == [
        "8ea2b7ca516745bfeafc49904b496089",
        "76fc6ece0f4e1768cddf8853bb2d551b",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d",
    ], done.stderr
