"""The cache folder's discipline: each entry is whole or absent.

An entry is made under a temporary name, checked, listed in a manifest, synced, and renamed.  A
reader trusts it only if the manifest agrees: every file has its recorded size, every file that was
written to since still has its recorded hash, and so has a sample of the others (or all of them).  A
lock per kind keeps two runs from making the same entry.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dev import paths, say

MANIFEST = "manifest.json"
LOCK_WAIT_S = 3600.0
HASHED_AT_MOST = 64


def key_of(*parts: str) -> str:
    """A short name for all that an entry is made from."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while piece := source.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """Every regular file, byte code and the manifest left out (Python rewrites the former)."""
    for directory, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            path = Path(directory) / name
            if name != MANIFEST and not name.endswith(".pyc") and not path.is_symlink():
                yield path


def write_manifest(folder: Path, hash_all: bool) -> None:
    """Lists each file's size, time and hash, and which hashes are compared at every use."""
    facts = {str(path.relative_to(folder)): path.stat() for path in _files(folder)}
    small = [name for name, fact in facts.items() if 0 < fact.st_size <= 1 << 20]
    content = {
        "sizes": {name: fact.st_size for name, fact in facts.items()},
        "times_ns": {name: fact.st_mtime_ns for name, fact in facts.items()},
        "sha256": {name: _sha256(folder / name) for name in facts},
        "always": list(facts) if hash_all else small[:: max(1, len(small) // HASHED_AT_MOST)],
    }
    (folder / MANIFEST).write_text(json.dumps(content, indent=0, sort_keys=True))


def damage(folder: Path) -> str | None:
    """What is wrong with an entry, in words, or None if it is whole."""
    try:
        listed = json.loads((folder / MANIFEST).read_text())
        sizes, hashes = dict(listed["sizes"]), dict(listed["sha256"])
        # A manifest of before hashes were kept of all files names only those to compare.
        times, compared = dict(listed.get("times_ns", {})), set(listed.get("always", hashes))
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its manifest cannot be read ({error})"
    for name, size in sizes.items():
        try:
            actual = (folder / name).lstat()
        except OSError:
            return f"{name} is missing"
        if actual.st_size != size:
            return f"{name} has {actual.st_size} bytes instead of {size}"
        if times.get(name, actual.st_mtime_ns) != actual.st_mtime_ns:
            compared.add(name)
    for name in sorted(compared):
        if _sha256(folder / name) != hashes.get(name):
            return f"{name} has other content than when it was made"
    return None


@contextmanager
def locked(kind: str) -> Iterator[None]:
    """Holds the lock of this kind of entry; waits for another ./dev and says so."""
    folder = paths.cache()
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_WAIT_S
    told = False
    with (folder / f"{kind}.lock").open("a") as handle:
        while True:
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() > deadline:
                    raise say.Stop(
                        f"another ./dev has held {handle.name} for an hour",
                        "end that run, then start again",
                    ) from None
                if not told:
                    say.note(f"another ./dev is making the {kind}; waiting for it")
                    told = True
                time.sleep(0.5)
        yield


def discard(folder: Path) -> None:
    """Removes an entry; renamed first, so that a break leaves nothing that looks whole."""
    if not folder.exists():
        return
    grave = folder.with_name(f"{folder.name}.removed-{os.getpid()}")
    folder.rename(grave)
    with say.phase(f"remove the damaged {folder.name}"):
        shutil.rmtree(grave)


def _sweep(kind: str) -> None:
    """Removes what broken runs left behind. Call under the lock of this kind."""
    for pattern in (f"{kind}-*.part-*", f"{kind}-*.removed-*"):
        for path in paths.cache().glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def ensure(
    kind: str,
    key: str,
    make: Callable[[Path, Path], None],
    *,
    hash_all: bool = False,
) -> Path:
    """The whole entry `<kind>-<key>`, made now if it is absent or damaged.

    `make(part, final)` fills the folder `part` and raises if the outcome is not right; `final` is
    the name it will bear.
    """
    final = paths.cache() / f"{kind}-{key}"
    with locked(kind):
        if final.exists():
            fault = damage(final)
            if fault is None:
                return final
            say.note(f"{final} is damaged: {fault}; making it anew")
            discard(final)
        _sweep(kind)
        part = paths.cache() / f"{kind}-{key}.part-{os.getpid()}"
        part.mkdir()
        try:
            make(part, final)
            write_manifest(part, hash_all)
            os.sync()
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        part.rename(final)
    return final
