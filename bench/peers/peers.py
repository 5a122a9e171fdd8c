"""`peers`: Terrace's disk tier beside LMCache's local disk backend and NIXL's POSIX backend.

The same blocks, the same folder, alternating; see README.md for what is compared with what.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[2] / "tools"),
]

from bench.vllm import lines  # noqa: E402

from engine_env import LIBRARY, ROOT  # noqa: E402

VARIABLE = "TERRACE_BENCH_PEERS"
RUNS = 9
MEBIBYTES = 512
PAYLOADS = (768 << 10, 3 << 20)
PEERS = {"lmcache": "LMCache 0.5.6 local disk", "nixl": "NIXL 1.5.1 POSIX"}
# What is compared: name, Terrace's verb, the peer's, and who checks what it reads, or syncs.
READS = (
    ("read", "plain", "read", "none"),
    ("read", "read", "read", "terrace"),
    ("read", "read", "checked", "both"),
)
# Terrace's writes are durable when they end; the peer's as it has them, and synced behind.
WRITES = (("write", "write", "write", "terrace"), ("write", "write", "synced", "both"))


class Side:
    """A process that does what a line says and answers with bytes per second."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process, self._log = process, log
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            words = self._log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self._process.args!r} ended:\n{words}")
        return line

    def rate(self, verb: str) -> float:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # Its end is told with its answer.
            self._process.stdin.write(verb + "\n")
            self._process.stdin.flush()
        return float(self._answer())


@contextmanager
def side(words: list[str], log: Path, **variables: str) -> Iterator[Side]:
    with log.open("w") as sink:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
            env={**os.environ, **variables},
            cwd=log.parent,
        )
    try:
        yield Side(process, log)
    finally:
        process.kill()
        process.communicate()


def terrace_words(folder: Path, payload: int, page_cache: str, backend: str) -> list[str]:
    program = str(ROOT / "build" / "release" / "bench" / "disk_bench")
    words = [program, f"--serve={payload}", f"--directory={folder}", f"--mebibytes={MEBIBYTES}"]
    words.append(f"--backend={backend}")
    return [*words, *(["--cached"] if page_cache == "cached" else [])]


def compare(ours: Side, peer: Side, name: str, payload: int, page_cache: str, backend: str) -> None:
    count = (MEBIBYTES << 20) // payload
    for what, verb, other, who in (*READS, *WRITES):
        ours.rate(verb), peer.rate(other)  # Not counted.
        values, limits = [], []
        for _ in range(RUNS):
            values.append(ours.rate(verb))
            limits.append(peer.rate(other))
        params = {
            "piece_bytes": payload,
            "blocks": count,
            "backend": backend,
            "page_cache": page_cache == "cached",
            "checks" if what == "read" else "synced": who,
        }
        title = PEERS[name]
        lines.emit(f"peers.{name}.{what}", params, "bytes/s", values, title, limits, "higher")


def measure(name: str, payload: int, page_cache: str, backend: str) -> None:
    folder = ROOT / "build" / "bench" / "peers"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    count = (MEBIBYTES << 20) // payload
    words = [sys.executable, str(Path(__file__).with_name("peer.py")), name, str(folder)]
    words += [str(payload), str(count), page_cache]
    found = os.environ[VARIABLE]
    with ExitStack() as stack:
        ours = stack.enter_context(
            side(terrace_words(folder, payload, page_cache, backend), folder / "terrace.log")
        )
        peer = stack.enter_context(
            side(words, folder / f"{name}.log", PYTHONPATH=found, TERRACE_LIBRARY=str(LIBRARY))
        )
        compare(ours, peer, name, payload, page_cache, backend)
    shutil.rmtree(folder)


def main() -> int:
    if VARIABLE not in os.environ:
        print(f"peers: run ./dev bench peers, which sets {VARIABLE}", file=sys.stderr)
        return 1
    asked = [word for word in sys.argv[1:] if word.startswith("peers.")]
    for name in PEERS:
        if asked and not any(word.startswith(f"peers.{name}") for word in asked):
            continue
        # What `auto` takes.
        for way in (("direct", "io_uring"), ("cached", "threads")):
            for payload in PAYLOADS:
                measure(name, payload, *way)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
