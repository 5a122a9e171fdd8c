"""What enters a key, and what has none."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from terrace._native import ExtraKey
from terrace.connectors.vllm import keys as keys_of_requests
from terrace.connectors.vllm.keys import ADAPTER_OF_TWO, KeyMaker, RequestKeys
from tests.engine_objects import Item, Request, feature

RANK_OF_EIGHT = '{"r": 8, "lora_alpha": 16}'
LATER: dict[str, Any] = {"engine_began_ns": time.time_ns() + 10**15}  # Than any file of a test.
CAT, DOG = Item({"pixels": b"a cat"}), Item({"pixels": b"a dog"})


def make(**other: Any) -> KeyMaker:
    return KeyMaker(lambda path: f"digest of {Path(path).name}", **(LATER | other))


def read(maker: KeyMaker, request: Request) -> RequestKeys:
    """As soon as its items are digested."""
    while not maker.is_ready(request):
        threading.Event().wait(0.001)
    return maker.read(request)


def adapter(path: Path, **other: Any) -> SimpleNamespace:
    if path.is_dir() and not (path / "adapter_config.json").exists():
        (path / "adapter_config.json").write_text(RANK_OF_EIGHT)
        (path / "adapter_model.safetensors").touch()
    facts = {"lora_name": "adapter", "lora_int_id": 1, "lora_path": str(path)}
    return SimpleNamespace(**facts, **other)


def test_a_plain_request_has_no_extra_keys() -> None:
    found = make().read(Request("a", [1, 2]))
    assert found.extra_keys == ()
    assert found.unkeyable == ""


def test_salt_adapter_and_items_enter_in_this_order(tmp_path: Path) -> None:
    request = Request(
        "a",
        [1, 2],
        cache_salt="tenant",
        lora_request=adapter(tmp_path),
        mm_features=[feature("x", 3, 4, CAT), feature("y", 9, 2, DOG), feature("z", 11, 4, CAT)],
    )
    salt, lora, *items = read(make(), request).extra_keys
    facts = hashlib.sha256(b"\0" + RANK_OF_EIGHT.encode()).hexdigest()
    digest = f"adapter\0digest of {tmp_path.name}\0{facts}".encode()
    assert salt == ExtraKey(ExtraKey.SALT, b"tenant")
    assert lora == ExtraKey(ExtraKey.LORA, digest)
    assert [item.kind for item in items] == [ExtraKey.MULTIMODAL] * 3
    assert [(item.first_token, item.token_count) for item in items] == [(3, 4), (9, 2), (11, 4)]
    assert items[0].identity == items[2].identity != items[1].identity


@pytest.mark.parametrize(
    "other",
    [
        {"prompt_embeds": object()},
        {"prompt_token_ids": None},
        {"prompt_is_token_ids": [True]},
        {"resumable": True},
        {"attention_from_a_future_version": 1},
        {"cache_salt": "lone \ud800 surrogate"},
        {"mm_features": [feature("a picture that did not come along", 0, 1, None)]},
        {"mm_features": [feature("a", 0, 1, CAT), feature("b", 1, 1, Item({"address": 0}))]},
        {"mm_features": [feature("a", "here", 1, CAT)]},
        {"mm_features": [object()]},
        {"lora_request": object()},
    ],
)
def test_what_cannot_be_keyed_is_named(other: dict[str, Any]) -> None:
    assert read(make(), Request("a", [1], **other)).unkeyable


def test_items_that_another_engine_encodes_have_no_key() -> None:
    request = Request("a", [1], mm_features=[feature("x", 0, 1, CAT)])
    assert not read(make(), request).unkeyable
    assert read(make(sees_items=False), request).unkeyable
    assert not read(make(sees_items=False), Request("b", [1])).unkeyable


def test_a_name_is_taken_down_even_where_the_request_has_no_key() -> None:
    maker = make()
    strange = Request("a", [1], prompt_embeds=object(), mm_features=[feature("mine", 0, 1, CAT)])
    assert read(maker, strange).unkeyable == "prompt embeddings"
    other = Request("b", [1], mm_features=[feature("mine", 0, 1, DOG)])
    assert "has meant another" in read(maker, other).unkeyable


def test_each_name_is_taken_down_even_where_an_item_before_it_has_no_digest() -> None:
    maker = make()
    lost, cat = feature("lost", 0, 1, None), feature("mine", 1, 1, CAT)
    assert "did not come along" in read(maker, Request("a", [1], mm_features=[lost, cat])).unkeyable
    other = Request("b", [1], mm_features=[feature("mine", 0, 1, DOG)])
    assert "has meant another" in read(maker, other).unkeyable


def test_keys_hold_until_a_name_of_their_items_means_another() -> None:
    maker = make()
    cat = read(maker, Request("a", [1], mm_features=[feature("mine", 0, 1, CAT)]))
    plain = read(maker, Request("b", [1]))
    assert cat.can_lapse
    assert not maker.lapsed(cat)
    assert read(maker, Request("c", [1], mm_features=[feature("mine", 0, 1, DOG)])).unkeyable
    assert "has meant another" in maker.lapsed(cat)
    assert not plain.can_lapse
    assert not maker.lapsed(plain)


def test_an_adapter_whose_name_has_no_utf8_has_no_key(tmp_path: Path) -> None:
    named = adapter(tmp_path)
    named.lora_name = "lone \ud800 surrogate"
    assert make().read(Request("a", [1], lora_request=named)).unkeyable


def test_an_adapter_is_read_once(tmp_path: Path) -> None:
    read: list[str] = []

    def digest(path: str) -> str:
        read.append(path)
        return "digest"

    maker = KeyMaker(digest, **LATER)
    for number in range(3):
        maker.read(Request(str(number), [1], lora_request=adapter(tmp_path)))
    assert read == [str(tmp_path)]


def test_an_adapter_newer_than_the_engine_has_no_key(tmp_path: Path) -> None:
    request = Request("a", [1], lora_request=adapter(tmp_path))
    changed_ns = (tmp_path / "adapter_config.json").stat().st_ctime_ns
    assert make(engine_began_ns=changed_ns).read(request).unkeyable
    assert make(engine_began_ns=changed_ns - 10**9).read(request).unkeyable
    assert not make(engine_began_ns=changed_ns + 10**9).read(request).unkeyable
    assert KeyMaker(lambda _path: "digest").read(request).unkeyable, "as the engine makes it: now"


def test_an_adapter_replaced_under_its_path_has_no_key_any_more(tmp_path: Path) -> None:
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(b"old")
    maker = make()
    request = Request("a", [1], lora_request=adapter(tmp_path))
    assert not maker.read(request).unkeyable
    weights.write_bytes(b"newer")
    assert maker.read(request).unkeyable


def named(folder: Path, number: int, name: str, **other: Any) -> Request:
    """A request of the adapter of this name and id, in a folder of this name."""
    path = folder / name
    path.mkdir(exist_ok=True)
    lora = adapter(path, **other)
    lora.lora_int_id, lora.lora_name = number, name
    return Request("a", [1], lora_request=lora)


def test_an_id_that_has_meant_two_adapters_has_no_key_any_more(tmp_path: Path) -> None:
    maker = make()
    first, other = named(tmp_path, 1, "first"), named(tmp_path, 2, "other")
    keys = [maker.read(request) for request in (first, other)]
    assert not keys[0].unkeyable
    assert "has meant another" in maker.read(named(tmp_path, 1, "second")).unkeyable
    assert maker.read(first).unkeyable == maker.lapsed(keys[0]) == ADAPTER_OF_TWO
    assert not maker.lapsed(keys[1])
    assert maker.read(other) == keys[1]
    assert not maker.read(named(tmp_path, 3, "second")).unkeyable, "under an id of its own"


def test_an_id_means_an_adapter_at_another_path_as_another(tmp_path: Path) -> None:
    maker = make()
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
    keys = maker.read(named(tmp_path / "old", 1, "mine"))
    assert maker.read(named(tmp_path / "new", 1, "mine")).unkeyable == ADAPTER_OF_TWO
    assert maker.lapsed(keys)


def test_an_adapter_loaded_in_place_lapses_what_was_keyed_under_its_id(tmp_path: Path) -> None:
    maker = make()
    first = named(tmp_path, 1, "mine")
    keys = maker.read(first)
    assert maker.read(named(tmp_path, 1, "mine", load_inplace=True)).unkeyable
    assert maker.lapsed(keys) == maker.read(first).unkeyable == ADAPTER_OF_TWO


@pytest.mark.parametrize(
    "other",
    [
        {"prompt_embeds": object()},
        {"mm_features": [feature("a picture that did not come along", 0, 1, None)]},
        {"attention_from_a_future_version": 1},
    ],
)
def test_an_id_is_taken_down_even_where_the_request_has_no_key(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    maker = make()
    strange = named(tmp_path, 1, "first")
    vars(strange).update(other)
    assert maker.read(strange).unkeyable
    assert maker.read(named(tmp_path, 1, "second")).unkeyable == ADAPTER_OF_TWO


def test_beyond_the_ids_that_are_kept_an_adapter_has_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_of_requests, "_MOST_ADAPTERS", 2)
    maker = make()
    found = [maker.read(named(tmp_path, number, f"{number}")) for number in (1, 2, 3)]
    assert [bool(one.unkeyable) for one in found] == [False, False, True]
    assert not maker.lapsed(found[0])


def adapter_key(maker: KeyMaker, path: Path) -> RequestKeys:
    found = maker.read(Request("a", [1], lora_request=adapter(path)))
    assert not found.unkeyable
    return found


def test_an_adapter_scaled_anew_over_equal_weights_has_another_key(tmp_path: Path) -> None:
    first = adapter_key(make(), tmp_path)
    assert adapter_key(make(), tmp_path) == first
    (tmp_path / "adapter_config.json").write_text('{"r": 8, "lora_alpha": 64}')
    assert adapter_key(make(), tmp_path) != first


def test_the_engines_settings_for_adapters_enter_their_keys(tmp_path: Path) -> None:
    plain = adapter_key(make(), tmp_path)
    assert adapter_key(make(adapter_settings="only v_proj"), tmp_path) != plain


def test_an_adapter_without_its_configuration_has_no_key(tmp_path: Path) -> None:
    request = Request("a", [1], lora_request=adapter(tmp_path))
    (tmp_path / "adapter_config.json").unlink()
    assert make().read(request).unkeyable


def test_options_that_are_off_do_not_keep_an_adapter_from_its_key(tmp_path: Path) -> None:
    off = {"load_inplace": False, "is_3d_lora_weight": False, "tensorizer_config_dict": None}
    plain, same = adapter(tmp_path), adapter(tmp_path, **off)
    maker = make()
    keys = [maker.read(Request(str(i), [1], lora_request=r)) for i, r in enumerate((plain, same))]
    assert keys[0] == keys[1]
    assert not keys[0].unkeyable


@pytest.mark.parametrize(
    "other",
    [{"load_inplace": True}, {"tensorizer_config_dict": {"a": 1}}, {"field_of_tomorrow": 0}],
)
def test_an_adapter_with_unread_options_has_no_key(tmp_path: Path, other: dict[str, Any]) -> None:
    request = Request("a", [1], lora_request=adapter(tmp_path, **other))
    assert make().read(request).unkeyable


def test_an_adapter_that_cannot_be_read_has_no_key(tmp_path: Path) -> None:
    request = Request("a", [1], lora_request=adapter(tmp_path / "absent"))
    assert make().read(request).unkeyable


def test_an_adapter_in_a_pickle_has_no_key_whatever_lies_beside_it(tmp_path: Path) -> None:
    request = Request("a", [1], lora_request=adapter(tmp_path))
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "stray.safetensors")
    (tmp_path / "adapter_model.bin").write_bytes(b"what the engine loads")
    assert make().read(request).unkeyable


@pytest.mark.parametrize("way", ["prod", "first", "above/v0", "files"])
def test_a_link_turned_to_an_older_adapter_since_the_engine_began_has_no_key(
    tmp_path: Path, way: str
) -> None:
    (tmp_path / "v0").mkdir()
    adapter(tmp_path / "v0")
    (tmp_path / "files").mkdir()
    for file in (tmp_path / "v0").iterdir():
        (tmp_path / "files" / file.name).symlink_to(Path("..", "turned", file.name))
    began_ns = time.time_ns() + 200_000_000
    while time.time_ns() < began_ns + 100_000_000:
        threading.Event().wait(0.01)
    (tmp_path / "first").symlink_to("prod")
    (tmp_path / "prod").symlink_to("v0")
    (tmp_path / "turned").symlink_to(tmp_path / "v0")
    (tmp_path / "above").symlink_to(tmp_path)
    request = Request("a", [1], lora_request=adapter(tmp_path / way))
    assert make(engine_began_ns=began_ns).read(request).unkeyable
    assert not make().read(request).unkeyable


def test_links_in_a_circle_have_no_key(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert make().read(Request("a", [1], lora_request=adapter(tmp_path / "one"))).unkeyable
