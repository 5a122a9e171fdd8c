"""Packs that are encrypted, in a bucket of a real server: who has the key is served by what another
engine put, who has another one computes, and a rotation reads with both."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.share import LENGTH, OBJECT, PACKED
from tests.integration.vllm.scenarios.small import numbers
from tests.integration.vllm.test_encrypted import key_file
from tests.integration.vllm.test_share import BUCKET_OF, OWN

from engine_env import ROOT
from s3_server import S3Server, s3_server

PROGRAM = ROOT / "build" / "release" / "bin" / "terrace"
FIRST = [numbers(seed, LENGTH) for seed in (1, 2)]
LATER = [numbers(seed, LENGTH) for seed in (3, 4, 5)]
PACKS_EACH = PACKED // 128
LIMIT_S = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as made:
        yield made


def key_id(path: str) -> str:
    ran = subprocess.run(
        [str(PROGRAM), "key", "id", path],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    return ran.stdout.strip()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, server: S3Server) -> dict[str, Any]:
    work = tmp_path_factory.mktemp("encrypted-bucket")
    model = str(work / "llama")
    files = [key_file(work / name, name) for name in ("1", "2", "3")]
    bucket: dict[str, Any] = OWN | BUCKET_OF | {"object.endpoint": server.endpoint}

    def part(
        scenario: str, keys: list[str], prompts: list[list[int]], packs: int = 0
    ) -> tuple[str, dict[str, Any]]:
        given = bucket | ({"encryption.key_file": keys[0]} if keys else {})
        given |= {"encryption.old_key_files": keys[1:]} if keys[1:] else {}
        arguments: dict[str, Any] = {"model": model, "settings": given, "prompts": prompts}
        return scenario, arguments | ({"packs": packs} if packs else {})

    one, two, three = files
    harness.run(work, "tiny.make", folder=model, kind="llama")
    put = len(FIRST) * PACKS_EACH
    answer = harness.run_several(work, {"first": part("share.after_reset", [one], FIRST, put)})
    put = len(LATER) * PACKS_EACH
    answer |= harness.run_several(
        work,
        {
            "same": part("share.after_that", [one], FIRST),
            "rotated": part("share.after_reset", [two, one], FIRST + LATER, put),
        },
    )
    answer |= harness.run_several(
        work,
        {
            "with both": part("share.after_that", [one, two], FIRST + LATER),
            "another": part("share.after_that", [three], FIRST),
            "none": part("share.after_that", [], FIRST),
        },
    )
    return {**answer, "files": files, "ids": [key_id(path) for path in files], "work": work}


def tokens(case: dict[str, Any]) -> list[list[int]]:
    return [answer["tokens"] for answer in case["answers"]]


@pytest.mark.parametrize("case", ["same", "another", "none", "with both", "rotated"])
def test_the_answers_are_right(found: dict[str, Any], case: str) -> None:
    assert tokens(found[case])[: len(FIRST)] == tokens(found["first"])
    if case == "with both":
        assert tokens(found[case]) == tokens(found["rotated"])


def test_another_engine_with_the_same_key_is_served_by_what_the_first_one_put(
    found: dict[str, Any],
) -> None:
    assert OBJECT not in found["first"]["grown"]
    assert found["same"]["grown"][OBJECT] == len(FIRST) * PACKED


@pytest.mark.parametrize("case", ["another", "none"])
def test_who_has_another_key_or_none_misses(found: dict[str, Any], case: str) -> None:
    assert OBJECT not in found[case]["grown"]
    assert [answer["cached"] for answer in found[case]["answers"]] == [0] * len(FIRST)
    missed = 'terrace_miss_blocks_total{reason="never_stored"}'
    assert found[case]["grown"][missed] >= len(FIRST) * (LENGTH // 32)
    assert not [name for name in found[case]["grown"] if "corrupt" in name or "forged" in name]


def test_while_keys_rotate_packs_of_both_hit(found: dict[str, Any]) -> None:
    assert found["rotated"]["grown"][OBJECT] == len(FIRST) * PACKED
    assert found["with both"]["grown"][OBJECT] == (len(FIRST) + len(LATER)) * PACKED


def test_the_store_tells_which_key_its_packs_need(found: dict[str, Any], server: S3Server) -> None:
    one, two, _ = found["ids"]
    settings = {
        "TERRACE_OBJECT_ENABLED": "true",
        "TERRACE_OBJECT_BUCKET": str(BUCKET_OF["object.bucket"]),
        "TERRACE_OBJECT_ENDPOINT": server.endpoint,
        "TERRACE_OBJECT_ACCESS_KEY": str(BUCKET_OF["object.access_key"]),
        "TERRACE_OBJECT_SECRET_KEY": str(BUCKET_OF["object.secret_key"]),
        "TERRACE_ENCRYPTION_KEY": Path(found["files"][1]).read_text().split()[1],
    }
    ran = subprocess.run(
        [str(PROGRAM), "object", "gc", "--dry-run", "--json"],
        env={"HOME": os.environ.get("HOME", "/"), **settings},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    keys = {entry["id"]: entry for entry in json.loads(ran.stdout)["keys"]}
    assert keys[one]["packs"] == len(FIRST) * PACKS_EACH
    assert keys[two]["packs"] == len(LATER) * PACKS_EACH
    assert (keys[one]["at_hand"], keys[two]["at_hand"]) == (False, True)
