"""The steps of `./dev demo --s3`: two right engines pass, wrong ones are found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from demo import conversation, shared, steps
from demo.report import Report
from demo.server import Server
from tests.engine_stand_in import BLOCK, Bucket, SharingStandIn

PACK_BLOCKS = 3


def run(folder: Path, wrong: str, told: list[str]) -> Report:
    """The steps with engines of which the second one is `wrong`, or each one."""
    result = Report("a model", "an engine", BLOCK, 1000, steps=shared.STEPS)
    bucket = Bucket(PACK_BLOCKS)
    started: list[SharingStandIn] = []

    def start() -> Server:
        is_wrong = bool(started) or wrong in ("never puts", "measures nothing")
        engine = SharingStandIn(folder / str(len(started)), bucket, wrong if is_wrong else "")
        started.append(engine)
        return cast(Server, engine)

    talks = conversation.make(4, 10)
    made = shared.SharedSteps(
        start, bucket.packs, bucket.kill, result, talks, told.append, PACK_BLOCKS
    )
    made.run()
    assert [cast(Any, made.first), cast(Any, made.server)] == started
    return result


def test_two_right_engines_pass_every_step(tmp_path: Path) -> None:
    told: list[str] = []
    result = run(tmp_path, "", told)
    assert result.faults() == []
    assert [row.tier for row in result.rows] == ["none", "device", "object", "host", "none"]
    rows: dict[str, Any] = {row.step: row for row in result.rows}
    served = rows["c"].hit_tokens["object"]
    assert served % (PACK_BLOCKS * BLOCK) == 0
    assert 0 < served <= rows["d"].hit_tokens["host"]
    assert rows["e"].hit_tokens == {}
    packs = [line for line in told if "packs of" in line]
    assert len(packs) == 1


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for packs that a wrong engine never puts."""
    monkeypatch.setattr(steps, "SETTLE_LIMIT_S", 0.0)


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize(
    ("wrong", "step", "words"),
    [
        ("lies", "c", "an answer differs"),
        ("lies", "d", "an answer differs"),
        ("has no host", "d", "not what host had to serve"),
        ("never puts", "c", "not what object had to serve: nothing"),
        ("invents", "e", "not what none had to serve: object"),
        *(("measures nothing", step, "is not positive") for step in "abcde"),
    ],
)
def test_a_wrong_engine_is_found_out(tmp_path: Path, wrong: str, step: str, words: str) -> None:
    faults = run(tmp_path, wrong, []).faults()
    assert any(fault.startswith(f"({step})") and words in fault for fault in faults), faults


@pytest.mark.usefixtures("no_patience")
def test_packs_that_never_reach_the_bucket_are_told(tmp_path: Path) -> None:
    told: list[str] = []
    run(tmp_path, "never puts", told)
    assert any("0 of " in line and "packs" in line for line in told), told
