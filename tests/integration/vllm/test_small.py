"""Ranks, preemption, changed weights, several KV groups: on tiny models with wide margins."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.small import DISK, HOST, numbers

PROMPTS = [numbers(1, 300), numbers(2, 321)]
HITS = 288 + 320


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for kind in ("llama", "gemma"):
        harness.run(folder, "tiny.make", name=kind, folder=str(folder / kind), kind=kind)
    return folder


@pytest.fixture(scope="module")
def llama(models: Path) -> str:
    return str(models / "llama")


@pytest.fixture(scope="module")
def plain(llama: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    work = tmp_path_factory.mktemp("plain")
    answer: dict[str, Any] = harness.run(work, "small.plain", model=llama, prompts=PROMPTS)
    return answer


def tokens(answers: list[Any]) -> list[Any]:
    return [answer["tokens"] for answer in answers]


def on_disk(work: Path) -> dict[str, Any]:
    folder = work / "disk"
    folder.mkdir(exist_ok=True)
    return {"disk.size": "256MiB", "disk.paths": [str(folder)]}


def test_two_ranks_hit_in_host_and_after_kill_9_on_disk(
    llama: str, plain: dict[str, Any], tmp_path: Path
) -> None:
    same: dict[str, Any] = {"model": llama, "prompts": PROMPTS, "settings": on_disk(tmp_path)}
    ranks: dict[str, Any] = {"tensor_parallel_size": 2}
    first = harness.run(tmp_path, "small.twice", **same, **ranks, disk_blocks=1, ends_by_kill=True)
    assert tokens(first["host"]["answers"]) == tokens(plain["cold"])
    assert first["host"]["grown"][HOST] == HITS
    assert [one["attached"] for one in first["status"]["attachments"]] == [True, True]
    second = harness.run(tmp_path, "small.once", **same, **ranks)
    assert tokens(second["answers"]) == tokens(plain["cold"])
    assert second["grown"][DISK] == HITS


def test_a_killed_rank_is_seen_and_the_next_engine_hits(
    llama: str, plain: dict[str, Any], tmp_path: Path
) -> None:
    same: dict[str, Any] = {"model": llama, "prompts": PROMPTS, "settings": on_disk(tmp_path)}
    first = harness.run(tmp_path, "small.kill_a_rank", **same, ends_by_kill=True)
    assert not first["status"]["attachments"][1]["attached"]
    second = harness.run(tmp_path, "small.once", **same, tensor_parallel_size=2)
    assert tokens(second["answers"]) == tokens(plain["cold"])


def test_preempted_requests_answer_as_alone(llama: str, tmp_path: Path) -> None:
    found = harness.run(tmp_path, "small.preempted", model=llama)
    assert sum(found["preemptions"]) > 0
    assert tokens(found["together"]["answers"]) == tokens(found["solo"])
    assert tokens(found["again"]["answers"]) == tokens(found["solo"])
    assert found["again"]["grown"][HOST] >= 4 * 192
    assert found["status"]["health"] == "green"
    for one in found["stored"]:
        assert one["grown"][HOST] == 256


def test_changed_weights_under_the_same_path_never_hit_and_the_old_ones_come_back(
    models: Path, plain: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models / "llama", folder)
    same: dict[str, Any] = {"model": str(folder), "prompts": PROMPTS, "settings": on_disk(tmp_path)}
    harness.run(tmp_path, "small.twice", **same, disk_blocks=1, ends_by_kill=True)
    original = folder / "model.safetensors"
    kept = tmp_path / "kept.safetensors"
    original.rename(kept)
    harness.run(tmp_path, "tiny.make", folder=str(folder), kind="llama", changed_layer=2)
    changed = harness.run(tmp_path, "small.once", **same, name="changed")
    assert DISK not in changed["grown"]
    assert HOST not in changed["grown"]
    assert tokens(changed["answers"]) != tokens(plain["cold"])
    reasons = [answer["ledger"]["first_miss"] for answer in changed["answers"]]
    assert set(reasons) <= {"never_stored", "other_namespace"}
    kept.rename(original)
    back = harness.run(tmp_path, "small.once", **same, name="back")
    assert back["grown"][DISK] == HITS
    assert tokens(back["answers"]) == tokens(plain["cold"])


def test_without_the_engines_own_cache_hits_come_from_host(
    llama: str, plain: dict[str, Any], tmp_path: Path
) -> None:
    found = harness.run(
        tmp_path,
        "small.twice",
        model=llama,
        prompts=PROMPTS,
        settings={},
        enable_prefix_caching=False,
    )
    assert found["host"]["grown"][HOST] == HITS
    assert tokens(found["host"]["answers"]) == tokens(plain["cold"])


def test_a_model_of_several_kv_groups_runs_as_without_terrace(models: Path, tmp_path: Path) -> None:
    same: dict[str, Any] = {"model": str(models / "gemma"), "prompts": PROMPTS}
    without = harness.run(tmp_path, "small.plain", **same)
    beside = harness.run(tmp_path, "small.refused", **same)
    assert not beside["has_half"]
    assert tokens(beside["answers"]) == tokens(without["cold"])


def test_a_worker_that_stands_aside_takes_the_owner_along(
    llama: str, plain: dict[str, Any], tmp_path: Path
) -> None:
    found = harness.run(tmp_path, "small.worker_refused", model=llama, prompts=PROMPTS)
    assert tokens(found["answers"]) == tokens(plain["cold"])
    assert not found["has_half"]


def test_a_producer_only_stores_and_a_consumer_only_loads(
    llama: str, plain: dict[str, Any], tmp_path: Path
) -> None:
    same: dict[str, Any] = {"model": llama, "prompts": PROMPTS, "settings": on_disk(tmp_path)}
    producer = harness.run(
        tmp_path, "small.twice", **same, role="kv_producer", disk_blocks=1, ends_by_kill=True
    )
    assert HOST not in producer["host"]["grown"]
    consumer = harness.run(tmp_path, "small.twice", **same, role="kv_consumer", name="consumer")
    assert consumer["cold"]["grown"][DISK] == HITS
    assert tokens(consumer["cold"]["answers"]) == tokens(plain["cold"])
    stored = 'terrace_transfer_bytes_total{op="offload",source="device",target="host"}'
    assert stored not in consumer["cold"]["grown"]


def test_a_wrong_setting_stops_the_start_and_is_named(llama: str, tmp_path: Path) -> None:
    engine = harness.start(
        tmp_path, "small.once", model=llama, prompts=PROMPTS, settings={"host.sise": "1GiB"}
    )
    status = engine.wait()
    engine.kill()
    assert status != 0
    assert "host.sise" in engine.tail()
    assert "host.size" in engine.tail()


def test_an_engine_core_killed_alone_ends_the_engine_and_the_next_one_hits(
    llama: str, plain: dict[str, Any], tmp_path: Path
) -> None:
    same: dict[str, Any] = {"model": llama, "prompts": PROMPTS, "settings": on_disk(tmp_path)}
    first = harness.run(tmp_path, "spawned.killed", **same, multiprocessing=True, ends_by_kill=True)
    assert tokens(first["cold"]) == tokens(plain["cold"])
    assert tokens(first["host"]) == tokens(plain["cold"])
    hits = [answer["ledger"]["hit_tokens"] for answer in first["host"]]
    assert hits == [{"host": 288}, {"host": 320}]
    assert first["ended"] == "EngineDeadError"
    second = harness.run(tmp_path, "spawned.restarted", **same, multiprocessing=True)
    assert tokens(second["answers"]) == tokens(plain["cold"])
    # What was still queued for disk when the core died is a miss, never a wrong answer.
    assert sum(answer["ledger"]["hit_tokens"].get("disk", 0) for answer in second["answers"]) > 0


def test_eight_bit_kv_hits_as_the_engines_own_cache_does(llama: str, tmp_path: Path) -> None:
    narrow: dict[str, Any] = {"kv_cache_dtype": "fp8", "dtype": "bfloat16"}
    without = harness.run(tmp_path, "small.plain", model=llama, prompts=PROMPTS, **narrow)
    found = harness.run(
        tmp_path, "small.twice", model=llama, prompts=PROMPTS, settings={}, **narrow
    )
    assert tokens(found["host"]["answers"]) == tokens(without["local"])
    assert found["host"]["grown"][HOST] == HITS
