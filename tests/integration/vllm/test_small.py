"""What vLLM may be configured to do, on tiny models with wide margins: one engine each."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.multi import BAD_BLOCK, TAINTED
from tests.integration.vllm.scenarios.small import DISK, HOST, OFFLOADED, numbers

PROMPTS = [numbers(1, 300), numbers(2, 321)]
HITS = 288 + 320
POLICY = "kv_load_failure_policy is 'fail'"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    harness.run(folder, "tiny.make", folder=str(folder / "llama"), kind="llama")
    return folder


@pytest.fixture(scope="module")
def llama(models: Path) -> str:
    return str(models / "llama")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("small")


@pytest.fixture(scope="module")
def found(llama: str, work: Path) -> dict[str, Any]:
    """Engines that need no other process: one after the other."""
    same: dict[str, Any] = {"model": llama, "prompts": PROMPTS}
    narrow: dict[str, Any] = {"kv_cache_dtype": "fp8", "dtype": "bfloat16"}
    whole: dict[str, Any] = {"enable_chunked_prefill": False, "max_num_batched_tokens": 2048}
    strict: dict[str, Any] = {"failure_policy": "fail", "settings": {}}
    shared = {"settings": on_disk(work)}
    answer: dict[str, Any] = harness.run_several(
        work,
        {
            "plain": ("small.plain", same),
            "no own cache": (
                "small.twice",
                same | {"settings": {}, "enable_prefix_caching": False},
            ),
            "no chunks": ("small.twice", same | strict | whole),
            "preempted": ("small.preempted", {"model": llama}),
            "resumed": ("small.resumed", {"model": llama}),
            "fp8 plain": ("small.plain", same | narrow),
            "fp8": ("small.rungs", same | narrow),
            "fp8_e5m2": ("small.rungs", same | narrow | {"kv_cache_dtype": "fp8_e5m2"}),
            "float16": ("small.rungs", same | {"dtype": "float16"}),
            "worker refused": ("small.worker_refused", same),
            "second": ("small.second", same),
            "newer": ("small.newer", same),
            "among others": ("multi.run", same),
            "beside failing": ("multi.beside_failing", same),
            "producer": ("small.twice", same | shared | {"role": "kv_producer"}),
            "consumer": ("small.twice", same | shared | {"role": "kv_consumer"}),
        },
    )
    return answer


def tokens(answers: list[Any]) -> list[Any]:
    return [answer["tokens"] for answer in answers]


def on_disk(work: Path) -> dict[str, Any]:
    folder = work / "disk"
    folder.mkdir(exist_ok=True)
    return {"disk.size": "256MiB", "disk.paths": [str(folder)]}


@pytest.mark.parametrize("case", ["no own cache", "no chunks"])
def test_hits_come_from_host_and_answers_stay(found: dict[str, Any], case: str) -> None:
    assert found[case]["host"]["grown"][HOST] == HITS
    assert tokens(found[case]["cold"]["answers"]) == tokens(found["plain"]["cold"])
    assert tokens(found[case]["host"]["answers"]) == tokens(found["plain"]["cold"])


def test_preempted_requests_answer_as_alone(found: dict[str, Any]) -> None:
    case = found["preempted"]
    assert sum(case["preemptions"]) > 0
    assert tokens(case["together"]["answers"]) == tokens(case["solo"])
    assert tokens(case["again"]["answers"]) == tokens(case["solo"])
    assert case["again"]["grown"][HOST] >= 4 * 192
    assert case["status"]["health"] == "green"
    for one in case["stored"]:
        assert one["grown"][HOST] == 256


def test_a_preempted_request_may_be_aborted(found: dict[str, Any]) -> None:
    assert found["preempted"]["aborted"] == {"count": 1, "leaked_blocks": 0, "live": 0}


def test_a_preempted_request_resumes_from_host_as_from_the_engines_own_cache(
    found: dict[str, Any],
) -> None:
    host, local = found["resumed"]["host"], found["resumed"]["local"]
    assert host["preemptions"] == local["preemptions"] == 1
    assert HOST not in local["grown"]
    assert host["grown"][HOST] == 224
    assert (host["tokens"], host["logprobs"]) == (local["tokens"], local["logprobs"])
    assert len(host["logprobs"][0]) == 60


@pytest.mark.parametrize("kind", ["fp8", "fp8_e5m2", "float16"])
def test_narrow_kv_hits_as_the_engines_own_cache_does(found: dict[str, Any], kind: str) -> None:
    case = found[kind]
    for host, local in zip(case["host"], case["local"], strict=True):
        assert (host["tokens"], host["logprobs"]) == (local["tokens"], local["logprobs"])
    assert [answer["cached"] for answer in case["host"]] == [288, 320]
    assert case["grown"][HOST] == HITS
    for stored, onboarded in case["bytes"]:
        assert stored
        assert stored == onboarded
    # 4 layers, 2 KV heads, 64 wide, K and V.
    assert case["block_bytes"] == 4 * 2 * 64 * 2 * 32 * (2 if kind == "float16" else 1)


def test_eight_bit_kv_answers_as_without_terrace(found: dict[str, Any]) -> None:
    assert tokens(found["fp8"]["local"]) == tokens(found["fp8 plain"]["local"])
    # The two formats are told apart: with one for both, these would be equal.
    assert found["fp8"]["bytes"] != found["fp8_e5m2"]["bytes"]


def test_a_worker_that_stands_aside_takes_the_owner_along(found: dict[str, Any]) -> None:
    assert not found["worker refused"]["has_half"]
    assert tokens(found["worker refused"]["answers"]) == tokens(found["plain"]["cold"])


def test_a_second_engine_in_one_process_costs_hits_and_no_answer(found: dict[str, Any]) -> None:
    case = found["second"]
    for name in ("cold", "other", "again"):
        assert tokens(case[name]) == tokens(found["plain"]["cold"])
    assert not case["hits"]
    assert not all(case["has_half"]), "nobody was told"


def test_among_other_connectors_hits_come_from_host_and_equal_the_engines_own(
    found: dict[str, Any],
) -> None:
    case = found["among others"]
    for name in ("cold", "local", "host", "again"):
        assert tokens(case[name]["answers"]) == tokens(found["plain"]["cold"])[:1]
    assert [case[name]["grown"][HOST] for name in ("host", "again")] == [288, 288]
    assert case["host"]["answers"][0]["ledger"]["hit_tokens"] == {"host": 288}
    assert case["host"]["answers"][0]["logprobs"] == case["local"]["answers"][0]["logprobs"]
    assert case["bytes"][0] == case["bytes"][1]
    assert case["status"]["health"] == "green"


def test_among_other_connectors_a_bad_block_is_counted_and_computed_anew(
    found: dict[str, Any],
) -> None:
    case = found["among others"]
    assert case["corrupt"] == 1
    assert case["flipped"]["grown"][HOST] == BAD_BLOCK * 32
    ledger = case["flipped"]["answers"][0]["ledger"]
    assert (ledger["first_miss"], ledger["failed_tokens"]) == ("corrupt", 288 - BAD_BLOCK * 32)
    assert tokens(case["flipped"]["answers"]) == tokens(found["plain"]["cold"])[:1]


def test_among_other_connectors_each_gets_its_own_messages_and_may_hold_blocks(
    found: dict[str, Any],
) -> None:
    sender = found["among others"]["sender"]
    assert sender["receipts"] == list(range(1, sender["sent"] + 1))
    assert sender["allocated"] == [0] * sender["requests"]
    # The last one is sent with the step after its end, which never comes.
    assert sender["delivered"] == sender["requests"] - 1


def test_among_other_connectors_whose_loads_fail_nothing_computed_on_them_is_stored(
    found: dict[str, Any],
) -> None:
    case = found["beside failing"]
    cold = tokens(found["plain"]["cold"])[:1]
    assert [tokens(case[name]["answers"]) for name in ("cold", "failed", "host")] == [cold] * 3
    assert case["failures"] == 1
    assert case["failed"]["grown"][TAINTED] == 9
    assert case["host"]["grown"][HOST] == 288
    assert case["bytes"][0] == case["bytes"][1]
    assert case["status"]["health"] == "green"


def test_a_producer_only_stores_its_first_request_included(found: dict[str, Any]) -> None:
    case = found["producer"]
    assert HOST not in case["host"]["grown"]
    assert case["cold"]["grown"][OFFLOADED] > 0
    assert tokens(case["cold"]["answers"]) == tokens(found["plain"]["cold"])


def test_a_consumer_only_loads(found: dict[str, Any]) -> None:
    case = found["consumer"]["cold"]
    assert case["grown"][DISK] == HITS
    assert OFFLOADED not in case["grown"]
    assert tokens(case["answers"]) == tokens(found["plain"]["cold"])


def test_changed_weights_under_the_same_path_never_hit_and_the_old_ones_come_back(
    models: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models / "llama", folder)
    same: dict[str, Any] = {"model": str(folder), "prompts": PROMPTS, "settings": on_disk(tmp_path)}
    first = harness.run(tmp_path, "small.twice", **same, is_killed=True, ends_by_kill=True)
    weights = folder / "model.safetensors"
    kept = tmp_path / "kept.safetensors"
    weights.rename(kept)
    harness.run(tmp_path, "tiny.make", folder=str(folder), kind="llama", changed_layer=2)
    # Each in a process of its own: weights younger than the engine's process keep it off the disk.
    changed = harness.run(tmp_path, "small.once", **same)
    kept.replace(weights)
    back = harness.run(tmp_path, "small.once", **same)
    assert DISK not in changed["grown"]
    assert HOST not in changed["grown"]
    assert tokens(changed["answers"]) != tokens(first["cold"]["answers"])
    reasons = [answer["ledger"]["first_miss"] for answer in changed["answers"]]
    assert set(reasons) <= {"never_stored", "other_namespace"}
    assert back["grown"][DISK] == HITS
    assert tokens(back["answers"]) == tokens(first["cold"]["answers"])


def test_a_wrong_setting_stops_the_start_and_is_named(llama: str, tmp_path: Path) -> None:
    engine = harness.start(
        tmp_path,
        "small.once",
        model=llama,
        prompts=PROMPTS,
        settings={"host.sise": "1GiB"},
    )
    status = engine.wait()
    engine.kill()
    assert status != 0
    assert "host.sise" in engine.tail()
    assert "host.size" in engine.tail()


def test_another_failure_policy_than_recompute_is_warned_of_and_only_then(
    found: dict[str, Any], work: Path
) -> None:
    assert found
    output = (work / "several.run" / "output.txt").read_text(errors="replace")
    assert output.count(POLICY) == 1  # Of all the engines of this process one was told so.


def test_an_unknown_newer_version_is_served_when_its_contract_holds_and_named(
    found: dict[str, Any],
) -> None:
    case = found["newer"]["the same"]
    assert case["hit"] == HITS
    assert tokens(case["answers"]) == tokens(found["plain"]["cold"]) * 2
    assert any("vllm 0.99.0: not a tested version" in line for line in case["told"])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "another signature",
            "calls in another way: start_load_kv(_self, forward_context, stream)",
        ),
        ("a hook gone", "has no on_new_request"),
    ],
)
def test_an_unknown_newer_version_with_another_contract_runs_without_terrace(
    found: dict[str, Any], name: str, why: str
) -> None:
    case = found["newer"][name]
    assert case["hit"] == 0
    assert tokens(case["answers"]) == tokens(found["plain"]["cold"]) * 2
    # Once by each half.
    assert (
        sum(
            f"stands aside, the engine runs as without it: vLLM 0.99.0 {why}" in line
            for line in case["told"]
        )
        == 2
    )


def test_after_an_engine_core_was_killed_alone_the_next_one_hits(
    llama: str, found: dict[str, Any], tmp_path: Path
) -> None:
    same: dict[str, Any] = {"model": llama, "prompts": PROMPTS, "settings": on_disk(tmp_path)}
    first = harness.run(tmp_path, "spawned.killed", **same, multiprocessing=True, ends_by_kill=True)
    assert tokens(first["cold"]) == tokens(found["plain"]["cold"])
    assert tokens(first["host"]) == tokens(found["plain"]["cold"])
    hits = [answer["ledger"]["hit_tokens"] for answer in first["host"]]
    assert hits == [{"host": 288}, {"host": 320}]
    second = harness.run(tmp_path, "spawned.restarted", **same, multiprocessing=True)
    assert tokens(second["answers"]) == tokens(found["plain"]["cold"])
    # What was still queued for disk when the core died is a miss, never a wrong answer.
    assert sum(answer["ledger"]["hit_tokens"].get("disk", 0) for answer in second["answers"]) > 0
