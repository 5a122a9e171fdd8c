"""What a request carries besides tokens: it enters the key, or the request is not cached."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.adapter import UNKEYABLE

ADAPTERS = ("none", "first", "second", "renamed", "scaled")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    work = tmp_path_factory.mktemp("adapters")
    model, folders = str(work / "llama"), [str(work / "first"), str(work / "second")]
    answer: dict[str, Any] = harness.run_several(
        work,
        {
            "llama": ("tiny.make", {"folder": model, "kind": "llama"}),
            "adapters": ("tiny.adapters", {"folders": folders}),
            "lora": ("adapter.lora", {"model": model, "folders": folders}),
            "other": ("adapter.other", {"model": model}),
        },
    )
    return answer


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_equal_tokens_hit_only_under_the_same_adapter(found: dict[str, Any], adapter: str) -> None:
    cold, again = found["lora"][f"{adapter} cold"], found["lora"][f"{adapter} again"]
    assert (cold["cached"], cold["hit"]) == (0, 0)
    assert (again["cached"], again["hit"]) == (288, 288)
    assert again["tokens"] == cold["tokens"]


def test_an_adapter_newer_than_the_engine_is_not_cached(found: dict[str, Any]) -> None:
    cold, again = found["lora"]["late cold"], found["lora"]["late again"]
    assert (again["cached"], again["hit"]) == (0, 0)
    assert again["tokens"] == cold["tokens"] == found["lora"]["first cold"]["tokens"]


def test_what_an_id_with_two_adapters_computes_is_nobodys(found: dict[str, Any]) -> None:
    case = found["lora"]
    reused, own = case["of a used id"], case["of its own id"]
    assert case["first loaded"]["hit"] == 288
    assert reused["tokens"] == case["first cold"]["tokens"], "the engine goes by the id alone"
    assert own["tokens"] == case["second cold"]["tokens"]
    assert [reused["hit"], own["hit"], case["whose id was used"]["hit"]] == [0, 0, 0]


def test_the_adapters_differ(found: dict[str, Any]) -> None:
    answers = [str(found["lora"][f"{adapter} cold"]["tokens"]) for adapter in ADAPTERS]
    assert len(set(answers)) == 4
    assert answers[3] == answers[2], "the same weights under two names"
    assert answers[4] != answers[2], "the same weights, scaled anew"


def test_a_prompt_of_embeddings_is_counted_and_not_cached(found: dict[str, Any]) -> None:
    case = found["other"]["embedded"]
    assert case["count"] == 4
    assert case["grown"][UNKEYABLE] == 1
    assert case["ledger"]["first_miss"] == "unkeyable"


def test_a_multimodal_item_enters_the_key_from_its_block_on(found: dict[str, Any]) -> None:
    case = found["other"]["items"]
    assert case["plain"] == 288
    assert case["item"] == 32
    assert case["unseen"] == 0
    assert case["grown"][UNKEYABLE] == 1
