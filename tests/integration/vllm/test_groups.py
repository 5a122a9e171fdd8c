"""A model of several KV groups: one needs all of the past, the others what their windows show."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.groups import BLOCK, BLOCKS, FAILED, lengths
from tests.integration.vllm.scenarios.small import DISK, HOST

LOCAL = BLOCK * 5
# The real model's windows hold 16 blocks.
REAL = {"blocks": 40, "memory": 600 << 20, "max_model_len": 2048}


def hits(found: dict[str, Any]) -> list[int]:
    return [(length - 1) // BLOCK * BLOCK for length in lengths(found["blocks"])]


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    named = request.config.getoption("--hybrid-model")
    if named:
        return str(named)
    folder = tmp_path_factory.mktemp("model")
    harness.run(folder, "tiny.make", folder=str(folder / "gemma"), kind="gemma")
    return str(folder / "gemma")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The real model is made in float32 alone."""
    if "found" in metafunc.fixturenames:
        is_real = bool(metafunc.config.getoption("--hybrid-model"))
        dtypes = ["float32"] if is_real else ["float32", "bfloat16"]
        metafunc.parametrize("found", dtypes, indirect=True, scope="module")


@pytest.fixture(scope="module")
def found(
    request: pytest.FixtureRequest, model: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    work = tmp_path_factory.mktemp(request.param)
    is_real = bool(request.config.getoption("--hybrid-model"))
    same: dict[str, Any] = {"model": model, "dtype": request.param}
    if is_real:
        same |= REAL
    settings = {"disk.size": "256MiB", "disk.paths": [str(work / "disk")]}
    (work / "disk").mkdir()
    answer: dict[str, Any] = harness.run_several(
        work,
        {
            "reference": ("groups.reference", same),
            "broken": ("groups.broken", same),
            "aborted": ("groups.aborted", same),
        }
        | ({} if is_real else {"preempted": ("groups.preempted", same)}),
    )
    kept = same | {"settings": settings}
    answer["truth"] = harness.run(work, "groups.truth", **kept, is_killed=True, ends_by_kill=True)
    answer["restarted"] = harness.run(work, "groups.restarted", **kept)
    return answer | {"dtype": request.param, "blocks": same.get("blocks", BLOCKS)}


def of(answers: list[Any], what: str) -> list[Any]:
    return [answer[what] for answer in answers]


def served(found: list[Any]) -> list[Any]:
    return [one["answers"][0] for one in found]


def test_the_engine_holds_as_much_as_without_terrace(found: dict[str, Any]) -> None:
    assert found["reference"]["capacity"]["groups"] > 1
    assert found["truth"]["capacity"] == found["reference"]["capacity"]


def test_blocks_after_a_hit_equal_those_before(found: dict[str, Any]) -> None:
    for stored, loaded in found["truth"]["bytes"]:
        common = 0
        for before, after in zip(stored, loaded, strict=True):
            pairs = [pair for pair in zip(before, after, strict=True) if None not in pair]
            assert pairs, "a group of which nothing was loaded"
            assert all(one == other for one, other in pairs)
            common += len(pairs)
        assert len(loaded[0]) < common


@pytest.mark.parametrize("tier", ["host", "disk"])
def test_a_hit_is_the_engines_own_hit_bit_by_bit(found: dict[str, Any], tier: str) -> None:
    loaded = found["truth"]["host"] if tier == "host" else found["restarted"]["disk"]
    name = HOST if tier == "host" else DISK
    assert [one["grown"].get(name) for one in loaded] == hits(found)
    assert of(served(loaded), "logprobs") == of(found["reference"]["local"], "logprobs")
    assert of(served(loaded), "tokens") == of(found["reference"]["local"], "tokens")


def test_a_hit_is_a_cold_run_that_is_split_where_it_ends(found: dict[str, Any]) -> None:
    split = of(found["reference"]["split"], "logprobs")
    is_own = of(found["reference"]["local"], "logprobs") == split
    # What the engine stores of a long chunk may differ in the last bits from what it makes of a
    # shorter one: then its own hits differ as well.
    assert is_own or found["blocks"] > BLOCKS
    assert (of(served(found["truth"]["host"]), "logprobs") == split) == is_own


def test_a_part_in_the_engines_own_cache_is_not_loaded(found: dict[str, Any]) -> None:
    mixed = found["truth"]["mixed"]
    assert [one["grown"][HOST] for one in mixed] == [hit - LOCAL for hit in hits(found)]
    assert of(served(mixed), "logprobs") == of(found["reference"]["local"], "logprobs")


def test_several_at_once_answer_as_alone(found: dict[str, Any]) -> None:
    together = found["truth"]["together"]
    assert together["grown"][HOST] == sum(hits(found))
    if found["dtype"] == "float32":
        assert of(together["answers"], "tokens") == of(found["reference"]["cold"], "tokens")
    assert found["truth"]["status"]["health"] == "green"
    assert found["truth"]["live"] == 0


def test_plain_answers_stay(found: dict[str, Any]) -> None:
    assert of(served(found["truth"]["cold"]), "tokens") == of(found["reference"]["cold"], "tokens")
    if found["dtype"] == "float32":
        assert of(served(found["truth"]["host"]), "tokens") == of(
            found["reference"]["cold"], "tokens"
        )


def test_a_corrupt_shard_is_a_miss_and_is_asked_for_once(found: dict[str, Any]) -> None:
    case = found["broken"]
    assert case["corrupt"]["grown"][FAILED] == 1
    assert HOST not in case["corrupt"]["grown"]
    assert of(case["corrupt"]["answers"], "tokens") == of(case["cold"], "tokens")
    assert of(case["again"]["answers"], "tokens") == of(case["cold"], "tokens")


def test_what_nobody_loads_is_computed(found: dict[str, Any]) -> None:
    case = found["broken"]
    for name in ("not accepted",):
        assert HOST not in case[name]["grown"]
        assert of(case[name]["answers"], "tokens") == of(case["cold"], "tokens")
    for name in ("fallen", "after"):
        assert of(case[name], "tokens") == of(case["cold"], "tokens")
    assert not case["has_half"]


def test_aborted_requests_give_back_what_they_held(found: dict[str, Any]) -> None:
    case = found["aborted"]
    assert (case["leaked_blocks"], case["live"]) == (0, 0)
    assert case["after"]["grown"][HOST] == hits(found)[2]
    assert case["status"]["health"] == "green"


def test_preempted_requests_answer_as_alone(found: dict[str, Any]) -> None:
    if "preempted" not in found:
        return  # Of the tiny model alone: the real one's smallest cache holds all of them.
    case = found["preempted"]
    assert sum(case["preemptions"]) > 0
    if found["dtype"] == "float32":
        assert of(case["together"]["answers"], "tokens") == of(case["solo"], "tokens")
        assert of(case["again"]["answers"], "tokens") == of(case["solo"], "tokens")
    assert case["again"]["grown"][HOST] >= 4 * 96
