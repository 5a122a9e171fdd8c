"""A fault in each method of the connector, and in each byte string that it carries."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios import fault

FAULTS = (*fault.SCHEDULER, *fault.WORKER)
STRINGS = ("cut orders", "foreign orders", "cut reports", "lost reports")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    work = tmp_path_factory.mktemp("faults")
    model = str(work / "llama")
    parts = {
        "llama": ("tiny.make", {"folder": model, "kind": "llama"}),
        "faults": ("fault.run", {"model": model}),
    }
    answer: dict[str, Any] = harness.run_several(work, parts)["faults"]
    return answer


def tokens(answers: list[Any]) -> list[Any]:
    return [answer["tokens"] for answer in answers]


@pytest.mark.parametrize("name", FAULTS + STRINGS)
def test_the_engine_survives_and_answers_right(found: dict[str, Any], name: str) -> None:
    fault_found = found["faults"][name]
    assert tokens(fault_found["answers"]) == tokens(found["cold"])
    assert all(reason == ["length"] for reason in (a["reason"] for a in fault_found["answers"]))


@pytest.mark.parametrize("name", FAULTS + STRINGS)
def test_nothing_wrong_was_stored_meanwhile(found: dict[str, Any], name: str) -> None:
    assert tokens(found["faults"][name]["after"]) == tokens(found["cold"])


@pytest.mark.parametrize("name", FAULTS)
def test_a_half_that_failed_stands_aside(found: dict[str, Any], name: str) -> None:
    assert found["faults"][name]["fell"]
