"""Two engines that share nothing but a store: what the first one computed serves the second one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.share import CORRUPT, LENGTH, OBJECT, PACKED
from tests.integration.vllm.scenarios.small import HOST, numbers

from s3_server import BUCKET, KEY, SECRET, S3Server, s3_server

# 300 + 70 tokens, in packs of four blocks of 32.
PACKS = (LENGTH + 70) // 128
OWN = {"host.size": "256MiB", "object.pack_blocks": 4}
BUCKET_OF = {
    "object.enabled": True,
    "object.bucket": BUCKET,
    "object.access_key": KEY,
    "object.secret_key": SECRET,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def found(
    tmp_path_factory: pytest.TempPathFactory, server: S3Server, folder: Path
) -> dict[str, Any]:
    work = tmp_path_factory.mktemp("share")
    model = {"model": harness.model("float32")}
    stores: dict[str, dict[str, Any]] = {
        "dir": OWN | {"object.path": str(folder)},
        "s3": OWN | BUCKET_OF | {"object.endpoint": server.endpoint},
    }
    first = {"reference": ("share.reference", model)} | {
        name: ("share.store", model | {"settings": settings, "packs": PACKS})
        for name, settings in stores.items()
    }
    answer: dict[str, Any] = {"first": harness.run_several(work, first)}
    second = {
        name: ("share.serve", model | {"settings": settings}) for name, settings in stores.items()
    }
    answer["second"] = harness.run_several(work, second)
    # Then the directory is damaged, and the server gone.
    damaged = sorted(folder.rglob("*.pack"), key=lambda path: path.stat().st_size)
    assert len(damaged) == PACKS
    for path in damaged:
        content = bytearray(path.read_bytes())
        content[4096 + 100] ^= 1  # In the payload of its first block.
        path.write_bytes(content)
    server.kill()
    third = {
        name: ("share.ask", model | {"settings": settings}) for name, settings in stores.items()
    }
    answer["third"] = harness.run_several(work, third)
    return answer


def same_output(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(one["tokens"] == other["tokens"] and one["logprobs"] == other["logprobs"])


@pytest.mark.parametrize("store", ["dir", "s3"])
def test_the_first_request_of_a_second_engine_hits_what_the_first_one_computed(
    found: dict[str, Any], store: str
) -> None:
    served = found["second"][store]["store"]
    assert served["cached"] == PACKED
    assert served["grown"][OBJECT] == PACKED
    assert served["ledger"]["hit_tokens"]["object"] == PACKED
    assert found["second"][store]["status"]["health"] == "green"


@pytest.mark.parametrize("store", ["dir", "s3"])
def test_the_hit_is_the_engines_own_hit_bit_by_bit(found: dict[str, Any], store: str) -> None:
    local = found["first"]["reference"]["local"]
    assert local["cached"] == PACKED
    assert same_output(found["second"][store]["store"], local)
    assert found["second"][store]["store"]["digests"] == found["first"][store]["digests"]


@pytest.mark.parametrize("store", ["dir", "s3"])
def test_afterwards_the_blocks_come_out_of_host(found: dict[str, Any], store: str) -> None:
    again = found["second"][store]["host"]
    assert again["grown"][HOST] == again["cached"] == 288
    assert OBJECT not in again["grown"]


def test_damaged_packs_are_misses_and_the_answer_is_right(found: dict[str, Any]) -> None:
    case = found["third"]["dir"]
    assert case["answer"]["cached"] == 0
    assert case["grown"][CORRUPT] >= 1
    assert case["answer"]["tokens"] == found["first"]["reference"]["cold"]["tokens"]
    assert any("is damaged" in problem for problem in case["status"]["problems"])


def test_without_the_server_the_engine_computes_and_says_so(found: dict[str, Any]) -> None:
    case = found["third"]["s3"]
    assert case["answer"]["cached"] == 0
    assert case["answer"]["tokens"] == found["first"]["reference"]["cold"]["tokens"]
    assert case["status"]["problems"]


PROMPTS = [numbers(seed, LENGTH) for seed in range(8)]


@pytest.fixture(scope="module")
def resets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three engines over one store; the first one ends by kill -9 right after a reset."""
    work = tmp_path_factory.mktemp("resets")
    model, store = str(work / "llama"), work / "store"
    store.mkdir()
    harness.run(work, "tiny.make", folder=model, kind="llama")
    same: dict[str, Any] = {"model": model, "prompts": PROMPTS}
    same["settings"] = OWN | {"object.path": str(store)}
    packs = len(PROMPTS) * PACKED // 128
    return {
        "killed": harness.run(work, "share.reset_then_killed", **same, ends_by_kill=True),
        "after": harness.run(work, "share.after_reset", **same, packs=packs),
        "later": harness.run(work, "share.after_that", **same),
    }


def test_killed_right_after_a_reset_no_engine_finds_the_packs_of_before(
    resets: dict[str, Any],
) -> None:
    assert resets["killed"]["is_reset"] is True
    after = resets["after"]
    assert OBJECT not in after["grown"]
    assert [one["cached"] for one in after["answers"]] == [0] * len(PROMPTS)
    right = [one["tokens"] for one in resets["killed"]["cold"]]
    assert [one["tokens"] for one in after["answers"]] == right
    assert after["status"]["health"] == "green", after["status"]


def test_what_is_put_after_a_reset_serves_later_engines(resets: dict[str, Any]) -> None:
    later = resets["later"]
    assert later["grown"][OBJECT] == len(PROMPTS) * PACKED
    right = [one["tokens"] for one in resets["killed"]["cold"]]
    assert [one["tokens"] for one in later["answers"]] == right
