"""The engine's KV memory as Terrace sees it: sizes from the plan, addresses from the tensors.

Owner and worker compute the sizes apart, from the same plan; the core refuses a worker whose
layout differs.
"""

from __future__ import annotations

from typing import Any

from terrace._native import GroupRegions, Layout, Region

# vLLM takes the first block out of circulation as its null block.
NULL_BLOCK = 0


class LayoutError(Exception):
    """The KV memory has a form that Terrace does not serve; the text says which."""


def _piece_bytes(spec: Any) -> int:
    """Bytes of one block in one layer, without padding at its end."""
    return int(getattr(spec, "unpadded_page_size_bytes", spec.page_size_bytes))


def _window(spec: Any) -> int:
    """Tokens that a group keeps for the next one to see, that one included; 0 = all.

    Where the engine keeps every block of a windowed model, its groups are of the full kind.
    """
    if type(spec).__name__ != "SlidingWindowSpec":
        return 0
    return int(spec.sliding_window) + int(getattr(spec, "extra_retained_tokens", 0) or 0)


def planned(kv_cache_config: Any, rank_count: int) -> Layout:
    """Sizes and windows by the engine's plan."""
    groups = []
    for group in kv_cache_config.kv_cache_groups:
        groups.append((_piece_bytes(group.kv_cache_spec),) * len(group.layer_names))
    specs = [group.kv_cache_spec for group in kv_cache_config.kv_cache_groups]
    return Layout(
        int(specs[0].block_size),
        rank_count,
        tuple(groups),
        tuple(_window(spec) for spec in specs),
        NULL_BLOCK,
    )


def _placements(kv_cache_config: Any) -> dict[str, tuple[int, int, int]]:
    """Layer -> (index of its allocation, offset in it, block stride) by the engine's plan."""
    placed: dict[str, tuple[int, int, int]] = {}
    for index, tensor in enumerate(kv_cache_config.kv_cache_tensors):
        for number, layer in enumerate(tensor.layers):
            offset = int(tensor.offset) + number * int(tensor.layer_stride)
            placed[layer] = (index, offset, int(tensor.block_stride))
    return placed


def _region(name: str, tensor: Any, num_blocks: int, piece_bytes: int) -> Region:
    if tensor.device.type != "cpu":
        raise LayoutError(f"{name} lies on {tensor.device.type}; only CPU memory is served yet")
    if tensor.dim() < 2 or tensor.shape[0] != num_blocks:
        raise LayoutError(f"{name} has shape {tuple(tensor.shape)}, not {num_blocks} blocks first")
    item = tensor.element_size()
    expected = 1
    for size, stride in zip(reversed(tensor.shape[1:]), reversed(tensor.stride()[1:]), strict=True):
        if size != 1 and stride != expected:
            raise LayoutError(f"{name} is not dense inside a block: strides {tensor.stride()}")
        expected *= size
    if expected * item != piece_bytes:
        raise LayoutError(f"{name} has {expected * item} bytes per block, planned {piece_bytes}")
    block_stride = tensor.stride(0) * item
    if block_stride < piece_bytes:
        raise LayoutError(f"{name} has overlapping blocks: stride {block_stride} < {piece_bytes}")
    return Region(int(tensor.data_ptr()), int(block_stride), piece_bytes)


def _check_placement(
    name: str, region: Region, placed: dict[str, tuple[int, int, int]], bases: dict[int, int]
) -> None:
    if name not in placed:
        raise LayoutError(f"{name} is not in the engine's plan")
    allocation, offset, block_stride = placed[name]
    if block_stride != region.block_stride:
        raise LayoutError(f"{name} has block stride {region.block_stride}, planned {block_stride}")
    base = bases.setdefault(allocation, region.address - offset)
    if region.address - offset != base:
        raise LayoutError(f"{name} does not lie where the engine planned it")


def registered(kv_cache_config: Any, kv_caches: dict[str, Any]) -> list[GroupRegions]:
    """Addresses of all pieces, checked dense and against the plan.  Raises LayoutError."""
    num_blocks = int(kv_cache_config.num_blocks)
    placed = _placements(kv_cache_config)
    bases: dict[int, int] = {}
    groups = []
    for group in kv_cache_config.kv_cache_groups:
        page = _piece_bytes(group.kv_cache_spec)
        regions = []
        for name in group.layer_names:
            tensor = kv_caches.get(name)
            if tensor is None:
                raise LayoutError(f"{name} is in the engine's plan but was not registered")
            region = _region(name, tensor, num_blocks, page)
            _check_placement(name, region, placed, bases)
            regions.append(region)
        addresses = {region.address for region in regions}
        if len(addresses) != len(regions):
            raise LayoutError("two layers of one group share their memory")
        groups.append(GroupRegions(tuple(regions), num_blocks, NULL_BLOCK))
    return groups
