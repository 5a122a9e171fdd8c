"""Two ranks, two worker processes: a block is whole only when both have their part of it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.small import DISK, HOST, numbers

PROMPTS = [numbers(1, 300), numbers(2, 321)]
HITS = 288 + 320


def tokens(answers: list[Any]) -> list[Any]:
    return [answer["tokens"] for answer in answers]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One rank without Terrace; two with it, of which one is killed; and two after a new start."""
    work = tmp_path_factory.mktemp("ranks")
    model, disk = work / "llama", work / "disk"
    disk.mkdir()
    harness.run(work, "tiny.make", folder=str(model), kind="llama")
    same: dict[str, Any] = {"model": str(model), "prompts": PROMPTS}
    settings: dict[str, Any] = {"settings": {"disk.size": "256MiB", "disk.paths": [str(disk)]}}
    return {
        "plain": harness.run(work, "small.plain", **same),
        "first": harness.run(work, "small.ranks", **same, **settings, ends_by_kill=True),
        "second": harness.run(work, "small.once", **same, **settings, tensor_parallel_size=2),
    }


def test_two_ranks_hit_in_host(found: dict[str, Any]) -> None:
    assert [one["attached"] for one in found["first"]["status"]["attachments"]] == [True, True]
    assert tokens(found["first"]["cold"]["answers"]) == tokens(found["plain"]["cold"])
    assert tokens(found["first"]["host"]["answers"]) == tokens(found["plain"]["cold"])
    assert found["first"]["host"]["grown"][HOST] == HITS


def test_each_rank_is_a_process_of_its_own(found: dict[str, Any]) -> None:
    processes = [one["process"] for one in found["first"]["status"]["attachments"]]
    assert all(processes)
    assert len(set(processes)) == 2


def test_a_killed_rank_is_seen_at_once(found: dict[str, Any]) -> None:
    # The engine ends the other rank on its own, sooner or later.
    assert not found["first"]["after"]["attachments"][1]["attached"]
    assert not found["first"]["after"]["ready"]


def test_after_the_death_of_a_rank_the_next_engine_hits_on_disk(found: dict[str, Any]) -> None:
    assert tokens(found["second"]["answers"]) == tokens(found["plain"]["cold"])
    assert found["second"]["grown"][DISK] == HITS
