"""One peer in a process of its own; each line of standard input is done and answered.

    peer.py NAME FOLDER PAYLOAD_BYTES COUNT direct|cached

`write` stores all blocks, `read` reads all, `checked` reads all and compares each one's checksum,
`synced` stores all and has them on the medium; the answer is bytes per second.  What a peer prints
itself goes to standard error.
"""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

WORKERS = 4  # Threads that LMCache's backend reads with; of checksums, too.
LIMIT_S = 300.0


class Peer(Protocol):
    def fill(self, keep: Callable[[int, int], None]) -> None:
        """The blocks' content, in memory; `keep(number, address)` of each one."""

    def forget(self) -> None:
        """Before a write, outside the time that is taken: what the last one left on disk goes."""

    def write(self) -> None:
        """All blocks, to their end."""

    def sync(self) -> None:
        """What was written is on the medium."""

    def read(self, on_block: Callable[[int, int], None] | None) -> None:
        """All blocks; `on_block(number, address)` for each one, where it came to lie."""


class Checksums:
    """Terrace's payload checksum, of each block as it was written."""

    def __init__(self, payload: int) -> None:
        library = ctypes.CDLL(os.environ["TERRACE_LIBRARY"])  # Gives the lock of Python away.
        self._of = library.terrace_checksum_bytes
        self._of.restype = ctypes.c_uint64
        self._of.argtypes = (ctypes.c_void_p, ctypes.c_uint64)
        self._payload = payload
        self.expected: dict[int, int] = {}

    def keep(self, number: int, address: int) -> None:
        self.expected[number] = self._of(address, self._payload)

    def compare(self, number: int, address: int) -> None:
        if self._of(address, self._payload) != self.expected[number]:
            raise RuntimeError(f"block {number} came back with other bytes")


