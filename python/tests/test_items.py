"""Multimodal items are what the model gets of them, whatever they are called."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections import UserDict
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from terrace.connectors.vllm import items
from terrace.connectors.vllm.items import ItemDigests, UnseenItem
from tests.engine_objects import Item, feature

PIXELS = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)


def wait(digests: ItemDigests, *features: Any) -> None:
    """Until all are digested, by the one thread that works in turn."""
    assert digests.is_ready(features) or digests._pool is not None
    if digests._pool is not None:
        digests._pool.submit(lambda: None).result(timeout=60)
    assert digests.is_ready(features)


def read(*features: Any) -> list[bytes]:
    digests = ItemDigests()
    wait(digests, *features)
    return [digests.read(one).digest for one in features]


def test_equal_content_is_equal_under_any_name() -> None:
    fields = {"pixels": PIXELS, "sizes": [(2, 3)], "kind": "photo", "scale": 0.5, "crop": None}
    other = dict(reversed(fields.items())) | {"pixels": PIXELS.clone()}
    one, two = read(feature("a", 0, 4, Item(fields)), feature("b", 9, 2, Item(other)))
    assert one == two
    assert len(one) == 32


CONTENTS: list[dict[str, Any]] = [
    {"pixels": PIXELS},
    {"pixels": PIXELS + 1},
    {"pixels": PIXELS.reshape(3, 2, 4)},
    {"pixels": PIXELS.to(torch.bfloat16)},
    {"pixels": PIXELS.to(torch.int32)},
    {"pixels": PIXELS.numpy()},
    {"pixels": PIXELS[:1]},
    {"pixels": [PIXELS]},
    {"pixels": [PIXELS[:1], PIXELS[1:]]},
    {"voice": PIXELS},
    {"pixels": PIXELS, "size": 1},
    {"pixels": PIXELS, "size": "1"},
    {"pixels": PIXELS, "size": True},
    {"pixels": PIXELS, "size": None},
    {"pixels": PIXELS, "size": b"1"},
    {"pixels": torch.tensor(3.0)},
    {"pixels": torch.empty(0)},
    {},
    {"pixels": torch.zeros(3 << 20, dtype=torch.uint8)},  # The next one differs at its very end.
    {"pixels": torch.cat([torch.zeros((3 << 20) - 1), torch.ones(1)]).to(torch.uint8)},
]


def test_each_difference_in_content_shows() -> None:
    found = read(*(feature(f"name {i}", 0, 4, Item(made)) for i, made in enumerate(CONTENTS)))
    assert len(set(found)) == len(CONTENTS)


def test_kind_of_item_and_places_of_its_embeddings_count() -> None:
    digests, item = ItemDigests(), Item({"pixels": PIXELS})
    found = []
    for kind, mask in (
        ("image", None),
        ("video", None),
        ("image", torch.tensor([True, False])),
        ("image", torch.tensor([False, True])),
    ):
        one = feature(f"an {kind}", 0, 2, item, modality=kind, is_embed=mask)
        wait(digests, one)
        found.append(digests.read(one).digest)
    assert len(set(found)) == 4


def test_a_view_is_read_as_the_model_sees_it() -> None:
    turned = PIXELS.transpose(0, 2)
    assert not turned.is_contiguous()
    one, two, three = read(
        feature("a", 0, 4, Item({"pixels": turned})),
        feature("b", 0, 4, Item({"pixels": turned.contiguous()})),
        feature("c", 0, 4, Item({"pixels": np.asfortranarray(turned.numpy())})),
    )
    assert one == two
    assert three != one  # Another kind of array, with the same numbers.


def test_an_object_is_digested_once_and_forgotten_with_its_object(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    def counted(item: Any) -> bytes:
        seen.append(id(item))
        return bytes(32)

    monkeypatch.setattr(items, "digest", counted)
    digests, item = ItemDigests(), Item({"pixels": PIXELS})
    for _ in range(3):
        wait(digests, feature("name", 0, 4, item))
    assert seen == [id(item)]
    assert len(digests._digests) == 1
    del item
    wait(digests, feature("other", 0, 4, Item({})))  # The thread lets go of what it had.
    gc.collect()
    assert not digests._digests


def test_a_name_that_has_meant_two_items_means_none() -> None:
    digests = ItemDigests()
    cat, dog = (feature("mine", 0, 4, Item({"pixels": PIXELS + i})) for i in range(2))
    wait(digests, cat, dog)
    digests.read(cat)
    digests.read(cat)
    for one in (dog, cat, dog):
        with pytest.raises(UnseenItem, match="has meant another item"):
            digests.read(one)
    fresh = feature("another", 0, 4, dog.data)
    assert digests.read(fresh)


def test_a_name_that_has_meant_two_kinds_of_one_content_means_none() -> None:
    digests, item = ItemDigests(), Item({"pixels": PIXELS})
    wait(digests, feature("mine", 0, 4, item))
    digests.read(feature("mine", 0, 4, item))
    with pytest.raises(UnseenItem, match="has meant another item"):
        digests.read(feature("mine", 0, 4, item, modality="video"))


def test_names_of_items_beside_one_without_digest_are_known() -> None:
    digests = ItemDigests()
    cat, dog = (feature("mine", 0, 4, Item({"pixels": PIXELS + i})) for i in range(2))
    wait(digests, cat, dog)
    with pytest.raises(UnseenItem, match="did not come along"):
        digests.read_all([feature("lost", 4, 1, None), cat])
    with pytest.raises(UnseenItem, match="has meant another item"):
        digests.read_all([dog])


def test_what_was_seen_holds_until_its_name_means_another_item_or_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digests = ItemDigests()
    cat, dog, bird = (Item({"pixels": PIXELS + i}) for i in range(3))
    wait(digests, *(feature("", 0, 4, item) for item in (cat, dog, bird)))
    seen = digests.read_all([feature("mine", 0, 4, cat), feature("other", 4, 4, bird)])
    assert digests.still_mean(seen)
    with pytest.raises(UnseenItem):
        digests.read(feature("mine", 0, 4, dog))
    assert not digests.still_mean(seen)
    assert digests.still_mean(seen[1:])
    monkeypatch.setattr(items, "_MOST_NAMES", 1)
    digests.read(feature("a newer one", 0, 4, bird))
    assert not digests.still_mean(seen[1:])


def test_a_name_whose_item_was_not_seen_means_none() -> None:
    digests, item = ItemDigests(), Item({"pixels": PIXELS})
    wait(digests, feature("mine", 0, 4, item))
    with pytest.raises(UnseenItem, match="did not come along"):
        digests.read(feature("mine", 0, 4, None))
    with pytest.raises(UnseenItem, match="has meant another item"):
        digests.read(feature("mine", 0, 4, item))


def test_names_are_forgotten_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "_MOST_NAMES", 2)
    digests, item = ItemDigests(), Item({"pixels": PIXELS})
    for name in ("a", "b", "a", "c"):
        wait(digests, feature(name, 0, 4, item))
        digests.read(feature(name, 0, 4, item))
    assert list(digests._names) == ["a", "c"]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (Item({"address": 5, "monotonic_id": 1}), "mm-processor-cache-type shm"),
        (Item({"pixels": torch.empty(4, device="meta")}), "made on the device"),
        (Item({"pixels": torch.eye(2).to_sparse()}), "a field of kind Tensor"),
        (Item({"pixels": np.array([object()])}), "a field of kind ndarray"),
        (Item({"pixels": object()}), "a field of kind object"),
        (Item({3: 1, "a": 2}), "a strange form"),
        (UserDict({"size": 3}), "a strange form"),
    ],
)
def test_what_cannot_be_read_says_why(item: Any, reason: str) -> None:
    digests, one = ItemDigests(), feature("name", 0, 4, item)
    wait(digests, one)
    with pytest.raises(UnseenItem, match=reason):
        digests.read(one)


def test_an_item_that_nobody_can_refer_to_weakly_leaves_its_name_without_meaning() -> None:
    digests, good = ItemDigests(), feature("mine", 0, 4, Item({"pixels": PIXELS}))
    with pytest.raises(UnseenItem, match="a strange form"):
        digests.read(feature("mine", 0, 4, {"pixels": SimpleNamespace(data=PIXELS)}))
    wait(digests, good)
    with pytest.raises(UnseenItem, match="has meant another item"):
        digests.read(good)


@pytest.mark.parametrize("fields", [{"address": 5}, {"pixels": object()}, {3: 1, "a": 2}])
def test_an_item_that_cannot_be_read_is_not_kept_alive(fields: dict[Any, Any]) -> None:
    digests, item = ItemDigests(), Item(fields)
    wait(digests, feature("name", 0, 4, item))
    for _ in range(2):
        with pytest.raises(UnseenItem):
            digests.read(feature("name", 0, 4, item))
    gone = weakref.ref(item)
    del item
    wait(digests, feature("other", 0, 4, Item({})))  # The thread lets go of what it had.
    gc.collect()
    assert gone() is None
    assert not digests._digests


def test_what_is_not_digested_yet_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(items, "digest", lambda _item: go.wait(60) and bytes(32))
    digests, one = ItemDigests(), feature("name", 0, 4, Item({}))
    assert not digests.is_ready([one])
    with pytest.raises(UnseenItem, match="took too long"):
        digests.read(one)
    go.set()
    wait(digests, one)
    digests.close()


def test_an_object_at_the_place_of_one_that_is_gone_is_digested_itself() -> None:
    digests, cat, dog = ItemDigests(), Item({"pixels": PIXELS}), Item({"pixels": PIXELS + 1})
    wait(digests, feature("a", 0, 4, cat), feature("b", 0, 4, dog))
    digests._digests[id(dog)] = digests._digests[id(cat)]
    wait(digests, feature("b", 0, 4, dog))
    assert digests.read(feature("b", 0, 4, dog)).digest == read(feature("b", 0, 4, dog))[0]


def test_closing_waits_for_no_digest_and_begins_none(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, seen = threading.Event(), threading.Event(), []

    def slow(item: Any) -> bytes:
        seen.append(item)
        begun.set()
        go.wait(60)
        return bytes(32)

    monkeypatch.setattr(items, "digest", slow)
    digests, first, second = ItemDigests(), Item({"a": 1}), Item({"a": 2})
    digests.is_ready([feature("a", 0, 4, first), feature("b", 0, 4, second)])
    assert begun.wait(60)
    closing = threading.Thread(target=digests.close)
    closing.start()
    closing.join(timeout=60)
    try:
        assert not closing.is_alive()
    finally:
        go.set()
    assert digests._digests[id(second)][1].cancelled()
    assert seen == [first]


def test_the_thread_takes_no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    def masked(_item: Any) -> bytes:
        return bytes(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, []))

    monkeypatch.setattr(items, "digest", masked)
    digests, item = ItemDigests(), Item({})
    wait(digests, SimpleNamespace(data=item))
    assert digests._content(item) == bytes(1)


@pytest.mark.parametrize(
    "sizes",
    [
        {"image_grid_thw": torch.tensor([1, 2, 2])},
        {"video_grid_thw": torch.tensor([1, 2, 2]), "timestamps": [0.0, 0.5]},
        {"audio_num_tokens": torch.tensor([7])},
    ],
)
def test_an_item_of_which_only_the_size_came_along_is_unseen(sizes: dict[str, Any]) -> None:
    for name in ("of a cat", "of a dog"):
        with pytest.raises(UnseenItem, match="only the size"):
            read(feature(name, 0, 4, Item(sizes)))
    assert read(feature("of a cat", 0, 4, Item({**sizes, "image_embeds": PIXELS})))


def test_what_a_loaded_model_calls_a_size_is_no_content(monkeypatch: pytest.MonkeyPatch) -> None:
    class Parser:
        embedding_fields: ClassVar[dict[str, dict[str, str]]] = {}

    class OfTomorrow(Parser):
        embedding_fields: ClassVar = {"smell": {"smell_embeds": "values", "smell_span": "metadata"}}

    parse = SimpleNamespace(MultiModalDataParser=Parser)
    item = {"smell_span": torch.tensor([3])}
    assert read(feature("rose", 0, 4, Item(item)))
    monkeypatch.setitem(sys.modules, "vllm.multimodal.parse", parse)
    with pytest.raises(UnseenItem, match="only the size"):
        read(feature("rose", 0, 4, Item(item)))
