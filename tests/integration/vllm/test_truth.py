"""A hit changes nothing but the time: bytes, log-probabilities and tokens are the engine's own.

Each pair of dtype and block size has an engine that stores and hits.  Two pairs, or with `--full`
all, have one without Terrace beside it, and one that starts again after kill -9.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.truth import full_blocks, lengths

HOST = 'terrace_hit_tokens_total{tier="host"}'
DISK = 'terrace_hit_tokens_total{tier="disk"}'


@dataclass(frozen=True)
class Case:
    dtype: str
    block_size: int
    blocks: int  # Full blocks of the longest prompt.
    is_whole: bool  # With the engine without Terrace, and with the restart.

    def __str__(self) -> str:
        return f"{self.dtype}-{self.block_size}"


CASES = (
    Case("float32", 32, 7, is_whole=True),
    Case("bfloat16", 128, 3, is_whole=True),
    Case("float32", 128, 3, is_whole=False),
    Case("bfloat16", 32, 7, is_whole=False),
)


@dataclass
class Found:
    case: Case
    reference: dict[str, Any] | None
    stored: dict[str, Any]
    restarted: dict[str, Any] | None

    def hits(self) -> list[int]:
        """Tokens that a hit serves, prompt by prompt: two texts of three lengths."""
        size = self.case.block_size
        return [full_blocks(n, size) * size for n in lengths(size, self.case.blocks)] * 2

    def outside(self) -> list[tuple[str, list[Any]]]:
        """Runs whose whole hit came from below the engine's own cache."""
        runs = [("host", self.stored["host"])]
        if self.restarted is not None:
            runs.append(("disk", self.restarted["disk"]))
        return runs


@pytest.fixture(scope="module", params=CASES, ids=str)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    case: Case = request.param
    work = tmp_path_factory.mktemp(str(case))
    same: dict[str, Any] = {"model": harness.model(case.dtype), "dtype": case.dtype}
    same |= {"block_size": case.block_size, "blocks": case.blocks}
    is_whole = case.is_whole or request.config.getoption("--full", False)
    reference = harness.run(work, "truth.reference", **same) if is_whole else None
    settings: dict[str, Any] = {}
    if is_whole:
        settings = {"disk.size": "1GiB", "disk.paths": [str(_folder(work))]}
    stored = harness.run(
        work,
        "truth.store",
        **same,
        settings=settings,
        is_killed=is_whole,
        ends_by_kill=is_whole,
    )
    restarted = None
    if is_whole:
        restarted = harness.run(work, "truth.restart", **same, settings=settings)
    return Found(case, reference, stored, restarted)


def _folder(work: Path) -> Path:
    folder = work / "disk"
    folder.mkdir()
    return folder


def same_output(left: list[Any], right: list[Any]) -> list[bool]:
    return [
        (one["tokens"], one["logprobs"]) == (other["tokens"], other["logprobs"])
        for one, other in zip(left, right, strict=True)
    ]


def test_blocks_after_onboard_equal_those_before_offload(found: Found) -> None:
    for before, after in found.stored["bytes"]:
        assert before
        assert before == after


def test_an_external_hit_equals_the_engines_own_hit_bit_for_bit(found: Found) -> None:
    for name, runs in found.outside():
        assert all(same_output(runs, found.stored["local"])), name
        if found.reference is not None:
            assert all(same_output(runs, found.reference["local"])), name


def test_an_external_hit_equals_a_cold_run_split_where_the_hit_ends(found: Found) -> None:
    if found.reference is None:
        return  # This pair has no engine without Terrace.
    for name, runs in found.outside():
        assert all(same_output(runs, found.reference["split"])), name


def test_a_hit_of_both_caches_equals_the_engines_own_hit(found: Found) -> None:
    assert all(same_output(found.stored["mixed"], found.stored["local"]))


def test_storing_changes_no_answer(found: Found) -> None:
    if found.reference is not None:
        assert all(same_output(found.stored["cold"], found.reference["cold"]))


def test_tokens_equal_a_plain_recompute(found: Found) -> None:
    if found.case.dtype != "float32" or found.reference is None:
        return  # The oracle for text is float32: other margins are too thin.
    reproduced = same_output(found.reference["cold"], found.reference["again"])
    assert reproduced.count(False) <= 0.05 * len(reproduced), "the engine differs from itself"
    for name, runs in found.outside():
        for is_sure, run, cold in zip(reproduced, runs, found.reference["cold"], strict=True):
            assert not is_sure or run["tokens"] == cold["tokens"], name


def test_counters_and_ledger_name_exactly_the_tokens_hit_in_host(found: Found) -> None:
    for run, tokens in zip(found.stored["host"], found.hits(), strict=True):
        assert run["cached"] == tokens
        assert run["grown"][HOST] == tokens
        assert run["ledger"]["hit_tokens"] == {"host": tokens}
        assert run["grown"]["terrace_verified_blocks_total"] == tokens // found.case.block_size


def test_counters_split_a_mixed_hit(found: Found) -> None:
    size = found.case.block_size
    local = found.case.blocks // 2 * size
    for run, tokens in zip(found.stored["mixed"], found.hits(), strict=True):
        assert run["cached"] == tokens
        assert run["grown"][HOST] == tokens - local
        assert run["ledger"]["local_tokens"] == local


def test_a_cold_run_hits_nothing_and_stores_each_full_block_once(found: Found) -> None:
    sizes = lengths(found.case.block_size, found.case.blocks) * 2
    for run, length in zip(found.stored["cold"], sizes, strict=True):
        assert run["cached"] == 0
        assert HOST not in run["grown"]
        assert run["ledger"]["first_miss"] == "never_stored"
        # The last token that is generated is never computed.
        full = (length + len(run["tokens"][0]) - 1) // found.case.block_size
        assert run["grown"]['terrace_reports_total{result="taken"}'] >= 1
        offload = 'terrace_transfer_bytes_total{op="offload",source="device",target="host"}'
        assert run["grown"][offload] == full * block_bytes(found)


def test_the_canary_passed_before_anything_was_served(found: Found) -> None:
    assert found.stored["status"]["canary"] == "passed"
    assert found.stored["status"]["health"] == "green"


def block_bytes(found: Found) -> int:
    """30 layers, 3 KV heads, 64 wide, K and V."""
    item = 4 if found.case.dtype == "float32" else 2
    return 30 * 3 * 64 * 2 * item * found.case.block_size


def test_requests_of_one_step_hit_side_by_side(found: Found) -> None:
    if found.reference is not None:
        assert all(same_output(found.stored["batch"], found.reference["batch"]))
    size = found.case.block_size
    assert found.stored["batch_grown"][HOST] == 3 * found.case.blocks * size


def test_the_first_request_after_a_killed_engine_hits_on_disk(found: Found) -> None:
    if found.restarted is None:
        return  # This pair has no second engine.
    for run, tokens in zip(found.restarted["disk"], found.hits(), strict=True):
        assert run["cached"] == tokens
        assert run["grown"][DISK] == tokens
        assert run["ledger"]["hit_tokens"] == {"disk": tokens}
