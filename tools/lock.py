"""Writes the lock files requirements/*.txt from the top-level pins requirements/*.in.

    python3.11 tools/lock.py [name...]        names: those of requirements/*.in; default all

Each pin is downloaded by name with this machine's pip settings (never with its dependencies: the
.in files name every package, see requirements/README.md), hashed, and written with the hash of the
one file that fits CPython 3.11 on x86_64 Linux.  Where the new lock drops or adds nothing, the file
stays byte for byte the same.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
NAMES = tuple(sorted(path.stem for path in REQUIREMENTS.glob("*.in")))
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.+!]+)$")


class LockError(Exception):
    """A pin that is malformed or could not be downloaded."""


def normalized(name: str) -> str:
    """The package name as PEP 503 spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(path: Path) -> list[tuple[str, str]]:
    """(name, version) of each line; comments and empty lines are left out."""
    pins = []
    for number, raw in enumerate(path.read_text().splitlines(), start=1):
        line = raw.split("#", 1)[0].strip()
        if not line:
            continue
        match = PIN.match(line)
        if match is None:
            raise LockError(f"{path.name}:{number}: '{line}' is no exact pin; write NAME==VERSION")
        pins.append((match["name"], match["version"]))
    return pins


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while piece := source.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def file_of(folder: Path, name: str, version: str) -> Path:
    """The one downloaded wheel of this package and version."""
    wanted = (normalized(name), version)
    found = []
    for path in folder.glob("*.whl"):
        parts = path.name.split("-")
        if (normalized(parts[0]), parts[1]) == wanted:
            found.append(path)
    if len(found) != 1:
        raise LockError(f"{name}=={version}: expected one wheel, found {[p.name for p in found]}")
    return found[0]


def download(pins: list[tuple[str, str]], folder: Path) -> None:
    arguments = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    arguments += ["--retries", "10", "--timeout", "60", "-d", str(folder)]
    arguments += [f"{name}=={version}" for name, version in pins]
    if subprocess.run(arguments, check=False).returncode != 0:
        raise LockError("pip could not download every pin; its message stands above")


def lock_text(source: Path, folder: Path) -> str:
    lines = [
        f"# Made by tools/lock.py from {source.name}; change that file and run the tool again.",
        "# Install with --no-deps --require-hashes. CPython 3.11, Linux x86_64.",
    ]
    for name, version in sorted(read_pins(source), key=lambda pin: normalized(pin[0])):
        digest = sha256_of(file_of(folder, name, version))
        lines.append(f"{name}=={version} --hash=sha256:{digest}")
    return "\n".join(lines) + "\n"


def lock(name: str) -> None:
    source = REQUIREMENTS / f"{name}.in"
    with tempfile.TemporaryDirectory(prefix="terrace-lock-") as scratch:
        folder = Path(scratch)
        download(read_pins(source), folder)
        text = lock_text(source, folder)
    target = REQUIREMENTS / f"{name}.txt"
    target.write_text(text)
    print(f"wrote requirements/{target.name}: {text.count('--hash=')} pins")


def main() -> int:
    names = sys.argv[1:] or list(NAMES)
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"lock: unknown {unknown}; known are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    try:
        for name in names:
            lock(name)
    except LockError as error:
        print(f"lock: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
