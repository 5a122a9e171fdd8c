"""The campaigns can fail: each lie of a stand-in for the server is found, an honest one passes."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.soak import actions, book, judge, kills, soak
from tests.soak.campaign import Campaign, Options
from tests.soak.judge import Facts, Limits
from tests.soak.watch import Sample
from tests.tools.soak_stand_in import StandIn, StandInClock, turns

OPTIONS = Options(seed=1, seconds=400.0, users=2, think_s=0.0, idle_every_s=12.0, idle_limit_s=5.0)


def soaked(lie: str = "", **more: Any) -> tuple[dict[str, Any], StandIn]:
    clock, known = StandInClock(), turns()
    place = StandIn(known, clock, lie)
    options = replace(OPTIONS, **more)
    return Campaign(place, known, options, lambda _: None, clock).run(), place


def whats(report: dict[str, Any]) -> set[str]:
    return {found["what"] for found in report["findings"]}


def test_an_honest_server_passes_through_everything_that_befalls_it() -> None:
    report, place = soaked()
    assert report["passed"], report["findings"]
    done = {one["name"] for one in report["actions"]}
    assert done == set(actions.ROUGH)
    stopped = [one for one in place.did if one.startswith("SIGSTOP")]
    assert stopped
    for one in stopped:
        assert place.did[place.did.index(one) + 1] == one.replace("STOP", "CONT")
    assert report["counts"]["answers"] > 0
    assert report["counts"]["idle_moments"] > 5


LIES = {
    "wrong token": "wrong answer",
    "wrong piece": "wrong answer",
    "one answer of several": "wrong answer",
    "no ledger": "no ledger",
    "wrong ledger": "wrong ledger",
    "refuses": "no answer",
    "dies": "server ended",
    "traceback": "output",
    "pinned": "slots stay",
    "filling": "slots stay",
    "reserved": "slots stay",
    "quarantined": "slots stay",
    "active": "requests stay",
    "waiting pin": "requests stay",
    "queue": "queues stay",
    "slots vanish": "slots",
    "red": "health",
    "red beside a loss": "health",
    "poisoned": "counters",
    "falls": "counters",
    "hits unasked": "counters",
    "hits more than it may": "counters",
    "damaged record": "counters",
    "corrupt": "corrupt",
    "forgets": "forgotten",
    "no switch": "mode",
}
GROWING = ("anonymous", "shared", "descriptors", "threads")


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_found(lie: str) -> None:
    report, _ = soaked(lie)
    assert not report["passed"]
    assert LIES[lie] in whats(report), report["findings"]


@pytest.mark.parametrize("lie", GROWING)
def test_what_grows_is_found(lie: str) -> None:
    report, _ = soaked(lie, has_actions=False)
    assert whats(report) == {"grows"}
    assert lie in report["findings"][0]["detail"]


def test_what_never_happened_is_found() -> None:
    report, _ = soaked(has_actions=False, tiers={"host": 40, "disk": 120})
    assert whats(report) == {"not covered"}
    for name in ("hits from disk", "evictions in host", "preemptions"):
        assert (name in report["findings"][0]["detail"]) == (name != "hits from disk")


def test_a_seed_gives_the_same_actions_again() -> None:
    def first(seed: int) -> list[actions.Action]:
        return list(itertools.islice(actions.drawn(seed, actions.ROUGH), 40))

    assert first(1) == first(1)
    assert first(1) != first(2)
    assert {one.name for one in first(3)[: len(actions.ROUGH)]} == set(actions.ROUGH)


def test_a_turn_that_does_not_repeat_itself_is_not_judged() -> None:
    turn = replace(turns()[0], is_steady=False)
    assert judge.answers(turn, [[1]], 1) == []
    assert judge.answers(replace(turn, is_steady=True), [[1]], 1)


def test_too_many_such_turns_are_no_control() -> None:
    known = turns(10, 10)
    book.check([replace(one, is_steady=number >= 4) for number, one in enumerate(known)])
    with pytest.raises(book.NoControl, match="5 of 100"):
        book.check([replace(one, is_steady=number >= 5) for number, one in enumerate(known)])


def test_a_short_life_is_not_judged_and_noise_is_no_growth() -> None:
    limits = Limits(fewest=60)
    samples = [Sample(at, "core", 1, at * 10**8, 0, 9, 9, False) for at in range(59)]
    assert judge.growths(samples, limits) == []
    young = [Sample(at / 2, "core", 1, at * 10**8, 0, 9, 9, False) for at in range(239)]
    assert judge.growths(young, limits) == []
    noisy = [Sample(at, "core", 1, 10**9 + at % 7 * 10**6, 0, 9, 9, False) for at in range(400)]
    assert judge.flat(judge.growths(noisy, limits)) == []


@pytest.mark.parametrize(
    ("tier", "evicting", "is_found"), [("host", 10, False), ("host", 11, True), ("disk", 1, True)]
)
def test_only_in_host_some_blocks_stay_that_may_leave(
    tier: str, evicting: int, is_found: bool
) -> None:
    slots = dict.fromkeys((*judge.PASSING, "pinned", "free"), 0)
    slots |= {"sealed": 40 - evicting, "evicting": evicting}
    status = {"tiers": [{"tier": tier, "slots": slots}], "active_requests": 0, "queues": []}
    assert bool(judge.unrest(status, {})) == is_found


def test_corrupt_blocks_are_expected_after_flips_alone() -> None:
    metrics = {'terrace_corrupt_blocks_total{tier="disk"}': 2.0}
    assert judge.counters(metrics, {}, Facts(flips=1), 0) == []
    assert judge.counters(metrics, {}, Facts(), 0)


def test_a_reset_or_lost_directory_may_be_forgotten() -> None:
    assert judge.restarted({}, 20, Facts())
    for facts in (Facts(was_reset=True), Facts(is_lost=True)):
        assert judge.restarted({}, 20, facts) == []
    assert judge.restarted({}, 0, Facts()) == []


# ---- Kills --------------------------------------------------------------------------------------


def killed(lie: str = "") -> dict[str, Any]:
    known = turns()
    place = StandIn(known, StandInClock(), lie)
    story = kills.Story(place, known, 1, "tiny", users=2, load_s=(0.0, 0.0), rest_limit_s=0.0)
    story.run(4, lambda _number, _kills: None)
    if not lie:
        assert [one for one in place.did if one.startswith("kill")] == [
            f"kill {target}" for target in kills.TARGETS
        ]
    return kills.report(1, [story], 1.0)


def test_an_honest_server_survives_kills() -> None:
    report = killed()
    assert report["passed"], report["findings"]
    assert report["models"]["tiny"]["restarts"] == 4
    assert report["models"]["tiny"]["hit_from_disk"] == 4


KILL_LIES = {name: LIES[name] for name in LIES if name not in ("no switch", "red beside a loss")}
KILL_LIES |= {"no disk": "not covered", "dies": "no answer"}
for _late in ("slots vanish", "falls", "wrong piece", "one answer of several"):
    del KILL_LIES[_late]  # Seen over a life, or in kinds of requests that need not come.


@pytest.mark.parametrize("lie", KILL_LIES)
def test_each_lie_after_a_kill_is_found(lie: str) -> None:
    report = killed(lie)
    assert not report["passed"]
    assert KILL_LIES[lie] in whats(report), report["findings"]


def test_a_failed_campaign_names_its_seed_and_ends_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(soak, "WORK", tmp_path)
    report, _ = soaked("red")
    assert soak.write(report, "report.json") == 1
    shown = capsys.readouterr().out.splitlines()
    assert any("--seed 1" in line for line in shown)
    assert json.loads(shown[-1]) == json.loads((tmp_path / "report.json").read_text())
    report, _ = soaked()
    assert soak.write(report, "report.json") == 0
