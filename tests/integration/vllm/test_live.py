"""Switches of a running engine, by the command line and by single requests."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.live import BLOCK
from tests.integration.vllm.scenarios.small import HOST, OFFLOADED

HELD = 288  # Of 300 tokens, in whole blocks.
PAUSED = 'terrace_miss_blocks_total{reason="paused"}'


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    work = tmp_path_factory.mktemp("live")
    harness.run(work, "tiny.make", folder=str(work / "llama"), kind="llama")
    answer: dict[str, Any] = harness.run(work, "live.switched", model=str(work / "llama"))
    return answer


def same_answer(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name in ("tokens", "logprobs"):
        assert one["answers"][0][name] == other["answers"][0][name]


def ledger(one: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = one["answers"][0]["ledger"]
    return own


def switched_to(one: dict[str, Any], mode: str) -> None:
    assert one["code"] == 0, one["error"]
    assert [(engine["engine"], engine["mode"]) for engine in one["out"]] == [("live", mode)]


def test_a_pause_makes_misses_and_changes_no_answer(found: dict[str, Any]) -> None:
    assert found["hit"]["grown"][HOST] == HELD
    switched_to(found["pause"], "paused")
    for name in ("paused", "paused fresh"):
        assert HOST not in found[name]["grown"]
        assert OFFLOADED not in found[name]["grown"]
        assert found[name]["grown"][PAUSED] == HELD // BLOCK
        assert ledger(found[name])["first_miss"] == "paused"
    same_answer(found["paused"], found["cold"])


def test_status_shows_the_pause_and_health_stays_green(found: dict[str, Any]) -> None:
    status = found["status"]
    assert status["code"] == 0, status["error"]
    (engine,) = status["out"]
    assert (engine["engine"], engine["mode"], engine["health"]) == ("live", "paused", "green")
    assert engine["miss_blocks"]["paused"] == 2 * HELD // BLOCK


def test_resume_needs_nothing_else(found: dict[str, Any]) -> None:
    switched_to(found["resume"], "on")
    assert found["resumed"]["grown"][HOST] == HELD
    same_answer(found["resumed"], found["cold"])
    assert ledger(found["after pause"])["first_miss"] == "never_stored"


def test_read_only_hits_and_stores_nothing(found: dict[str, Any]) -> None:
    switched_to(found["readonly"], "readonly")
    assert found["read"]["grown"][HOST] == HELD
    same_answer(found["read"], found["cold"])
    for one in found["readonly other"]:
        assert OFFLOADED not in one["grown"]
        assert ledger(one)["first_miss"] == "never_stored"


def test_a_request_that_opts_out_neither_hits_nor_stores(found: dict[str, Any]) -> None:
    switched_to(found["on"], "on")
    for name in ("off", "off third"):
        assert HOST not in found[name]["grown"]
        assert OFFLOADED not in found[name]["grown"]
    same_answer(found["off"], found["cold"])
    assert ledger(found["off"])["hit_tokens"] == {}


def test_a_request_that_only_reads_hits_and_stores_nothing(found: dict[str, Any]) -> None:
    assert found["reads"]["grown"][HOST] == HELD
    assert OFFLOADED not in found["reads third"]["grown"]
    assert ledger(found["third"])["first_miss"] == "never_stored"
    assert OFFLOADED in found["third"]["grown"]


def test_a_pause_in_the_middle_of_an_answer_stores_no_more_of_it(found: dict[str, Any]) -> None:
    switched_to(found["middle"], "paused")
    # The prompt, and the block that was full by then.
    assert 2 * BLOCK <= found["begun"]["grown"][HOST] <= 3 * BLOCK
    assert found["middle answer"] == found["undisturbed"]["answers"][0]["tokens"][0]
    assert found["final"]["mode"] == "on"
    assert found["final"]["health"] == "green"


def test_a_scrub_finds_the_flipped_bit_and_drops_its_block(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    work = tmp_path_factory.mktemp("scrubbed")
    harness.run(work, "tiny.make", folder=str(work / "llama"), kind="llama")
    model, disk = str(work / "llama"), str(work / "disk")
    found: dict[str, Any] = harness.run(work, "live.scrubbed", model=model, disk=disk)
    good, bad = (
        f'terrace_disk_scrub_blocks_total{{result="{result}"}}' for result in ("good", "bad")
    )
    blocks = found["whole"]["grown"][good]
    assert blocks >= HELD // BLOCK
    assert (found["whole"]["code"], found["flipped"]["code"], found["after"]["code"]) == (0, 1, 0)
    assert bad not in found["whole"]["grown"]
    assert found["flipped"]["grown"][good] == found["after"]["grown"][good] == blocks - 1
    assert found["flipped"]["grown"][bad] == 1
    assert bad not in found["after"]["grown"]
    same_answer(found["hit"], found["cold"])
