"""What stays in which tier, and when a hit is not taken: late, not worth it, out of scope."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.adapter import OFFLOADED
from tests.integration.vllm.scenarios.small import DISK, HOST, numbers

LATE = 'terrace_miss_blocks_total{reason="late"}'
NOT_WORTH_IT = 'terrace_miss_blocks_total{reason="not_worth_it"}'
SYSTEM = 256
OTHER = 288  # Tokens of another prompt that are in whole blocks.
PROMPT = numbers(1, 1000)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    work = tmp_path_factory.mktemp("tiers")
    disk = work / "disk"
    disk.mkdir()
    for kind in ("llama", "wide"):
        harness.run(work, "tiny.make", name=kind, folder=str(work / kind), kind=kind)
    settings = {"disk.size": "256MiB", "disk.paths": [str(disk)]}
    wide: dict[str, Any] = {"model": str(work / "wide"), "prompts": [PROMPT], "memory": 160 << 20}
    # 65 MB cannot be read within the few milliseconds that reads may take then.
    hurried = {"settings": settings | {"lookup.deadline": "1ms"}}
    answer: dict[str, Any] = harness.run_several(
        work,
        {
            "stored": ("small.twice", wide | {"settings": settings}),
            "late": ("tier.late", wide | hurried),
            "hazard": ("tier.hot", {"model": str(work / "llama"), "eviction": "hazard"}),
            "lru": ("tier.hot", {"model": str(work / "llama"), "eviction": "lru"}),
            "prompt only": ("tier.prompt_only", {"model": str(work / "llama")}),
            "planned": ("tier.planned", {"model": harness.model("float32")}),
            "structured": ("tier.structured", {"model": harness.model("float32")}),
        },
    )
    return answer


def hits(measured: dict[str, Any]) -> float:
    """Tokens hit outside the engine."""
    return float(sum(measured["grown"].get(name, 0) for name in (HOST, DISK)))


def test_what_comes_too_late_is_computed_and_hit_later(found: dict[str, Any]) -> None:
    first, later = found["late"]["first"], found["late"]["later"]
    right = found["stored"]["cold"]["answers"][0]["tokens"]
    assert first["grown"][LATE] > 0
    assert first["answers"][0]["ledger"]["first_miss"] == "late"
    assert first["answers"][0]["tokens"] == right
    assert hits(later) == later["answers"][0]["cached"] > 0
    assert later["answers"][0]["tokens"] == right


def test_beside_a_late_look_up_the_answer_is_a_cold_runs_split_where_the_hit_ends(
    found: dict[str, Any],
) -> None:
    answer, split = found["late"]["first"]["answers"][0], found["late"]["split"]
    assert split["cached"] == 0
    assert (answer["tokens"], answer["logprobs"]) == (split["tokens"], split["logprobs"])


def test_what_came_late_answers_as_the_engines_own_hit_of_it(found: dict[str, Any]) -> None:
    answer, own = found["late"]["later"]["answers"][0], found["late"]["own"]
    assert own["cached"] == answer["cached"]
    assert not own["ledger"]["hit_tokens"]
    assert (answer["tokens"], answer["logprobs"]) == (own["tokens"], own["logprobs"])


@pytest.mark.parametrize("eviction", ["hazard", "lru"])
def test_a_system_prompt_that_the_engine_hits_itself_never_ages_out_of_host(
    found: dict[str, Any], eviction: str
) -> None:
    case = found[eviction]
    assert case["hot"]["grown"][HOST] == SYSTEM
    # Which of them `hazard` keeps is not said: they are all as old, in whole seconds.
    hit = [other["grown"].get(HOST, 0) for other in case["others"]]
    assert sum(hit) < OTHER * len(hit) / 2, "the host tier was not overrun"
    misses = [other["answers"][0]["ledger"]["first_miss"] for other in case["others"]]
    assert misses[hit.index(min(hit))] == "evicted"


def test_what_only_the_engine_holds_is_offloaded_again_once(found: dict[str, Any]) -> None:
    case = found["lru"]
    for name in ("again", "once"):
        assert case[name]["answers"][0]["ledger"]["local_tokens"] == SYSTEM
    assert case["again"]["grown"][OFFLOADED] == SYSTEM // 32 + 1
    assert case["once"]["grown"][OFFLOADED] == 1
    assert case["back"]["grown"][HOST] == SYSTEM


def test_in_scope_prompt_generated_blocks_are_not_stored(found: dict[str, Any]) -> None:
    case = found["prompt only"]
    assert case["outside"]["answers"][0]["cached"] == 288
    assert case["outside"]["grown"][HOST] == 288
    assert case["outside"]["answers"][0]["tokens"] == case["local"][0]["tokens"]


def test_structured_output_is_the_same_on_a_hit(found: dict[str, Any]) -> None:
    case = found["structured"]
    assert case["outside"]["tokens"] == case["local"]["tokens"]
    assert case["grown"][HOST] == 192


@pytest.mark.parametrize("rates", ["unknown", "known"])
def test_the_planner_takes_a_hit_before_and_after_it_knows_the_rates(
    found: dict[str, Any], rates: str
) -> None:
    case = found["planned"][rates]
    is_known = case["status"]["load_bytes_per_second"].get("host", 0) > 0
    assert is_known == (rates == "known")
    assert case["grown"][HOST] == 288
    assert case["answer"]["tokens"] == found["planned"]["cold"]["tokens"]


def test_a_hit_that_is_dearer_than_computing_is_refused(found: dict[str, Any]) -> None:
    case = found["planned"]["refused"]
    assert HOST not in case["grown"]
    assert case["grown"][NOT_WORTH_IT] == 9
    assert case["answer"]["ledger"]["first_miss"] == "not_worth_it"
    assert case["answer"]["tokens"] == found["planned"]["cold"]["tokens"]
