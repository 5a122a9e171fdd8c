"""A request's key as the scheduler's half gets it: at once, after a digest, or not at all."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from terrace import _native
from terrace._native import Code, TerraceError
from terrace.connectors.vllm import scheduler
from tests.engine_objects import Item, Request, feature
from tests.test_scheduler_half import admit, make, step


def test_an_unkeyable_request_is_counted_and_then_ignored() -> None:
    table, half = make()
    request = Request("a", list(range(8)), prompt_embeds=object())
    half.begin(request)
    assert table.named("begin_request")[0]["flags"] == _native.REQUEST_UNKEYABLE
    assert half.match(request, 0) == 0
    step(half, request, 0, 8)
    half.end(request)
    assert table.count()["advance_request"] == 0
    assert half.unkeyable == {"prompt embeddings": 1}


def test_an_unkeyable_request_whose_end_finds_no_memory_is_only_without_its_ledger() -> None:
    table, half = make()
    table.codes["end_request"] = Code.EXHAUSTED
    asking = {"terrace": {"ledger": True}}
    request = Request("a", [1], prompt_embeds=object(), kv_transfer_params=asking)
    half.begin(request)
    assert half.match(request, 0) == 0
    assert half.end(request) is None


def test_an_unkeyable_request_on_a_poisoned_core_is_an_error_here() -> None:
    table, half = make()
    table.codes["end_request"] = Code.INTERNAL
    with pytest.raises(TerraceError):
        half.begin(Request("a", [1], prompt_embeds=object()))


def test_why_a_request_has_no_key_is_told_with_the_length_of_its_prompt() -> None:
    table, half = make()
    embeddings = Request("a", [], prompt_embeds=object(), num_prompt_tokens=70)
    half.begin(embeddings)
    begun = table.named("begin_request")[0]
    assert (begun["name"], begun["unkeyable"]) == (b"a", b"prompt embeddings")
    assert begun["prompt_tokens"] == 70
    half.begin(Request("b", list(range(8))))
    begun = table.named("begin_request")[1]
    assert (begun["name"], begun["unkeyable"], begun["prompt_tokens"]) == (b"b", b"", 8)


def test_a_request_waits_for_the_digest_of_its_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = [False, False, True]
    table, half = make()
    monkeypatch.setattr(half._keys, "is_ready", lambda _request: ready.pop(0))
    request = Request("a", list(range(9)), kv_transfer_params={"terrace": {"ledger": True}})
    half.begin(request)
    assert half.match(request, 0) is None
    assert table.count()["begin_request"] == 0
    admit(table, half, request, 8)
    assert table.count()["begin_request"] == 1
    assert not ready
    other = Request("b", list(range(9)))
    ready += [False]
    half.begin(other)
    assert half.end(other) is None  # It ended before it had a key.
    assert not half._arriving
    assert table.count()["begin_request"] == 1


def test_a_half_that_closes_begins_no_more_digests() -> None:
    _, half = make()
    request = Request("a", [1], mm_features=[feature("x", 0, 1, Item({}))])
    half.begin(request)
    half.close()
    other = Request("b", [1], mm_features=[feature("y", 0, 1, Item({}))])
    with pytest.raises(RuntimeError, match="after shutdown"):
        half.begin(other)


def test_a_digest_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    table, half = make()
    monkeypatch.setattr(half._keys, "is_ready", lambda _request: False)
    monkeypatch.setattr(scheduler, "_DIGEST_S", 0.0)
    item = feature("x", 0, 1, None)
    request = Request("a", list(range(9)), mm_features=[item])
    half.begin(request)
    assert half.match(request, 0) == 0
    assert half.unkeyable == {"multimodal items whose data did not come along": 1}
    assert half.match(request, 0) == 0
    assert table.count()["begin_request"] == 1


def test_of_a_request_under_way_nothing_more_is_kept_once_its_picture_may_be_another() -> None:
    table, half = make()
    cat, dog = (Item({"pixels": name}) for name in (b"a cat", b"a dog"))
    first, second = (
        Request(name, list(range(14)), mm_features=[feature("mine", 0, 4, item)])
        for name, item in (("a", cat), ("b", dog))
    )
    while not half._keys.is_ready(first) or not half._keys.is_ready(second):
        threading.Event().wait(0.001)
    half.begin(first)
    step(half, first, 0, 4)
    half.begin(second)
    step(half, first, 4, 8, is_new=False)
    assert [seen["computed"] for seen in table.named("advance_request")] == [4]
    assert half.match(first, 0) == 0
    assert half.unkeyable == {"multimodal items whose name has meant another item": 2}
    half.end(first)
    assert table.count()["end_request"] == 2


def test_of_a_request_under_way_nothing_more_is_kept_once_its_adapter_may_be_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, half = make()
    monkeypatch.setattr(half._keys, "_adapter", lambda named: named.name.encode())
    first, second = (
        Request(
            name,
            list(range(14)),
            lora_request=SimpleNamespace(lora_name=name, lora_int_id=1, lora_path=f"/{name}"),
        )
        for name in ("a", "b")
    )
    half.begin(first)
    step(half, first, 0, 4)
    half.begin(second)
    step(half, first, 4, 8, is_new=False)
    assert [seen["computed"] for seen in table.named("advance_request")] == [4]
    assert half.match(first, 0) == half.match(second, 0) == 0
    assert list(half.unkeyable.values()) == [2]


STRANGE_IDS = [-1, 2**32, None, "5"]


@pytest.mark.parametrize("strange", STRANGE_IDS)
def test_a_prompt_with_strange_token_ids_is_unkeyable_and_the_next_is_served(
    strange: Any, caplog: pytest.LogCaptureFixture
) -> None:
    table, half = make()
    for name in ("a", "b"):
        request = Request(name, [1, 2, 3, strange, 5])
        half.begin(request)
        assert half.match(request, 0) == 0
        step(half, request, 0, 5)
        half.end(request)
    assert [seen["flags"] for seen in table.named("begin_request")] == [1, 1]
    assert table.count()["advance_request"] == 0
    assert half.unkeyable == {"token ids outside 32 bits": 2}
    assert caplog.text.count("are not cached") == 1
    good = Request("c", list(range(9)))
    half.begin(good)
    admit(table, half, good, 8)


@pytest.mark.parametrize("strange", STRANGE_IDS)
def test_a_request_that_generates_strange_token_ids_goes_on_uncached(strange: Any) -> None:
    table, half = make()
    table.texts["end_request"] = b'{"host": 3}'
    table.texts["build_orders"] = b"orders"
    wanted = {"terrace": {"ledger": True}}
    request = Request("a", list(range(7)), kv_transfer_params=wanted)
    half.begin(request)
    step(half, request, 0, 7)
    request.all_token_ids += [strange, 8]
    for _ in range(2):
        step(half, request, 7, 2, is_new=False)
    assert table.count()["advance_request"] == 1
    assert half.unkeyable == {"token ids outside 32 bits": 1}
    table.external = [4]
    assert half.match(request, 0) == 0
    assert half.end(request) == {"terrace": {"ledger": {"host": 3}}}
    assert table.count()["end_request"] == 1


def test_an_unkeyable_request_gets_its_ledger_too() -> None:
    table, half = make()
    table.texts["end_request"] = b'{"first_miss":"unkeyable"}'
    wanted = {"terrace": {"ledger": True}}
    request = Request("a", [1], prompt_embeds=object(), kv_transfer_params=wanted)
    half.begin(request)
    assert half.end(request) == {"terrace": {"ledger": {"first_miss": "unkeyable"}}}
    assert half.end(request) is None
