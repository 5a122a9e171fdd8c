"""A stand-in for vLLM's own offloading to host memory, which refuses to run on a CPU.

vLLM's `OffloadingConnector` and its `CPUOffloadingManager` are the real ones, with the policy `lru`
that they have by default; only what copies is made here, as vLLM's needs a GPU: blocks are copied
one by one, loads at once, stores by a thread beside the engine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from vllm.v1.kv_offload.base import (
    CanonicalKVCaches,
    OffloadingManager,
    OffloadingSpec,
    OffloadingWorker,
    TransferResult,
)
from vllm.v1.kv_offload.cpu.manager import CPUOffloadingManager

# Of this process's worker: blocks copied to the engine.
loaded = {"blocks": 0}


class StandIn(OffloadingSpec):  # type: ignore[misc] # vLLM is Any to mypy
    """`cpu_bytes_to_use` bytes of host memory."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._blocks = (
            int(self.extra_config["cpu_bytes_to_use"]) // config.worker_kv_bytes_per_block
        )

    def get_manager(self) -> OffloadingManager:
        return CPUOffloadingManager(num_chunks=self._blocks)

    def get_worker(self, kv_caches: CanonicalKVCaches) -> OffloadingWorker:
        return Worker(kv_caches, self._blocks)


class Worker(OffloadingWorker):  # type: ignore[misc] # as above
    def __init__(self, kv_caches: CanonicalKVCaches, blocks: int) -> None:
        import torch

        self._device = [one.tensor for one in kv_caches.tensors]
        # Touched here, not by the first requests.
        self._host = [
            torch.ones((blocks, tensor.shape[1]), dtype=tensor.dtype) for tensor in self._device
        ]
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="stand-in")
        self._stores: dict[int, Future[TransferResult]] = {}
        self._loads: list[TransferResult] = []

    @staticmethod
    def _copy(
        job: int, source: list[Any], target: list[Any], pairs: Sequence[tuple[int, int]]
    ) -> TransferResult:
        began, size = time.perf_counter(), 0
        for rows, others in zip(source, target, strict=True):
            for one, other in pairs:
                others[other].copy_(rows[one])
            size += len(pairs) * rows.shape[1]
        return TransferResult(job, True, size, time.perf_counter() - began)

    @staticmethod
    def _pairs(source: Any, target: Any) -> list[tuple[int, int]]:
        return list(zip(source.block_ids.tolist(), target.block_ids.tolist(), strict=True))

    def submit_store(self, job_id: int, src_spec: Any, dst_spec: Any) -> bool:
        pairs = self._pairs(src_spec, dst_spec)
        self._stores[job_id] = self._pool.submit(
            self._copy, job_id, self._device, self._host, pairs
        )
        return True

    def submit_load(self, job_id: int, src_spec: Any, dst_spec: Any) -> bool:
        pairs = self._pairs(src_spec, dst_spec)
        loaded["blocks"] += len(pairs)
        self._loads.append(self._copy(job_id, self._host, self._device, pairs))
        return True

    def get_finished(self) -> list[TransferResult]:
        finished, self._loads = self._loads, []
        for job in [job for job, store in self._stores.items() if store.done()]:
            finished.append(self._stores.pop(job).result())
        return finished

    def wait(self, job_ids: set[int]) -> None:
        for job in job_ids & self._stores.keys():
            self._stores[job].result()

    def shutdown(self) -> None:
        self._pool.shutdown()
