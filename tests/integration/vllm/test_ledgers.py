"""`terrace why` and `terrace top` on a running engine, and its file of ledgers."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.vllm import harness

HELD = 288  # Of 300 tokens, in whole blocks.


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    work = tmp_path_factory.mktemp("explained")
    harness.run(work, "tiny.make", folder=str(work / "llama"), kind="llama")
    answer: dict[str, Any] = harness.run(work, "live.explained", model=str(work / "llama"))
    return answer


def test_why_tells_what_the_engine_was_told(found: dict[str, Any]) -> None:
    (ledger,) = found["json"]["out"]
    assert {name: ledger[name] for name in found["hit"]} == found["hit"]
    assert ledger["hit_tokens"] == {"host": HELD}
    assert ledger["prompt_tokens"] == 400
    assert ledger["first_miss"] == "never_stored"
    assert ledger["engine"] == "explained"
    stages = ledger["stages"]
    assert 0 < stages["copied_ns"] < stages["total_ns"]
    assert 0 < stages["queued_ns"] < stages["total_ns"]
    assert 0 < stages["computed_ns"] < stages["total_ns"]
    assert stages["computed_tokens"] == 400 - HELD


def test_why_says_it_in_words_with_the_way_out(found: dict[str, Any]) -> None:
    for name, reason in (
        ("cold", "first miss: never_stored"),
        ("text", "first miss: never_stored"),
        ("paused", "first miss: paused"),
        ("off", "tiers not asked: opted_out"),
    ):
        told = found[name]
        assert told["code"] == 0, told["error"]
        assert reason in told["out"]
        assert "way out:" in told["out"]
        assert max(map(len, told["out"].splitlines())) <= 79
    assert f"    host {HELD:>28}   72.0 %" in found["text"]["out"]
    assert "`terrace resume` ends it" in found["paused"]["out"]


def test_why_finds_a_request_while_it_runs_and_afterwards(found: dict[str, Any]) -> None:
    assert found["running"]["code"] == 0, found["running"]["error"]
    assert ": runs\n" in found["running"]["out"]
    assert ": ended " in found["ended"]["out"]


def test_why_names_the_requests_there_are(found: dict[str, Any]) -> None:
    assert found["unknown"]["code"] == 1
    assert "no request 'nobody'" in found["unknown"]["error"]
    assert "\nin the middle" in found["unknown"]["error"]


def test_top_shows_the_engine_once_in_eighty_columns(found: dict[str, Any]) -> None:
    top = found["top"]
    assert top["code"] == 0, top["error"]
    assert "engine explained (process " in top["out"]
    assert ": health green, mode on" in top["out"]
    assert "  host    open    [" in top["out"]
    assert "paused 9 blocks" in top["out"] or "paused 9," in top["out"]
    assert "\nin the middle" in top["out"]
    assert max(map(len, top["out"].splitlines())) <= 79
    (engine,) = found["top json"]["out"]
    assert engine["hit_tokens"]["host"] == HELD
    assert len(engine["ledgers"]) == 5


def test_each_request_is_a_line_in_the_file(found: dict[str, Any]) -> None:
    assert [line["number"] for line in found["lines"]] == [1, 2, 3, 4, 5]
    (ledger,) = found["json"]["out"]
    assert found["lines"][1] == ledger
    assert found["lines"][2]["first_miss"] == "paused"
    assert found["lines"][3]["not_asked"] == "opted_out"
