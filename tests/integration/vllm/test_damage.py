"""A disk tier that was damaged, or is too slow: a miss, a counter, the right answer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.small import DISK, numbers

PROMPTS = [numbers(1, 300), numbers(2, 321)]
CORRUPT = 'terrace_corrupt_blocks_total{tier="disk"}'
LATE = 'terrace_miss_blocks_total{reason="late"}'
LATE_LOOK_UPS = "terrace_late_lookups_total"


def slot_files(disk: Path) -> list[Path]:
    found = [path for path in disk.rglob("*") if path.is_file() and path.stat().st_size > 1 << 20]
    assert found, "no slot files"
    return found


def meta_files(disk: Path) -> list[Path]:
    found = list(disk.rglob("slots.meta*"))
    assert found, "no slots.meta"
    return found


def flip_every_page(disk: Path) -> None:
    for path in slot_files(disk):
        with path.open("r+b") as file:
            content = bytearray(file.read())
            for at in range(2051, len(content), 4096):
                content[at] ^= 0xFF
            file.seek(0)
            file.write(content)


def cut_slot_files(disk: Path) -> None:
    for path in slot_files(disk):
        with path.open("r+b") as file:
            file.truncate(4096)


def scramble_meta(disk: Path) -> None:
    for path in meta_files(disk):
        path.write_bytes(bytes((byte * 7 + 3) % 256 for byte in path.read_bytes()))


def cut_meta(disk: Path) -> None:
    for path in meta_files(disk):
        path.write_bytes(path.read_bytes()[:100])


def nothing(_disk: Path) -> None:
    pass


DAMAGES = (nothing, flip_every_page, cut_slot_files, scramble_meta, cut_meta)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A folder that a killed engine left behind, and an engine on each damaged copy of it."""
    work = tmp_path_factory.mktemp("damage")
    model, disk = work / "llama", work / "disk"
    disk.mkdir()
    harness.run(work, "tiny.make", folder=str(model), kind="llama")
    same: dict[str, Any] = {"model": str(model), "prompts": PROMPTS}
    settings = {"disk.size": "64MiB", "disk.paths": [str(disk)]}
    filled: dict[str, Any] = {"settings": settings, "is_killed": True, "ends_by_kill": True}
    first = harness.run(work, "small.twice", **same, **filled)
    parts = {}
    for damage in DAMAGES:
        copy = work / damage.__name__
        shutil.copytree(disk, copy)
        damage(copy)
        here = {"disk.size": "64MiB", "disk.paths": [str(copy)]}
        parts[damage.__name__] = ("small.once", same | {"settings": here})
    in_no_time = settings | {"lookup.deadline": "0s"}
    parts["without time"] = ("small.once", same | {"settings": in_no_time})
    answer: dict[str, Any] = harness.run_several(work, parts)
    return answer | {"right": tokens(first["cold"]["answers"])}


def tokens(answers: list[Any]) -> list[Any]:
    return [answer["tokens"] for answer in answers]


@pytest.mark.parametrize("case", [*(damage.__name__ for damage in DAMAGES), "without time"])
def test_the_answers_are_right(found: dict[str, Any], case: str) -> None:
    assert tokens(found[case]["answers"]) == found["right"]


def test_an_undamaged_copy_hits(found: dict[str, Any]) -> None:
    assert found["nothing"]["grown"][DISK] == 288 + 320


def test_flipped_bytes_on_disk_are_counted_and_computed_anew(found: dict[str, Any]) -> None:
    grown = found["flip_every_page"]["grown"]
    assert grown[CORRUPT] >= 2
    assert DISK not in grown


@pytest.mark.parametrize("damage", ["cut_slot_files", "scramble_meta", "cut_meta"])
def test_damaged_files_are_misses(found: dict[str, Any], damage: str) -> None:
    assert DISK not in found[damage]["grown"]


def test_a_look_up_without_time_is_late(found: dict[str, Any]) -> None:
    case = found["without time"]
    assert DISK not in case["grown"]
    assert case["grown"][LATE] == 9 + 10
    assert case["grown"][LATE_LOOK_UPS] == 2
    assert [answer["ledger"]["first_miss"] for answer in case["answers"]] == ["late"] * 2
