"""The demo's steps judge what an engine does: a right one passes, each wrong one is found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from demo import conversation, steps
from demo.report import Report
from demo.server import Server
from tests.engine_stand_in import BLOCK, StandIn, inspect_command


def run(disk: Path, wrong: str, told: list[str]) -> Report:
    result = Report("a model", "an engine", BLOCK, 1000)
    talks = conversation.make(3, 10)

    def start() -> Server:
        return cast(Server, StandIn(disk, wrong))

    steps.Steps(start, inspect_command(), disk, result, talks, told.append).run()
    return result


def test_a_right_engine_passes_every_step(tmp_path: Path) -> None:
    result = run(tmp_path, "", [])
    assert result.faults() == []
    assert [row.tier for row in result.rows] == ["none", "device", "host", "host", "disk", "disk"]
    rows: dict[str, Any] = {row.step: row for row in result.rows}
    assert rows["d"].hit_tokens["host"] > rows["c"].hit_tokens["host"]
    assert "counted as corrupt" in rows["f"].note


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for blocks that a wrong engine never writes."""
    monkeypatch.setattr(steps, "SETTLE_LIMIT_S", 0.0)


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize(
    ("wrong", "step", "words"),
    [
        ("lies", "c", "an answer differs"),
        ("lies", "d", "an answer differs"),
        ("lies", "e", "an answer differs"),
        ("lies", "f", "an answer differs"),
        ("has no host", "c", "not what host had to serve: nothing"),
        ("has no host", "d", "not what host had to serve: nothing"),
        ("forgets", "e", "not what disk had to serve: nothing"),
        ("forgets", "f", "not what disk had to serve: nothing"),
        ("trusts disk", "f", "not what disk had to serve"),
        ("ignores salt", "d", "not what host had to serve"),
        *(("measures nothing", step, "is not positive") for step in "abcdef"),
    ],
)
def test_a_wrong_engine_is_found_out(tmp_path: Path, wrong: str, step: str, words: str) -> None:
    faults = run(tmp_path, wrong, []).faults()
    assert any(fault.startswith(f"({step})") and words in fault for fault in faults), faults


@pytest.mark.usefixtures("no_patience")
def test_blocks_that_never_reach_the_disk_are_told(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(LookupError, match="no frame of block"):
        run(tmp_path, "never writes", told)
    assert any("blocks are on disk" in line for line in told)
