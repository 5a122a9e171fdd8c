"""mode=observe moves nothing, and `terrace advise` tells what tiers would have hit."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.live import BLOCK
from tests.integration.vllm.scenarios.small import DISK, HOST, OFFLOADED

PROMPTS = 3 * 12
HELD = 288  # Of 300 tokens, in whole blocks.


@pytest.fixture(scope="module", params=[200, 60])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Twelve prompts of nine blocks in turn: a host of 200 blocks holds them all, 60 none."""
    work = tmp_path_factory.mktemp("observed")
    harness.run(work, "tiny.make", folder=str(work / "llama"), kind="llama")
    model = str(work / "llama")
    return harness.run(work, "live.observed", model=model, host_blocks=request.param)


def test_nothing_is_stored_and_no_answer_changes(found: dict[str, Any]) -> None:
    assert found["observed"]["answers"] == found["real"]["answers"]
    assert HOST not in found["observed"]["grown"]
    assert OFFLOADED not in found["observed"]["grown"]
    (status,) = found["status"]["out"]
    assert (status["mode"], status["health"], status["ready"]) == ("observe", "green", True)
    assert status["prompt_tokens"] == PROMPTS * 300
    assert status["engine_tokens"] == 0
    assert status["prefill_tokens_per_second"] > 0


def test_what_it_tells_is_what_that_size_then_gives(found: dict[str, Any]) -> None:
    (asked,) = found["asked"]["out"]
    (row,) = asked["rows"]
    real = 100 * found["real"]["grown"].get(HOST, 0) / (PROMPTS * HELD)
    assert abs(row["hit_percent"] - real) <= 3
    assert row["beyond_engine_percent"] == row["hit_percent"]
    assert (row["saved_prefill_seconds_per_day"] > 0) == (real > 0)


def test_a_size_that_holds_them_all_is_advised(found: dict[str, Any]) -> None:
    assert found["advice"]["code"] == 0, found["advice"]["error"]
    (advice,) = found["advice"]["out"]
    assert advice["blocks_asked"] == PROMPTS * HELD // BLOCK
    assert advice["advice"]["host.size"].endswith("MiB")


def test_it_is_not_switched_on_while_it_runs(found: dict[str, Any]) -> None:
    assert found["resume"]["code"] == 1
    assert "mode=observe" in found["resume"]["error"]
    assert "start it again with mode=on" in found["resume"]["error"]


SIZES = ([40, 0], [40, 160])  # Blocks of host and of disk.


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Any:
    work = tmp_path_factory.mktemp("chats")
    harness.run(work, "tiny.make", folder=str(work / "llama"), kind="llama")
    return harness.run(work, "live.advised", model=str(work / "llama"), sizes=list(SIZES))


@pytest.mark.parametrize("size", range(len(SIZES)), ids=str)
def test_chats_hit_what_it_tells_by_the_default_policies(chats: dict[str, Any], size: int) -> None:
    real, observed = chats["real"][size], chats["observed"]
    assert real["answers"] == observed["answers"]
    (asked,) = chats["asked"][size]["out"]
    told = asked["rows"][-1]["hit_percent"]
    hits = real["grown"].get(HOST, 0) + real["grown"].get(DISK, 0)
    assert 10 < 100 * hits / real["asked"] < 95
    assert abs(told - 100 * hits / real["asked"]) <= 3, (told, 100 * hits / real["asked"])