def content(number: int, payload: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(number).integers(0, 256, payload, dtype=np.uint8)


class Nixl:
    """One file, one transfer of all blocks: nothing is begun one by one, in its favour."""

    def __init__(self, folder: Path, payload: int, count: int, is_direct: bool) -> None:
        from nixl_cu12._api import nixl_agent, nixl_agent_config

        self._payload, self._count = payload, count
        self._agent = nixl_agent("bench", nixl_agent_config(backends=[]))
        self._agent.create_backend("POSIX", {"use_uring": "true", "use_aio": "false"})
        self._memory = mmap.mmap(-1, payload * count)
        self._memory.madvise(mmap.MADV_HUGEPAGE)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        flags = os.O_RDWR | os.O_CREAT | (os.O_DIRECT if is_direct else 0)
        self._file = os.open(folder / "nixl.blocks", flags, 0o600)
        os.posix_fallocate(self._file, 0, payload * count)
        places = [(number * payload, payload) for number in range(count)]
        blocks = [(self._base + at, size, 0) for at, size in places]
        ranges = [(at, size, self._file) for at, size in places]
        self._agent.register_memory([(self._base, payload * count, 0, "")], "DRAM")
        self._agent.register_memory([(0, payload * count, self._file, "")], "FILE")
        memory = self._agent.get_xfer_descs(blocks, "DRAM")
        files = self._agent.get_xfer_descs(ranges, "FILE")
        self._handles = {
            verb: self._agent.initialize_xfer(verb, memory, files, "bench")
            for verb in ("WRITE", "READ")
        }

    def fill(self, keep: Callable[[int, int], None]) -> None:
        whole = np.frombuffer(self._memory, dtype=np.uint8).reshape(self._count, self._payload)
        for number in range(self._count):
            whole[number] = content(number, self._payload)
            keep(number, self._base + number * self._payload)

    def forget(self) -> None:
        """The same file takes them again."""

    def _run(self, verb: str) -> None:
        handle = self._handles[verb]
        end = time.monotonic() + LIMIT_S
        state = self._agent.transfer(handle)
        while state != "DONE":
            if state == "ERR" or time.monotonic() > end:
                raise RuntimeError(f"NIXL: {verb} ended with {state}")
            state = self._agent.check_xfer_state(handle)

    def write(self) -> None:
        self._run("WRITE")

    def sync(self) -> None:
        os.fdatasync(self._file)

    def read(self, on_block: Callable[[int, int], None] | None) -> None:
        self._run("READ")
        if on_block is None:
            return
        with ThreadPoolExecutor(WORKERS) as pool:
            numbers = range(self._count)
            places = [self._base + number * self._payload for number in numbers]
            list(pool.map(on_block, numbers, places))


class LMCache:
    """LMCache's LocalDiskBackend with its own host memory and its own threads."""

    def __init__(self, folder: Path, payload: int, count: int, is_direct: bool) -> None:
        import torch
        from lmcache.v1.config import LMCacheEngineConfig
        from lmcache.v1.memory_allocators.mixed_memory_allocator import MixedMemoryAllocator
        from lmcache.v1.storage_backend.local_cpu_backend import LocalCPUBackend
        from lmcache.v1.storage_backend.local_disk_backend import LocalDiskBackend

        self._payload, self._count, self._round = payload, count, 0
        self._folder = folder / "lmcache"
        config = LMCacheEngineConfig.from_defaults(
            local_disk=str(folder / "lmcache"),
            max_local_disk_size=1000.0,  # GiB: it does not count down what is removed.
            local_cpu=False,
            extra_config={"use_odirect": is_direct, "disk_io_threads": WORKERS},
        )
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        # Pages, so that O_DIRECT has what it needs.
        allocator = MixedMemoryAllocator(2 * payload * count + (64 << 20), align_bytes=4096)
        self._host = LocalCPUBackend(config, memory_allocator=allocator)
        self._disk = LocalDiskBackend(config, self._loop, self._host, "cpu")
        self._shape = torch.Size([1, 1, payload // 2, 1])
        self._type = torch.bfloat16
        self._keys: list[Any] = []

    def _allocate(self) -> Any:
        from lmcache.v1.memory_management import MemoryFormat

        made = self._host.allocate(self._shape, self._type, MemoryFormat.KV_2LTD, busy_loop=False)
        if made is None:
            raise RuntimeError("LMCache: no host memory")
        return made

    @staticmethod
    def _address(block: Any) -> int:
        return int(block.tensor.data_ptr())

    def fill(self, keep: Callable[[int, int], None]) -> None:
        self._blocks = [self._allocate() for _ in range(self._count)]
        for number, block in enumerate(self._blocks):
            source = content(number, self._payload)
            ctypes.memmove(self._address(block), source.ctypes.data, self._payload)
            keep(number, self._address(block))

    def write(self) -> None:
        """Under new keys: what is on disk already would not be written again."""
        from lmcache.utils import CacheEngineKey

        self._round += 1
        first = self._round * 1_000_000
        self._keys = [
            CacheEngineKey("bench", 1, 0, first + number, self._type)
            for number in range(self._count)
        ]
        left, done = self._count, threading.Event()
        lock = threading.Lock()

        def on_complete(_key: Any) -> None:
            nonlocal left
            with lock:
                left -= 1
                if left == 0:
                    done.set()

        for key, block in zip(self._keys, self._blocks, strict=True):
            self._disk.submit_put_task(key, block, on_complete)
        if not done.wait(LIMIT_S):
            raise RuntimeError("LMCache: a write did not end")

    def sync(self) -> None:
        for path in filter(Path.is_file, self._folder.rglob("*")):
            with path.open("rb") as file:
                os.fdatasync(file.fileno())

    def forget(self) -> None:
        for key in self._keys:
            self._disk.remove(key)

    def read(self, on_block: Callable[[int, int], None] | None) -> None:
        blocks = self._disk.batched_get_blocking(self._keys)
        if any(block is None for block in blocks):
            raise RuntimeError("LMCache: a block is not there")
        if on_block is not None:
            with ThreadPoolExecutor(WORKERS) as pool:
                list(pool.map(on_block, range(self._count), map(self._address, blocks)))
        for block in blocks:
            block.ref_count_down()


def seconds_of(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> int:
    name, folder, payload, count, page_cache = sys.argv[1:6]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What a peer prints is no answer.
    size = int(payload)
    kinds: dict[str, Callable[[Path, int, int, bool], Peer]] = {"nixl": Nixl, "lmcache": LMCache}
    peer = kinds[name](Path(folder), size, int(count), page_cache == "direct")
    checksums = Checksums(size)
    peer.fill(checksums.keep)
    peer.write()
    peer.read(checksums.compare)  # What is measured is right, at least once.
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        verb = line.strip()
        if verb in ("write", "synced"):
            peer.forget()
            took = seconds_of(peer.write)
            if verb == "synced":
                took += seconds_of(peer.sync)
        else:
            on_block = checksums.compare if verb == "checked" else None
            took = seconds_of(lambda on_block=on_block: peer.read(on_block))  # type: ignore[misc]
        print(f"{size * int(count) / took:.6g}", file=answers, flush=True)
    os._exit(0)  # Threads of a peer keep nobody waiting.


if __name__ == "__main__":
    main()
