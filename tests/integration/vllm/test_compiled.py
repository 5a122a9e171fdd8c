"""The model compiled, as vLLM does by default; other tests run it eagerly, to start sooner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.small import HOST, numbers

PROMPTS = [numbers(1, 300), numbers(2, 321)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    work: Path = tmp_path_factory.mktemp("compiled")
    harness.run(work, "tiny.make", folder=str(work / "llama"), kind="llama")
    answer: dict[str, Any] = harness.run(
        work,
        "compiled.truth",
        model=str(work / "llama"),
        prompts=PROMPTS,
        settings_env={"TORCHDYNAMO_DISABLE": "0"},
    )
    return answer


def test_the_model_was_compiled(found: dict[str, Any]) -> None:
    assert found["mode"] > 0


def test_a_hit_is_the_engines_own_hit_bit_by_bit(found: dict[str, Any]) -> None:
    assert [one["grown"].get(HOST) for one in found["host"]] == [288, 320]
    assert "answers" in found["host"][0]
    for one, own, cold in zip(found["host"], found["local"], found["plain"], strict=True):
        (hit,) = one["answers"]
        assert (hit["tokens"], hit["logprobs"]) == (own["tokens"], own["logprobs"])
        assert hit["tokens"] == cold["tokens"]
