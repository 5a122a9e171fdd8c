"""Remembers which inputs passed a slow check, by hash, so that the second run is quick."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from dev import build, paths, run, say
from dev.check.finding import Finding
from dev.check.ladder import reached
from dev.check.tree import Tree


def fingerprint(tree: Tree, path: str, *more: str) -> str:
    """Changes with the file, every file of ours that it includes, and `more` (tool, settings)."""
    digest = hashlib.sha256()
    for name in [path, *sorted(reached(tree, path))]:
        digest.update(f"{name}\0{tree.text(name)}\0".encode())
    for text in more:
        digest.update(f"{text}\0".encode())
    return digest.hexdigest()


def each(
    rule: str,
    items: Iterable[tuple[str, str]],
    work: Callable[[str], list[Finding]],
) -> list[Finding]:
    """Runs `work(path)` for each (path, fingerprint) that has not passed before."""
    folder = paths.cache() / "passed" / rule
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [(path, key) for path, key in items if not (folder / key).exists()]

    log = run.log_path(rule)

    def one(item: tuple[str, str]) -> list[Finding]:
        path, key = item
        found = work(path)
        if not found:
            (folder / key).touch()
        with log.open("a") as sink:
            sink.write(f"{path}: {len(found)} findings\n")
        return found

    if not waiting:
        return []
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    with say.phase(f"{rule}: {len(waiting)} files", log), ThreadPoolExecutor(build.jobs()) as pool:
        return [finding for found in pool.map(one, waiting) for finding in found]


def sweep(days: int = 30) -> None:
    """Forgets marks that are old."""
    oldest = time.time() - days * 86400
    for mark in (paths.cache() / "passed").glob("*/*"):
        if mark.stat().st_mtime < oldest:
            mark.unlink()
