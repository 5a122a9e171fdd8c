"""One server of two data-parallel ranks: two owners over one disk, found again after kill -9."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.engine import TEXTS, until
from tests.integration.vllm.server import OnlineEngine
from tests.integration.vllm.test_server import held_on_disk

PROMPTS = [TEXTS[0] * 14, TEXTS[1] * 14]
RANKS = (0, 1)
FLAGS = ["--data-parallel-size", str(len(RANKS))]

pytestmark = pytest.mark.timeout(3000)


def ask_all(server: OnlineEngine) -> list[list[dict[str, Any]]]:
    """Each prompt of each rank."""
    return [
        [server.complete(prompt, headers={"X-data-parallel-rank": str(rank)}) for prompt in PROMPTS]
        for rank in RANKS
    ]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    work = tmp_path_factory.mktemp("parallel")
    disk = work / "disk"
    disk.mkdir()
    tokenizer = harness.model("float32")
    harness.run(work, "tiny.make", folder=str(work / "model"), kind="talking", tokenizer=tokenizer)
    settings = {"disk.size": "256MiB", "disk.paths": [str(disk)]}
    servers: list[OnlineEngine] = []

    def start(name: str) -> OnlineEngine:
        servers.append(OnlineEngine(work / name, str(work / "model"), settings, FLAGS))
        servers[-1].wait_ready()
        return servers[-1]

    try:
        first = start("first")
        answers: dict[str, Any] = {"cold": ask_all(first), "host": ask_all(first)}
        # The same blocks once for each owner.
        blocks = sum(one["ledger"]["hit_tokens"]["host"] for one in answers["host"][0]) // 32
        until("blocks on disk", lambda: held_on_disk(disk) >= blocks * len(RANKS))
        answers["owners"] = sorted(path.name for path in disk.iterdir() if path.is_dir())
        first.close()
        answers["disk"] = ask_all(start("second"))
        yield answers
    finally:
        for server in servers:
            server.close()


def texts(answers: list[list[dict[str, Any]]]) -> list[list[str]]:
    return [[one["text"] for one in rank] for rank in answers]


def hits(answers: list[list[dict[str, Any]]], tier: str) -> list[list[int]]:
    return [[one["ledger"]["hit_tokens"].get(tier, 0) for one in rank] for rank in answers]


def test_each_rank_has_an_owner_and_a_directory_of_its_own(found: dict[str, Any]) -> None:
    assert hits(found["cold"], "host") == [[0, 0], [0, 0]]  # Nothing crosses over.
    assert found["owners"] == ["terrace-00", "terrace-01"]


@pytest.mark.parametrize("tier", ["host", "disk"])
def test_every_rank_hits_what_it_stored(found: dict[str, Any], tier: str) -> None:
    first, second = hits(found[tier], tier)
    assert first == second
    assert min(first) > 0
    assert texts(found[tier]) == texts(found["cold"])
