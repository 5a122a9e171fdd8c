"""What vLLM may do to a connector besides plain hits, on one engine."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.small import DISK, numbers
from tests.integration.vllm.scenarios.trap import CORRUPT, HOST

BLOCK = 32
PROMPT, LATER = numbers(1, 300), numbers(2, 300)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    work = tmp_path_factory.mktemp("traps")
    model = str(work / "llama")
    parts = {
        "llama": ("tiny.make", {"folder": model, "kind": "llama"}),
        "traps": ("trap.run", {"model": model}),
    }
    answer: dict[str, Any] = harness.run_several(work, parts)["traps"]
    return answer


def content(answers: list[Any]) -> list[Any]:
    return [(answer["tokens"], answer["logprobs"]) for answer in answers]


def test_equal_tokens_under_another_salt_do_not_hit(found: dict[str, Any]) -> None:
    assert [run["cached"] for run in found["salts"]] == [0, 288, 0, 0, 288]
    assert len({str(run["tokens"]) for run in found["salts"]}) == 1


def test_a_request_for_prompt_log_probabilities_is_computed_whole(found: dict[str, Any]) -> None:
    case = found["prompt_log_probabilities"]
    assert case["asked"]["cached"] == 0
    assert HOST not in case["grown"]


def test_several_answers_to_one_prompt_equal_those_of_a_local_hit(found: dict[str, Any]) -> None:
    case = found["several_answers"]
    assert len(case["outside"]["tokens"]) == 3
    assert content([case["outside"]]) == content([case["local"]])
    assert case["grown"][HOST] == 288


def test_the_ledger_of_a_single_token_names_what_was_promised(found: dict[str, Any]) -> None:
    case = found["one_token"]
    ledger = case["answer"]["ledger"]
    assert ledger["pending_tokens"] + ledger["hit_tokens"].get("host", 0) == 288
    assert case["grown"][HOST] == 288


def test_a_prompt_stored_in_several_steps_is_hit_whole(found: dict[str, Any]) -> None:
    case = found["over_several_steps"]
    assert case["outside"]["cached"] == 896
    assert case["grown"][HOST] == 896
    assert content([case["outside"]]) == content([case["local"]])


def test_requests_of_one_step_share_what_the_first_one_loads(found: dict[str, Any]) -> None:
    case = found["shared_prefix"]
    assert [run["cached"] for run in case["outside"]] == [288] * 4
    assert case["grown"][HOST] == 288
    assert content(case["outside"]) == content(case["local"])


def test_turn_two_hits_blocks_that_turn_one_generated(found: dict[str, Any]) -> None:
    case = found["next_turn"]
    assert case["outside"]["cached"] == 384  # 300 + 99 tokens were computed.
    assert case["grown"][HOST] == 384
    assert content([case["outside"]]) == content([case["local"]])


def test_a_request_may_be_aborted_at_any_time(found: dict[str, Any]) -> None:
    case = found["aborts"]
    assert [state["status"] for state in case["states"]] == ["WAITING", *["RUNNING"] * 3, "WAITING"]
    assert [state["computed"] >= 300 for state in case["states"]] == [False, *[True] * 3, False]
    assert case["leaked_blocks"] == 0
    assert case["live"] == 0
    assert case["active"] == 0
    assert case["after"]["cached"] == 288


def test_stored_blocks_are_announced_with_the_engines_hashes(found: dict[str, Any]) -> None:
    case = found["events"]
    stored = [event for event in case["stored"] if event["hashes"][0] in case["own"]]
    assert [event["hashes"][0] for event in stored] == case["own"][: len(stored)]
    assert len(stored) == 5  # 130 + 39 computed tokens.
    assert [event["parent"] for event in stored] == [None, *case["own"][: len(stored) - 1]]
    assert [token for event in stored[:4] for token in event["tokens"]] == case["prompt"][:128]
    assert {event["locality"] for event in stored} == {"LOCAL"}


def test_corrupt_blocks_in_host_are_counted_and_computed_anew(found: dict[str, Any]) -> None:
    case = found["corrupt_in_host"]
    assert [run["tokens"] for run in case["flipped"]] == [run["tokens"] for run in case["local"]]
    assert case["grown"][CORRUPT] >= 9
    assert HOST not in case["grown"]


def test_what_is_stored_after_a_failed_load_is_right(found: dict[str, Any]) -> None:
    case = found["corrupt_in_host"]
    assert [run["tokens"] for run in case["after"]] == [run["tokens"] for run in case["local"]]
    assert CORRUPT not in case["grown_after"]
    assert case["grown_after"][HOST] >= 288


def test_the_request_whose_load_failed_stores_what_it_computes_instead(
    found: dict[str, Any],
) -> None:
    case = found["corrupt_then_stored_again"]
    assert case["grown"][HOST] == 288
    assert case["after"]["tokens"] == case["cold"]["tokens"]


def test_blocks_that_did_not_come_leave_the_engines_own_cache(found: dict[str, Any]) -> None:
    case = found["ended_after_a_failed_load"]
    assert case["after"]["cached"] == 0
    assert content([case["after"]]) == content([case["cold"]])


def test_after_a_reset_nothing_old_matches(found: dict[str, Any]) -> None:
    case = found["reset_everything"]
    assert case["first"]["cached"] == 0
    assert HOST not in case["grown"]
    assert case["second"]["cached"] == 288


@pytest.fixture(scope="module")
def resets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three engines on one directory; the first two end by kill -9 after a reset."""
    work = tmp_path_factory.mktemp("resets")
    model, disk = str(work / "llama"), work / "disk"
    disk.mkdir()
    harness.run(work, "tiny.make", folder=model, kind="llama")
    same: dict[str, Any] = {"model": model, "disk": str(disk)}
    first: dict[str, Any] = {"prompt": PROMPT, "ends_by_kill": True}
    killed = harness.run(work, "trap.reset_then_killed", **same, **first)
    served = harness.run(work, "trap.reset_then_served", later=LATER, **same, **first)
    after = harness.run(work, "trap.after_resets", prompts=[PROMPT, LATER], **same)
    return {"killed": killed, "served": served, "after": after}


