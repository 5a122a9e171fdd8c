"""Terrace's connector for worker processes, one of which spoils a block before it is saved.

The environment's PLANT names the rank, the engine's block, and a file: while it is there the block
is copied out with other keys than were computed.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from terrace.connectors.vllm import TerraceConnector, layout
from terrace.connectors.vllm.worker import WorkerHalf

__all__ = ["TerraceConnector", "spoiled_block"]


@contextmanager
def spoiled_block(region: Any, block: int) -> Iterator[None]:
    """Meanwhile engine block `block` has other keys; its checksum will be of those, so valid."""
    address = region.address + block * region.block_stride
    size = region.piece_bytes // 4
    right = ctypes.string_at(address, size)
    wrong = bytes(byte ^ (0x80 if at % 2 else 0) for at, byte in enumerate(right))
    ctypes.memmove(address, wrong, size)
    yield
    ctypes.memmove(address, right, size)


def _plant(wanted_rank: int, block: int, flag: str) -> None:
    from vllm.distributed import get_tensor_model_parallel_rank

    registered, save = layout.registered, WorkerHalf.save
    regions: list[Any] = []

    def keep_regions(plan: Any, caches: Any) -> Any:
        groups = registered(plan, caches)
        regions[:] = groups[0].regions
        return groups

    def spoiled(half: Any, orders: bytes) -> None:
        if not Path(flag).exists() or get_tensor_model_parallel_rank() != wanted_rank:
            return save(half, orders)
        with spoiled_block(regions[0], block):
            return save(half, orders)

    setattr(layout, "registered", keep_regions)  # noqa: B010 (mypy refuses the assignment)
    setattr(WorkerHalf, "save", spoiled)  # noqa: B010 (the same)


if "PLANT" in os.environ:
    _rank, _block, _flag = os.environ["PLANT"].split(" ", 2)
    _plant(int(_rank), int(_block), _flag)
