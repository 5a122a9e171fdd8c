"""A fault in each method of the connector, and in each byte string that it carries."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios import fault

METHODS = tuple(f"{name}()" for name in fault.METHODS)
FAULTS = (*METHODS, *fault.SCHEDULER, *fault.WORKER)
STRINGS = ("cut orders", "foreign orders", "cut reports", "lost reports")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    work = tmp_path_factory.mktemp("faults")
    model = str(work / "llama")
    parts = {
        "llama": ("tiny.make", {"folder": model, "kind": "llama"}),
        "faults": ("fault.run", {"model": model}),
    }
    once = fault.AT_START + fault.AT_END
    parts |= {f"{name}()": ("fault.once", {"model": model, "name": name}) for name in once}
    answers = harness.run_several(work, parts)
    answer: dict[str, Any] = answers["faults"]
    answer["faults"] |= {f"{name}()": answers[f"{name}()"] for name in once}
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


def test_every_method_of_the_class_is_tried() -> None:
    assert set(fault.overridden_here()) <= set(fault.METHODS)
    assert "get_transfer_results" in fault.overridden_here()
    assert {"__init__", "register_kv_caches", "start_load_kv", "shutdown"} <= set(fault.METHODS)
    # Without a body, nothing in them can fail.
    assert not {"wait_for_layer_load", "save_kv_layer", "requires_kv_delivery"} & set(fault.METHODS)


def test_no_method_of_the_class_is_without_a_guard() -> None:
    assert fault.unguarded() == []


def test_the_scheduler_hears_of_a_worker_that_never_began(found: dict[str, Any]) -> None:
    assert found["faults"]["register_kv_caches()"]["is_told"]


def test_a_shutdown_that_fails_closes_what_it_can(found: dict[str, Any]) -> None:
    assert found["faults"]["shutdown()"]["open"] == [False, False]


@pytest.mark.parametrize("name", FAULTS)
def test_a_half_that_failed_stands_aside(found: dict[str, Any], name: str) -> None:
    assert found["faults"][name]["fell"]
