"""Speculative tokens: drafts change no answer, on a hit neither."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.draft import LOST, REFUSED
from tests.integration.vllm.scenarios.small import HOST


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model = {"model": harness.model("float32")}
    parts = {"plain": ("draft.plain", model), "drafted": ("draft.drafted", model)}  # In this order.
    answer: dict[str, Any] = harness.run_several(tmp_path_factory.mktemp("drafts"), parts)
    return answer


def test_drafts_of_n_grams_change_no_answer_on_a_hit(found: dict[str, Any]) -> None:
    case = found["drafted"]
    host, local = case["host"], case["local"]
    assert case["grown"][HOST] == host["cached"] == 288
    assert (host["tokens"], host["logprobs"]) == (local["tokens"], local["logprobs"])
    assert found["plain"]["cold"]["tokens"] == case["cold"]["tokens"] == host["tokens"]
    assert case["steps"] < len(host["tokens"][0]), "no draft was accepted"


def test_what_one_step_saved_is_stored_though_no_later_step_saves(found: dict[str, Any]) -> None:
    assert found["drafted"]["short"]["cold"] == [0, 288]


def test_what_is_computed_behind_a_hit_is_stored(found: dict[str, Any]) -> None:
    assert found["drafted"]["short"]["tail"] == [288, 320]


def test_what_the_last_step_before_an_idle_engine_saved_is_stored(found: dict[str, Any]) -> None:
    assert found["drafted"]["short"]["last"] == [0, 288]


def test_no_report_is_refused_and_none_is_missing(found: dict[str, Any]) -> None:
    assert (found["drafted"][REFUSED], found["drafted"][LOST]) == (0, 0)