def hits(measured: dict[str, Any]) -> dict[str, float]:
    return {name: measured["grown"][name] for name in (HOST, DISK) if name in measured["grown"]}


def test_killed_right_after_a_reset_an_engine_finds_nothing_when_it_starts_again(
    resets: dict[str, Any],
) -> None:
    restarted = resets["served"]["restarted"]
    assert not hits(restarted)
    assert restarted["answers"][0]["cached"] == 0
    assert restarted["answers"][0]["tokens"] == resets["killed"]["cold"]["tokens"]


def test_after_a_reset_no_tier_has_what_was_stored_before(resets: dict[str, Any]) -> None:
    case = resets["served"]
    assert hits(case["stored again"]) == {DISK: 288}  # So there was something to forget.
    assert case["is_reset"] is True
    assert not hits(case["reset"])
    assert case["reset"]["answers"][0]["tokens"] == resets["killed"]["cold"]["tokens"]


def test_what_is_stored_after_a_reset_comes_back_from_disk(resets: dict[str, Any]) -> None:
    case = resets["served"]
    assert hits(case["from disk"]) == {DISK: 288}
    assert case["from disk"]["answers"][0]["tokens"] == case["cold"]["tokens"]
    assert case["status"]["health"] == "green", case["status"]


def test_no_later_engine_finds_what_was_stored_before_or_after_a_reset(
    resets: dict[str, Any],
) -> None:
    case = resets["after"]
    assert not hits(case["first"])
    right = [resets["killed"]["cold"]["tokens"], resets["served"]["cold"]["tokens"]]
    assert [one["tokens"] for one in case["first"]["answers"]] == right
    assert sum(hits(case["again"]).values()) == 576  # It stores as ever.
    assert case["status"]["health"] == "green", case["status"]


def test_the_store_ends_healthy(found: dict[str, Any]) -> None:
    assert found["status"]["health"] == "green", found["status"]
