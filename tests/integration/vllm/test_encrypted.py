"""Blocks that are encrypted on disk and in a shared directory: a restart with the key hits, bit by
bit; without it, it misses and answers right."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.share import OBJECT, PACKED
from tests.integration.vllm.scenarios.small import DISK, numbers
from tests.integration.vllm.test_share import OWN, PACKS, same_output

from engine_env import ROOT
from terrace import doctor_keys
from terrace.finding import Asked

PROMPTS = [numbers(1, 300), numbers(2, 321)]
HITS = 288 + 320
CORRUPT = 'terrace_corrupt_blocks_total{tier="disk"}'
LOCKED = "terrace_disk_locked_slots"
PROGRAM = ROOT / "build" / "release" / "bin" / "terrace"


def key_file(path: Path, digit: str) -> str:
    path.write_text("terrace-key-1 " + digit * 64 + "\n")
    path.chmod(0o600)
    return str(path)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A folder that a killed engine left behind, and engines with several keys on copies of it."""
    work = tmp_path_factory.mktemp("encrypted")
    model, disk, shared = work / "llama", work / "disk", work / "shared"
    for folder in (disk, shared):
        folder.mkdir()
    one, two = key_file(work / "one", "1"), key_file(work / "two", "2")
    keys: dict[str, dict[str, Any]] = {
        "with the key": {"encryption.key_file": one},
        "without a key": {},
        "with another key": {"encryption.key_file": two},
        "rotated": {"encryption.key_file": two, "encryption.old_key_files": [one]},
    }
    harness.run(work, "tiny.make", folder=str(model), kind="llama")
    same: dict[str, Any] = {"model": str(model), "prompts": PROMPTS}
    sized = {"disk.size": "64MiB"}
    settings = sized | {"disk.paths": [str(disk)]} | keys["with the key"]
    filled: dict[str, Any] = {"settings": settings, "is_killed": True, "ends_by_kill": True}
    answer: dict[str, Any] = {"first": harness.run(work, "small.twice", **same, **filled)}
    parts: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, own in keys.items():
        copy = work / name.replace(" ", "-")
        shutil.copytree(disk, copy)
        here = sized | {"disk.paths": [str(copy)]} | own
        parts[name] = ("small.once", same | {"settings": here})
    real = {"model": harness.model("float32")}
    packed = OWN | {"object.path": str(shared)}
    parts["store"] = (
        "share.store",
        real | {"settings": packed | keys["with the key"], "packs": PACKS},
    )
    parts["shared with the key"] = (
        "share.serve",
        real | {"settings": packed | keys["with the key"]},
    )
    parts["shared without a key"] = ("share.ask", real | {"settings": packed})
    parts["reference"] = ("share.reference", real)
    answer |= harness.run_several(work, parts)
    answer["files"] = [path.name for path in shared.rglob("*.pack")]
    answer["folders"] = [str(path) for path in shared.rglob("n4k*")]
    answer["disks"], answer["shared"], answer["keys"] = [str(disk)], str(shared), [one, two]
    return answer


@pytest.mark.parametrize("case", ["with the key", "without a key", "with another key", "rotated"])
def test_the_answers_are_right(found: dict[str, Any], case: str) -> None:
    right = [answer["tokens"] for answer in found["first"]["cold"]["answers"]]
    assert [answer["tokens"] for answer in found[case]["answers"]] == right


@pytest.mark.parametrize("case", ["with the key", "rotated"])
def test_a_restart_with_the_key_hits_bit_by_bit(found: dict[str, Any], case: str) -> None:
    assert found[case]["grown"][DISK] == HITS
    assert CORRUPT not in found[case]["grown"]
    for again, host in zip(found[case]["answers"], found["first"]["host"]["answers"], strict=True):
        assert same_output(again, host), "not what the same KV in host memory gives"
    assert found[case]["status"]["health"] == "green"


@pytest.mark.parametrize("case", ["without a key", "with another key"])
def test_a_restart_without_the_key_misses_and_says_which_is_missing(
    found: dict[str, Any], case: str
) -> None:
    assert DISK not in found[case]["grown"]
    assert CORRUPT not in found[case]["grown"]
    (problem,) = found[case]["status"]["problems"]
    assert "encryption.key_file" in problem
    assert found["first"]["status"]["tiers"][1]["detail"].split()[-1] in problem


def test_another_engine_with_the_key_is_served_out_of_the_shared_directory(
    found: dict[str, Any],
) -> None:
    served = found["shared with the key"]["store"]
    assert served["grown"][OBJECT] == PACKED
    assert served["digests"] == found["store"]["digests"]
    assert same_output(served, found["reference"]["local"])


def test_one_without_the_key_computes(found: dict[str, Any]) -> None:
    asked = found["shared without a key"]
    assert OBJECT not in asked["grown"]
    assert asked["answer"]["tokens"] == found["reference"]["cold"]["tokens"]
    assert asked["status"]["health"] == "green"


def test_packs_say_their_key_in_their_name(found: dict[str, Any]) -> None:
    assert len(found["files"]) >= PACKS
    assert found["folders"]


def test_the_doctor_tells_blocks_and_packs_by_their_key(
    found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERRACE_PROGRAM", str(PROGRAM))
    places = {"disk.paths": found["disks"][0], "object.path": found["shared"]}

    def told(key: str) -> list[tuple[str, str]]:
        monkeypatch.setenv("TERRACE_ENCRYPTION_KEY_FILE", key)
        return [(one.state, one.text) for one in doctor_keys.encryption(Asked(settings=places))]

    one, two = found["keys"]
    first, *rest = told(one)
    key_id = first[1].split()[-1]
    assert first[0] == "ok"
    named = [one for one in rest if key_id in one[1]]
    assert [state for state, _ in named] == ["ok", "ok"], "the disk's blocks, and packs"
    assert all("which is at hand" in text for _, text in named)
    named = [one for one in told(two) if key_id in one[1]]
    assert [state for state, _ in named] == ["warn", "note"]
    assert all("which is not at hand" in text for _, text in named)


def test_the_plain_kv_of_no_block_lies_on_disk(found: dict[str, Any]) -> None:
    # The canary's pattern is known: SplitMix64's increment, times the page of rank 0.
    word = ((1 << 48) + 0x9E3779B97F4A7C15) & (2**64 - 1)
    assert found["first"]["status"]["canary"] == "passed"
    for folder in found["disks"]:
        for path in Path(folder).rglob("0.slots"):
            assert path.stat().st_size > 0
            assert word.to_bytes(8, "little") not in path.read_bytes()
