"""What enters a key, and what has none."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from terrace._native import ExtraKey
from terrace.connectors.vllm.keys import KeyMaker
from tests.engine_objects import Request, feature

HASHES = [hashlib.sha256(item).hexdigest() for item in (b"one", b"other")]


def make() -> KeyMaker:
    return KeyMaker(lambda path: f"digest of {Path(path).name}")


def adapter(path: Path, **other: Any) -> SimpleNamespace:
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
        mm_features=[feature(HASHES[0], 3, 4), feature(HASHES[1], 9, 2)],
    )
    found = make().read(request)
    digest = f"adapter\0digest of {tmp_path.name}".encode()
    assert found.extra_keys == (
        ExtraKey(ExtraKey.SALT, b"tenant"),
        ExtraKey(ExtraKey.LORA, digest),
        ExtraKey(ExtraKey.MULTIMODAL, HASHES[0].encode(), 3, 4),
        ExtraKey(ExtraKey.MULTIMODAL, HASHES[1].encode(), 9, 2),
    )


@pytest.mark.parametrize(
    "other",
    [
        {"prompt_embeds": object()},
        {"prompt_token_ids": None},
        {"prompt_is_token_ids": [True]},
        {"resumable": True},
        {"mm_features": [feature(None, 0, 1)]},
        {"attention_from_a_future_version": 1},
        {"cache_salt": "lone \ud800 surrogate"},
        {"mm_features": [feature("a name that a client chose", 0, 1)]},
        {"mm_features": [feature(HASHES[0], 0, 1), feature("cat.png", 1, 1)]},
        {"mm_features": [feature("lone \ud800 surrogate", 0, 1)]},
        {"mm_features": [object()]},
        {"lora_request": object()},
    ],
)
def test_what_cannot_be_keyed_is_named(other: dict[str, Any]) -> None:
    assert make().read(Request("a", [1], **other)).unkeyable


def test_items_that_the_engine_numbers_have_no_key() -> None:
    request = Request("a", [1], mm_features=[feature(HASHES[0], 0, 1)])
    assert not make().read(request).unkeyable
    assert KeyMaker(lambda _path: "", has_item_hashes=False).read(request).unkeyable
    plain = Request("b", [1])
    assert not KeyMaker(lambda _path: "", has_item_hashes=False).read(plain).unkeyable


def test_an_adapter_whose_name_has_no_utf8_has_no_key(tmp_path: Path) -> None:
    named = adapter(tmp_path)
    named.lora_name = "lone \ud800 surrogate"
    assert make().read(Request("a", [1], lora_request=named)).unkeyable


def test_an_adapter_is_read_once(tmp_path: Path) -> None:
    read: list[str] = []

    def digest(path: str) -> str:
        read.append(path)
        return "digest"

    maker = KeyMaker(digest)
    for number in range(3):
        maker.read(Request(str(number), [1], lora_request=adapter(tmp_path)))
    assert read == [str(tmp_path)]


def test_an_adapter_replaced_under_its_path_has_no_key_any_more(tmp_path: Path) -> None:
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(b"old")
    maker = make()
    request = Request("a", [1], lora_request=adapter(tmp_path))
    assert not maker.read(request).unkeyable
    weights.write_bytes(b"newer")
    assert maker.read(request).unkeyable


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
