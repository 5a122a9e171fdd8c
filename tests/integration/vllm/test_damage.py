"""A disk tier that was damaged, or is too slow: a miss, a counter, the right answer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.small import DISK, numbers

PROMPTS = [numbers(1, 300), numbers(2, 321)]
CORRUPT = 'terrace_corrupt_blocks_total{tier="disk"}'


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model, its right answers, and a folder that a killed engine left behind."""
    work = tmp_path_factory.mktemp("filled")
    model, disk = work / "llama", work / "disk"
    disk.mkdir()
    harness.run(work, "tiny.make", folder=str(model), kind="llama")
    found = harness.run(
        work,
        "small.twice",
        model=str(model),
        prompts=PROMPTS,
        settings={"disk.size": "256MiB", "disk.paths": [str(disk)]},
        disk_blocks=1,
        ends_by_kill=True,
    )
    return {"model": str(model), "disk": disk, "answers": found["cold"]["answers"]}


def restart(filled: dict[str, Any], work: Path, damage: Callable[[Path], None], **more: Any) -> Any:
    disk = work / "disk"
    shutil.copytree(filled["disk"], disk)
    damage(disk)
    settings = {"disk.size": "256MiB", "disk.paths": [str(disk)]} | more
    found = harness.run(
        work, "small.once", model=filled["model"], prompts=PROMPTS, settings=settings
    )
    tokens = [answer["tokens"] for answer in found["answers"]]
    assert tokens == [answer["tokens"] for answer in filled["answers"]]
    return found


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
            for at in range(2048, len(content), 4096):
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


def test_an_undamaged_copy_hits(filled: dict[str, Any], tmp_path: Path) -> None:
    assert restart(filled, tmp_path, nothing)["grown"][DISK] == 288 + 320


def test_flipped_bytes_on_disk_are_counted_and_computed_anew(
    filled: dict[str, Any], tmp_path: Path
) -> None:
    grown = restart(filled, tmp_path, flip_every_page)["grown"]
    assert grown[CORRUPT] >= 2
    assert DISK not in grown


@pytest.mark.parametrize("damage", [cut_slot_files, scramble_meta, cut_meta])
def test_damaged_files_are_misses(
    filled: dict[str, Any], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    assert DISK not in restart(filled, tmp_path, damage)["grown"]


def test_a_look_up_without_time_is_a_miss(filled: dict[str, Any], tmp_path: Path) -> None:
    more = {"lookup.deadline": "0s"}
    assert DISK not in restart(filled, tmp_path, nothing, **more)["grown"]
