"""Speculative tokens: drafts change no answer, on a hit neither."""

from __future__ import annotations

from pathlib import Path

from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.small import HOST


def test_drafts_of_n_grams_change_no_answer_on_a_hit(tmp_path: Path) -> None:
    model = {"model": harness.model("float32")}
    parts = {"plain": ("draft.plain", model), "drafted": ("draft.drafted", model)}  # In this order.
    found = harness.run_several(tmp_path, parts)
    case = found["drafted"]
    host, local = case["host"], case["local"]
    assert case["grown"][HOST] == host["cached"] == 288
    assert (host["tokens"], host["logprobs"]) == (local["tokens"], local["logprobs"])
    assert found["plain"]["cold"]["tokens"] == case["cold"]["tokens"] == host["tokens"]
    assert case["steps"] < len(host["tokens"][0]), "no draft was accepted"
