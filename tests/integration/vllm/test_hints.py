"""What clients say of their requests reaches the core, and changes no answer."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.hints import MALFORMED
from tests.integration.vllm.scenarios.small import HOST

HELD = 288  # Of 300 tokens, in whole blocks.
TAKEN = 'terrace_hints_total{{hint="{}"}}'
IGNORED = "terrace_ignored_hints_total"
ENDED = 'terrace_answers_total{{ending="{}"}}'


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    work = tmp_path_factory.mktemp("hints")
    harness.run(work, "tiny.make", folder=str(work / "llama"), kind="llama")
    answer: dict[str, Any] = harness.run(work, "hints.said", model=str(work / "llama"))
    return answer


def answer_of(one: dict[str, Any]) -> Any:
    return one["answers"][0]["tokens"], one["answers"][0]["logprobs"]


def ledger_of(one: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = one["answers"][0]["ledger"]
    return own


def test_hints_reach_the_core(found: dict[str, Any]) -> None:
    ledger = ledger_of(found["hinted"])
    assert ledger["hints"] == ["session", "tool_call", "return", "priority"]
    assert ledger["ignored_hints"] == 0
    for name in ledger["hints"]:
        assert found["hinted"]["grown"][TAKEN.format(name)] == 1
    assert ledger_of(found["plain"])["hints"] == []
    assert IGNORED not in found["plain"]["grown"]


def test_a_session_is_known_again_with_another_prompt(found: dict[str, Any]) -> None:
    before, after = ledger_of(found["hinted"]), ledger_of(found["over"])
    assert after["hints"] == ["session", "session_over"]
    assert before["turn"] >= 1
    assert after["turn"] == before["turn"] + 1
    assert after["hit_tokens"] == {}


def test_malformed_hints_are_counted_and_the_answer_is_the_same(found: dict[str, Any]) -> None:
    counted = [ledger_of(one)["ignored_hints"] for one in found["malformed"]]
    assert counted == [1, 1, 1, 5, 3, 2, 10_000, 1]
    assert len(counted) == len(MALFORMED)
    for one, count in zip(found["malformed"], counted, strict=True):
        assert one["grown"][IGNORED] == count
        assert one["grown"][HOST] == HELD
        assert answer_of(one) == answer_of(found["plain"])
    assert found["status"]["health"] == "green"


def test_hints_change_no_answer(found: dict[str, Any]) -> None:
    assert found["hinted"]["grown"][HOST] == found["plain"]["grown"][HOST] == HELD
    assert answer_of(found["hinted"]) == answer_of(found["plain"])


def test_how_an_answer_ended_reaches_the_core(found: dict[str, Any]) -> None:
    for name, ending in (("cold", "length"), ("stopped", "stop"), ("tool call", "tool_call")):
        assert ledger_of(found[name])["ending"] == ending
        assert found[name]["grown"][ENDED.format(ending)] == 1
    assert found["given up"][ENDED.format("abort")] == 1
