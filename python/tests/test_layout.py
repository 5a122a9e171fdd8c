"""Sizes by plan, addresses by tensor, and every doubt refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from terrace.connectors.vllm import layout

BLOCKS, HEADS, TOKENS, WIDTH = 6, 2, 4, 8
PAGE = HEADS * TOKENS * WIDTH * 4


class Tensor:
    """The questions that are asked of a torch tensor."""

    def __init__(self, address: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.address, self.shape, self._stride = address, shape, stride
        self.device = SimpleNamespace(type="cpu")

    def dim(self) -> int:
        return len(self.shape)

    def stride(self, axis: int | None = None) -> Any:
        return self._stride if axis is None else self._stride[axis]

    def element_size(self) -> int:
        return 4

    def data_ptr(self) -> int:
        return self.address


def dense(address: int) -> Tensor:
    stride = (HEADS * TOKENS * WIDTH, TOKENS * WIDTH, WIDTH, 1)
    return Tensor(address, (BLOCKS, HEADS, TOKENS, WIDTH), stride)


def plan(layers: int = 2) -> Any:
    names = [f"layer.{number}" for number in range(layers)]
    spec = SimpleNamespace(block_size=TOKENS, page_size_bytes=PAGE)
    group = SimpleNamespace(layer_names=names, kv_cache_spec=spec)
    tensor = SimpleNamespace(
        layers=names, layer_stride=PAGE * BLOCKS, block_stride=PAGE, offset=0, size=0
    )
    return SimpleNamespace(num_blocks=BLOCKS, kv_cache_groups=[group], kv_cache_tensors=[tensor])


def caches(layers: int = 2) -> dict[str, Any]:
    return {f"layer.{n}": dense(4096 + n * PAGE * BLOCKS) for n in range(layers)}


def test_both_sides_compute_the_same_sizes() -> None:
    planned = layout.planned(plan(), 1)
    (group,) = layout.registered(plan(), caches())
    assert planned.groups == (tuple(region.piece_bytes for region in group.regions),)
    assert planned.block_tokens == TOKENS


def test_regions_are_address_stride_and_length() -> None:
    (group,) = layout.registered(plan(), caches())
    first, second = group.regions
    assert (first.address, first.block_stride, first.piece_bytes) == (4096, PAGE, PAGE)
    assert second.address == 4096 + PAGE * BLOCKS
    assert group.block_count == BLOCKS
    assert group.null_block == 0


def strided_inside(found: dict[str, Any]) -> None:
    found["layer.1"]._stride = (HEADS * TOKENS * WIDTH * 2, TOKENS * WIDTH * 2, WIDTH * 2, 2)


def interleaved(found: dict[str, Any]) -> None:
    """Blocks as far apart as planned, but each reaches into the next one."""
    found["layer.1"]._stride = (HEADS * TOKENS * WIDTH, TOKENS * WIDTH * 2, WIDTH * 2, 2)


def transposed(found: dict[str, Any]) -> None:
    found["layer.1"]._stride = (HEADS * TOKENS * WIDTH, WIDTH, HEADS * WIDTH, 1)


def fewer_blocks(found: dict[str, Any]) -> None:
    found["layer.1"].shape = (BLOCKS - 1, HEADS, TOKENS, WIDTH)


def several_kernel_blocks(found: dict[str, Any]) -> None:
    found["layer.1"].shape = (BLOCKS * 2, HEADS, TOKENS // 2, WIDTH)


def overlapping(found: dict[str, Any]) -> None:
    found["layer.1"]._stride = (WIDTH, TOKENS * WIDTH, WIDTH, 1)


def elsewhere(found: dict[str, Any]) -> None:
    found["layer.1"].address += 64


def on_gpu(found: dict[str, Any]) -> None:
    found["layer.1"].device = SimpleNamespace(type="cuda")


def absent(found: dict[str, Any]) -> None:
    del found["layer.1"]


def other_width(found: dict[str, Any]) -> None:
    width = WIDTH // 2
    found["layer.1"].shape = (BLOCKS, HEADS, TOKENS, width)
    found["layer.1"]._stride = (HEADS * TOKENS * WIDTH, TOKENS * width, width, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (strided_inside, "is not dense inside a block"),
        (interleaved, "is not dense inside a block"),
        (transposed, "is not dense inside a block"),
        (fewer_blocks, "not 6 blocks first"),
        (several_kernel_blocks, "not 6 blocks first"),
        (overlapping, "has overlapping blocks: stride 32 < 256"),
        (elsewhere, "does not lie where the engine planned it"),
        (on_gpu, "lies on cuda"),
        (absent, "was not registered"),
        (other_width, "bytes per block, planned 256"),
    ],
)
def test_memory_of_another_form_is_refused(change: Any, words: str) -> None:
    found = caches()
    change(found)
    with pytest.raises(layout.LayoutError, match=rf"layer\.1.*{words}"):
        layout.registered(plan(), found)


def test_overlapping_blocks_are_refused_though_the_engine_planned_them() -> None:
    found, planned = caches(), plan()
    for tensor in found.values():
        tensor._stride = (WIDTH, TOKENS * WIDTH, WIDTH, 1)
    planned.kv_cache_tensors[0].block_stride = WIDTH * 4
    with pytest.raises(layout.LayoutError, match="overlapping blocks"):
        layout.registered(planned, found)


def test_a_plan_that_disagrees_with_the_tensors_is_refused() -> None:
    disagreeing = plan()
    disagreeing.kv_cache_tensors[0].block_stride = PAGE * 2
    with pytest.raises(layout.LayoutError, match="block stride"):
        layout.registered(disagreeing, caches())


def test_layers_that_share_memory_are_refused() -> None:
    shared = caches()
    shared["layer.1"] = shared["layer.0"]
    disagreeing = plan()
    disagreeing.kv_cache_tensors[0].layer_stride = 0
    with pytest.raises(layout.LayoutError, match="share"):
        layout.registered(disagreeing, shared)


def test_a_window_counts_what_the_engine_keeps_and_full_groups_need_all() -> None:
    def spec(kind: str, **more: Any) -> Any:
        return type(kind, (SimpleNamespace,), {})(block_size=TOKENS, page_size_bytes=PAGE, **more)

    groups = [
        spec("FullAttentionSpec", sliding_window=128),
        spec("SlidingWindowSpec", sliding_window=128),
        spec("SlidingWindowSpec", sliding_window=128, extra_retained_tokens=3),
    ]
    named = [SimpleNamespace(layer_names=["a", "b"], kv_cache_spec=one) for one in groups]
    planned = layout.planned(SimpleNamespace(kv_cache_groups=named), 2)
    assert planned.windows == (0, 128, 131)
    assert planned.null_block == layout.NULL_BLOCK
    assert not planned.is_plain
    plain = layout.planned(SimpleNamespace(kv_cache_groups=named[:1]), 2)
    assert plain.is_plain
    assert not layout.planned(SimpleNamespace(kv_cache_groups=named[1:2]), 2).is_plain


def test_no_address_is_read_on_a_device_without_copies() -> None:
    class OnGpu(Tensor):
        def data_ptr(self) -> int:
            raise AssertionError("an address that nobody may use was read")

    found = caches()
    for name, tensor in found.items():
        found[name] = OnGpu(tensor.address, tensor.shape, tensor.stride())
        found[name].device = SimpleNamespace(type="cuda")
    with pytest.raises(layout.LayoutError, match="lies on cuda"):
        layout.registered(plan(), found)
