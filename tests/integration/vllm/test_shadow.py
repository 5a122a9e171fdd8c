"""Hits that are computed all the same: a lie is found, honest blocks are never taken for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.shadow import CHECKED, PLANTED
from tests.integration.vllm.scenarios.small import numbers

BLOCKS = 5
SIZES = {"float32": 32, "bfloat16": 32}
PROMPTS = 3
HITS = PROMPTS * BLOCKS
FULL = 9  # Blocks of a prompt of 300 tokens.


def blocks(run: dict[str, Any], result: str) -> int:
    return int(run["grown"].get(f'terrace_shadow_blocks_total{{result="{result}"}}', 0))


def told(answer: dict[str, Any]) -> tuple[Any, Any]:
    return answer["tokens"], answer["logprobs"]


@pytest.fixture(scope="module", params=SIZES)
def honest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    dtype = request.param
    work = tmp_path_factory.mktemp(dtype)
    same = {"model": harness.model(dtype), "dtype": dtype, "block_size": SIZES[dtype]}
    return harness.run(work, "shadow.honest", **same, blocks=BLOCKS)


def test_an_honest_store_is_never_taken_for_a_lie(honest: dict[str, Any]) -> None:
    for name, run in honest["found"].items():
        assert blocks(run, "beyond") == 0, name
        hits = BLOCKS * len(run["answers"])
        assert blocks(run, "equal") + blocks(run, "within") == hits, name
        assert all(answer["ledger"]["first_miss"] == "shadow" for answer in run["answers"]), name
    status = honest["status"]
    assert (status["health"], status["shadow"]["quarantined"]) == ("green", False)


def test_in_the_same_pieces_the_bytes_are_the_same(honest: dict[str, Any]) -> None:
    same = honest["found"]["same"]
    assert blocks(same, "equal") == HITS
    assert [told(one) for one in same["answers"]] == [told(one) for one in honest["cold"]]


def test_in_other_pieces_the_noise_stays_well_below_the_floor(honest: dict[str, Any]) -> None:
    ones = honest["found"]["ones"]
    assert blocks(ones, "within") > 0
    assert 0 < max(ones["ratios"].values()) < 0.5, ones["ratios"]


def test_what_a_checked_hit_costs_is_counted(honest: dict[str, Any]) -> None:
    shadow = honest["status"]["shadow"]
    assert shadow["requests"] == PROMPTS * (len(honest["found"]) - 1) + 1
    assert shadow["tokens"] == shadow["requests"] * BLOCKS * 32


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shadow")


@pytest.fixture(scope="module")
def model(work: Path) -> str:
    folder = str(work / "llama")
    harness.run(work, "tiny.make", folder=folder, kind="llama")
    return folder


@pytest.fixture(scope="module")
def disk(work: Path) -> dict[str, Any]:
    return {"disk.size": "64MiB", "disk.paths": [str(work / "disk")]}


def evidence_of(work: Path) -> Path:
    """Where nothing else is said, it lies with the disk tier."""
    return work / "disk" / "evidence"


@pytest.fixture(scope="module")
def small(model: str, work: Path, disk: dict[str, Any]) -> Any:
    unchecked = {"settings": {"shadow.share": 0.0}, "dtype": "float32"}
    (work / "disk").mkdir()
    return harness.run_several(
        work,
        {
            "unchecked": ("shadow.planted", {"model": model} | unchecked),
            "float32": (
                "shadow.planted",
                {"model": model, "dtype": "float32", "settings": CHECKED | disk},
            ),
            "restarted": ("shadow.restarted", {"model": model, "settings": CHECKED | disk}),
            "lifted": (
                "shadow.restarted",
                {"model": model, "settings": disk, "removed": str(evidence_of(work))},
            ),
            "bfloat16": (
                "shadow.planted",
                {"model": model, "dtype": "bfloat16", "settings": CHECKED},
            ),
            "preempted": ("shadow.preempted", {"model": model}),
            "narrow": ("shadow.narrow", {"model": model}),
        },
    )


def test_unchecked_the_planted_block_is_served_and_changes_the_answer(small: Any) -> None:
    """So the plant is a lie that no checksum finds."""
    found = small["unchecked"]
    assert found["again"]["ledger"]["hit_tokens"]["host"] == FULL * 32
    assert told(found["again"]) != told(found["cold"])
    assert found["status"]["health"] == "green"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_planted_block_is_found_and_ends_the_service(small: Any, dtype: str) -> None:
    found = small[dtype]
    assert told(found["again"]) == told(found["cold"])
    assert found["again"]["ledger"]["first_miss"] == "shadow"
    assert found["metrics"]['terrace_shadow_blocks_total{result="beyond"}'] >= 1
    assert found["metrics"]["terrace_shadow_quarantined"] == 1
    for name, cold in (("third", "cold"), ("other", "cold other")):
        assert found[name]["ledger"]["first_miss"] == "quarantined"
        assert told(found[name]) == told(found[cold])
    status = found["status"]
    assert status["health"] == "red"
    assert any(line.startswith("quarantined: ") for line in status["problems"])


def test_the_evidence_is_where_health_says(small: Any, work: Path) -> None:
    texts = list(evidence_of(work).glob("*.json"))
    assert len(texts) == 1
    problems = "\n".join(small["float32"]["status"]["problems"])
    assert str(texts[0].with_suffix("")) in problems
    told_difference = json.loads(texts[0].read_text())["difference"]
    stored, computed = (texts[0].with_suffix(one).read_bytes() for one in (".stored", ".computed"))
    assert len(stored) == len(computed)
    differing = [at for at in range(len(stored)) if stored[at] != computed[at]]
    assert differing and told_difference["elements"] <= len(differing)
    assert told_difference["stored"] != told_difference["computed"]


def test_after_a_restart_it_is_still_in_force(small: Any, work: Path) -> None:
    found = small["restarted"]
    for name in ("prompt", "other", "again"):
        assert found[name]["ledger"]["first_miss"] == "quarantined"
    assert told(found["prompt"]) == told(small["float32"]["cold"])
    assert found["status"]["health"] == "red"
    problem = next(line for line in found["status"]["problems"] if "quarantined: " in line)
    assert f"until {evidence_of(work)}/" in problem


def test_without_the_mark_the_next_start_serves_and_finds_nothing_of_before(small: Any) -> None:
    found = small["lifted"]
    assert found["marks"] == 1
    for name in ("prompt", "other"):
        assert not any(found[name]["ledger"]["hit_tokens"].values())
        assert found[name]["ledger"]["first_miss"] == "never_stored"
    assert found["again"]["ledger"]["hit_tokens"]["host"] == FULL * 32
    assert told(found["again"]) == told(small["float32"]["cold"])
    assert found["status"]["health"] == "green"


def test_preempted_requests_are_checked_and_honest(small: Any) -> None:
    found = small["preempted"]
    assert sum(found["preemptions"]) > 0
    status = found["status"]
    assert status["health"] == "green"
    assert status["shadow"]["beyond_blocks"] == 0
    assert status["shadow"]["equal_blocks"] + status["shadow"]["within_blocks"] > 0


def test_a_type_that_cannot_be_compared_is_served_and_said(small: Any) -> None:
    found = small["narrow"]
    assert found["again"]["ledger"]["hit_tokens"]["host"] == FULL * 32
    assert found["status"]["shadow"]["why_none"].startswith("KV of the type fp8")


def test_the_planted_block_is_one_of_the_prompts() -> None:
    assert PLANTED < FULL


@pytest.fixture(scope="module")
def whole(model: str, work: Path) -> dict[str, Any]:
    prompts = [numbers(1, 300), numbers(2, 321)]
    harness.run(work, "tiny.make", folder=str(work / "gemma"), kind="gemma")
    windowed: dict[str, Any] = {"model": str(work / "gemma"), "prompts": prompts}
    ranked: dict[str, Any] = {"model": model, "prompts": prompts, "tensor_parallel_size": 2}
    return {
        "windows": harness.run(work, "shadow.whole", **windowed),
        "ranks": harness.run(work, "shadow.whole", **ranked),
    }


def test_a_part_that_one_of_two_ranks_stored_wrong_is_found(model: str, tmp_path: Path) -> None:
    run: dict[str, Any] = {"model": model, "rank": 1, "flag": str(tmp_path / "plant")}
    found = harness.run(tmp_path, "shadow.planted_in_rank", **run)
    assert told(found["again"]) == told(found["cold"])
    assert found["again"]["ledger"]["first_miss"] == "shadow"
    assert found["metrics"]['terrace_shadow_blocks_total{result="beyond"}'] == 1
    assert found["status"]["health"] == "red"
    text = next(tmp_path.glob("*-*.json"))
    assert json.loads(text.read_text())["rank"] == 1


@pytest.mark.parametrize("kind", ["windows", "ranks"])
def test_of_several_groups_and_ranks_all_parts_are_checked_and_honest(
    whole: dict[str, Any], kind: str
) -> None:
    found = whole[kind]
    status = found["status"]
    assert status["health"] == "green"
    assert [one["ledger"]["first_miss"] for one in found["again"]] == ["shadow", "shadow"]
    assert [told(one) for one in found["again"]] == [told(one) for one in found["cold"]]
    assert status["shadow"]["beyond_blocks"] == 0
    compared = status["shadow"]["equal_blocks"] + status["shadow"]["within_blocks"]
    # Of the tiny model with windows: 9 and 10 blocks of the group that needs all, and some more.
    assert compared == 19 if kind == "ranks" else compared > 19
