"""Where the KV memory of a rank lies."""

from __future__ import annotations

import ctypes as c
from dataclasses import dataclass

from terrace._abi import GroupRegionsStruct, RegionStruct


@dataclass(frozen=True)
class Region:
    """Block b's bytes of one piece lie at address + b * block_stride."""

    address: int
    block_stride: int
    piece_bytes: int

    def struct(self) -> RegionStruct:
        return RegionStruct(
            struct_size=c.sizeof(RegionStruct),
            address=self.address,
            block_stride=self.block_stride,
            piece_bytes=self.piece_bytes,
        )


@dataclass(frozen=True)
class GroupRegions:
    regions: tuple[Region, ...]
    block_count: int
    null_block: int | None

    def struct(self) -> GroupRegionsStruct:
        return GroupRegionsStruct(
            struct_size=c.sizeof(GroupRegionsStruct),
            region_count=len(self.regions),
            regions=(RegionStruct * len(self.regions))(*(one.struct() for one in self.regions)),
            block_count=self.block_count,
            null_block=self.null_block or 0,
            has_null_block=int(self.null_block is not None),
        )
