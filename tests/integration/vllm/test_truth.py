"""A hit changes nothing but the time: bytes, log-probabilities and tokens are the engine's own.

Each pair of dtype and block size has an engine that stores and hits.  Whole pairs, or with `--full`
all, have one without Terrace beside it, and one that starts again after kill -9; tests that compare
with these run over these pairs alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    Case("bfloat16", 64, 5, is_whole=False),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Pairs by what a test asks for; `--full` makes every pair whole."""
    is_full = metafunc.config.getoption("--full", False)
    cases = [replace(case, is_whole=case.is_whole or is_full) for case in CASES]
    if "whole" in metafunc.fixturenames:
        cases = [case for case in cases if case.is_whole]
    if "whole_text" in metafunc.fixturenames:
        # The oracle for text is float32: other margins are too thin.
        cases = [case for case in cases if case.dtype == "float32"]
    metafunc.parametrize("found", cases, ids=str, indirect=True, scope="module")


@dataclass
class Found:
    case: Case
    stored: dict[str, Any]

    def hits(self) -> list[int]:
        """Tokens that a hit serves, prompt by prompt: two texts of three lengths."""
        size = self.case.block_size
        return [full_blocks(n, size) * size for n in lengths(size, self.case.blocks)] * 2

    def outside(self) -> list[tuple[str, list[Any]]]:
        """Runs whose whole hit came from below the engine's own cache."""
        return [("host", self.stored["host"])]


@dataclass
class Whole(Found):
    """A pair with an engine without Terrace, and with the restart."""

    reference: dict[str, Any]
    restarted: dict[str, Any]

    def outside(self) -> list[tuple[str, list[Any]]]:
        return [*super().outside(), ("disk", self.restarted["disk"])]


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    case: Case = request.param
    work = tmp_path_factory.mktemp(str(case))
    same: dict[str, Any] = {"model": harness.model(case.dtype), "dtype": case.dtype}
    same |= {"block_size": case.block_size, "blocks": case.blocks}
    if not case.is_whole:
        stored = harness.run(
            work, "truth.store", **same, settings={}, is_killed=False, ends_by_kill=False
        )
        return Found(case, stored)
    reference = harness.run(work, "truth.reference", **same)
    same["settings"] = {"disk.size": "1GiB", "disk.paths": [str(_folder(work))]}
    stored = harness.run(work, "truth.store", **same, is_killed=True, ends_by_kill=True)
    restarted = harness.run(work, "truth.restart", **same)
    return Whole(case, stored, reference, restarted)


@pytest.fixture(scope="module")
def whole(found: Found) -> Whole:
    assert isinstance(found, Whole)
    return found


@pytest.fixture(scope="module")
def whole_text(whole: Whole) -> Whole:
    assert whole.case.dtype == "float32"
    return whole


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


def test_an_external_hit_equals_a_hit_of_an_engine_without_terrace(whole: Whole) -> None:
    for name, runs in whole.outside():
        assert all(same_output(runs, whole.reference["local"])), name


def test_an_external_hit_equals_a_cold_run_split_where_the_hit_ends(whole: Whole) -> None:
    for name, runs in whole.outside():
        assert all(same_output(runs, whole.reference["split"])), name


def test_a_hit_of_both_caches_equals_the_engines_own_hit(found: Found) -> None:
    assert all(same_output(found.stored["mixed"], found.stored["local"]))


def test_storing_changes_no_answer(whole: Whole) -> None:
    assert all(same_output(whole.stored["cold"], whole.reference["cold"]))


def test_tokens_equal_a_plain_recompute(whole_text: Whole) -> None:
    reference = whole_text.reference
    reproduced = same_output(reference["cold"], reference["again"])
    assert reproduced.count(False) <= 0.05 * len(reproduced), "the engine differs from itself"
    for name, runs in whole_text.outside():
        for is_sure, run, cold in zip(reproduced, runs, reference["cold"], strict=True):
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


def test_requests_of_one_step_answer_as_without_terrace(whole: Whole) -> None:
    assert all(same_output(whole.stored["batch"], whole.reference["batch"]))


def test_requests_of_one_step_hit_side_by_side(found: Found) -> None:
    size = found.case.block_size
    assert found.stored["batch_grown"][HOST] == 3 * found.case.blocks * size


def test_the_first_request_after_a_killed_engine_hits_on_disk(whole: Whole) -> None:
    for run, tokens in zip(whole.restarted["disk"], whole.hits(), strict=True):
        assert run["cached"] == tokens
        assert run["grown"][DISK] == tokens
        assert run["ledger"]["hit_tokens"] == {"disk": tokens}
