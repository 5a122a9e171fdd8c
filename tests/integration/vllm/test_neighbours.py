"""Two engines with one `disk.paths`, at the same time: each has a directory of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.small import DISK, numbers

PROMPTS = [numbers(1, 300), numbers(2, 321)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two engines with a prompt each, killed; then two that ask both prompts each."""
    work = tmp_path_factory.mktemp("neighbours")
    model, disk = work / "llama", work / "disk"
    disk.mkdir()
    harness.run(work, "tiny.make", folder=str(model), kind="llama")
    settings = {"disk.size": "64MiB", "disk.paths": [str(disk)]}
    same: dict[str, Any] = {"model": str(model), "settings": settings}
    first = side_by_side(work, "first", same, [[prompt] for prompt in PROMPTS])
    folders = sorted(path.name for path in disk.iterdir() if path.is_dir())
    second = side_by_side(work, "second", same, [PROMPTS, PROMPTS])
    after = sorted(path.name for path in disk.iterdir() if path.is_dir())
    return {"first": first, "second": second, "folders": [folders, after]}


def side_by_side(
    work: Path, name: str, same: dict[str, Any], prompts: list[list[list[int]]]
) -> list[Any]:
    folder = work / f"meet {name}"
    folder.mkdir()
    engines = [
        harness.start(
            work,
            "neighbour.run",
            name=f"{name} {number}",
            **same,
            prompts=asked,
            folder=str(folder),
            number=number,
        )
        for number, asked in enumerate(prompts)
    ]
    for engine in engines:
        assert engine.wait() == harness.KILLED_ITSELF, engine.tail()
    return [engine.read() for engine in engines]


def test_each_owner_has_a_directory_and_finds_one_again(found: dict[str, Any]) -> None:
    before, after = found["folders"]
    assert len(before) == 2
    assert after == before


def test_both_are_healthy(found: dict[str, Any]) -> None:
    for one in found["first"] + found["second"]:
        assert one["status"]["health"] == "green", one["status"]


def test_after_both_were_killed_each_new_engine_hits_what_its_directory_holds(
    found: dict[str, Any],
) -> None:
    held = [one["grown"][DISK] for one in found["second"]]
    assert sorted(held) == [288, 320]


def test_answers_are_right(found: dict[str, Any]) -> None:
    right = [one["answers"][0]["tokens"] for one in found["first"]]
    for one in found["second"]:
        assert [answer["tokens"] for answer in one["answers"]] == right
