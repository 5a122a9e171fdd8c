"""`vllm-load` and `vllm-throttle`: what they ask, compare and print; no engine runs here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench.vllm import conversations, lines, load, throttle
from bench.vllm.conversations import Turn
from bench.vllm.side import THROTTLED, side

from engine_env import ROOT


def encode(text: str) -> list[int]:
    return [ord(letter) for letter in text[::4]]


class Fake:
    """Answers as an engine would; `speed` times as fast as the one alone."""

    def __init__(self, kind: str = "alone", speed: float = 1.0) -> None:
        self.kind, self.speed = kind, speed
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.served: list[dict[str, Any]] = []
        self.spoils = -1  # Place of a request whose answer is another one.
        self.margin = 2.0

    def tell(self, verb: str, **words: Any) -> None:
        self.told.append((verb, words))

    def hear(self) -> dict[str, Any]:
        return {}

    def ask(self, verb: str, **words: Any) -> dict[str, Any]:
        self.told.append((verb, words))
        if verb == "serve":
            return self._serve(words["asked"])
        if verb == "margin":
            return {"margin": self.margin}
        return {"value": 1e12}

    def _serve(self, asked: list[dict[str, Any]]) -> dict[str, Any]:
        rows = []
        for one in asked:
            answer = [len(one["tokens"])] * one["answer"]
            if len(self.served) == self.spoils:
                answer[-1] += 1
            is_hit = self.kind == "terrace" and one.get("mode") != "off"
            ledger = {"local_tokens": 1, "hit_tokens": {"host": 2, "disk": 1}} if is_hit else {}
            rows.append(
                {
                    "prompt": len(one["tokens"]),
                    "answer": answer,
                    "ttft": (1 if one.get("mode") == "off" else 0.5) / self.speed,
                    "gaps": [0.02] * (one["answer"] - 1),
                    "cached": 4,
                    "ledger": ledger,
                }
            )
            self.served.append(one)
        loaded = 3 if self.kind == "stand_in" else 0
        return {"rows": rows, "wall": len(rows) / self.speed, "cpu": 1.0, "loaded": loaded}


@pytest.fixture
def sides() -> dict[str, Any]:
    return {
        "alone": Fake(),
        "terrace": Fake("terrace", 4),
        "slow_disk": Fake("terrace", 2),
        "stand_in": Fake("stand_in", 2),
    }


@pytest.fixture
def sessions() -> list[list[Turn]]:
    return conversations.read(encode)


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# ---- Who asks what ------------------------------------------------------------------------------


def test_every_round_has_each_user_once_in_an_order_of_its_own(sessions: list[list[Turn]]) -> None:
    rounds = conversations.rounds(sessions, 16, 8)
    assert len(rounds) == 8
    for number, said_in_round in enumerate(rounds):
        assert sorted(said.user for said in said_in_round) == list(range(16))
        assert all(said.turn is not None and said.turn.answer >= 4 for said in said_in_round)
        assert said_in_round == conversations.rounds(sessions, 16, 8)[number]
    assert len({tuple(said.user for said in one) for one in rounds}) > 1


def test_more_users_than_sessions_is_said(sessions: list[list[Turn]]) -> None:
    with pytest.raises(ValueError, match="sessions have 10 turns; 40 users"):
        conversations.rounds(sessions, 40, 10)


def test_the_working_set_is_what_all_have_said_halfway(sessions: list[list[Turn]]) -> None:
    rounds = conversations.rounds(sessions, 2, 4)
    said = [sum(len(one.turn.tokens) + one.turn.answer for one in part) for part in rounds[:3]]
    size, longest = conversations.working_set(rounds)
    assert size == sum(said)
    assert size / 2 < longest


def test_missing_or_damaged_sessions_are_told_with_their_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"sessions are missing.*nowhere"):
        conversations.read(encode, tmp_path / "nowhere")
    for text in (
        "{",
        '{"turns": [{}]}',
        '{"turns": [{"at_s": 1, "text": "x", "answer_chars": []}]}',
    ):
        (tmp_path / "x").write_text(text)
        with pytest.raises(RuntimeError, match="no file of sessions"):
            conversations.read(encode, tmp_path / "x")


def test_documents_are_as_long_as_asked_and_begin_apart(sessions: list[list[Turn]]) -> None:
    short, long = (conversations.document(sessions, n, i) for i, n in enumerate((512, 60_000)))
    assert (len(short), len(long)) == (512, 60_000)
    assert short[0] != long[0]


# ---- What comes of it ---------------------------------------------------------------------------


def test_the_short_run_has_all_lines(
    sides: dict[str, Any], sessions: list[list[Turn]], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = load.Plan((2, 4), 3, (512,), 2)
    assert load.measure_users(sides, sessions, plan) == 0
    sides.pop("slow_disk")
    load.measure_prefixes(sides, sessions, plan)
    rows = printed(capsys)
    names = [row["name"] for row in rows]
    measures = ("requests", "ttft", "inter_token", "inter_token_p99", "cpu")
    for what in measures:
        assert names.count(f"vllm-load.{what}") == 2 * 4
    assert names.count("vllm-load.hits") == 2 * 4
    assert names.count("vllm-load.prefix") == 3
    assert names.count("vllm-load.answers") == 1
    by_name = {(row["name"], row["params"].get("variant"), row["limit_name"]): row for row in rows}
    requests = by_name[("vllm-load.requests", "terrace", "engine alone")]
    assert requests["ratio"] == pytest.approx(4)
    assert requests["better"] == "higher"
    assert requests["params"]["ratio_90"] == [pytest.approx(4)] * 2
    assert requests["params"]["users"] == 4
    beside = by_name[("vllm-load.ttft", "terrace", load.TITLES["stand_in"])]
    assert beside["ratio"] == pytest.approx(0.5)
    assert by_name[("vllm-load.answers", None, "compared")]["ratio"] == 1


def test_every_variant_is_asked_the_same_in_turn(
    sides: dict[str, Any], sessions: list[list[Turn]]
) -> None:
    rounds = conversations.rounds(sessions, 4, 4)
    found = load.run_users(sides, rounds, 1, 2)
    asked = sides["alone"].served
    assert all(one.served == asked for one in sides.values())
    assert len(asked) == 16
    assert all(len(one.rows) == 4 for one in found.values())
    assert [load.turned(load.VARIANTS, number)[0] for number in range(4)] == list(load.VARIANTS)


def test_hits_are_told_by_source(sides: dict[str, Any], sessions: list[list[Turn]]) -> None:
    rounds = conversations.rounds(sessions, 2, 2)
    found = load.run_users(sides, rounds, 1, 2)
    total = sum(row["prompt"] for part in found["alone"].rows for row in part)
    alone, ours, other = (load.hits(found[name]) for name in ("alone", "terrace", "stand_in"))
    assert alone == pytest.approx(
        {"local": 16 / total, "host": 0, "disk": 0, "computed": 1 - 16 / total}
    )
    assert ours == pytest.approx(
        {"local": 4 / total, "host": 8 / total, "disk": 4 / total, "computed": 1 - 16 / total}
    )
    # What its worker loaded, the engine counts as its own.
    assert other["host"] == pytest.approx(6 / total)
    assert other["local"] == pytest.approx(10 / total)


@pytest.mark.parametrize(("margin", "wrong"), [(2.0, 1), (1e-5, 0)])
def test_another_answer_is_wrong_unless_the_engine_was_in_doubt(
    sides: dict[str, Any],
    sessions: list[list[Turn]],
    capsys: pytest.CaptureFixture[str],
    margin: float,
    wrong: int,
) -> None:
    rounds = conversations.rounds(sessions, 2, 3)
    sides["terrace"].spoils = 2  # The first of the second round.
    sides["alone"].margin = margin
    found = load.run_users(sides, rounds, 0, 1)
    kept = load.Comparison()
    load.compare(found, rounds, 0, kept)
    assert [one.variant for one in kept.differences] == ["terrace"]
    user = rounds[1][0].user
    first = next(said for said in rounds[0] if said.user == user)
    prompt = kept.differences[0].prompt
    # Head, first turn and answer, second turn, its answer up to the token that differs.
    assert len(prompt) == 1 + len(first.turn.tokens) + first.turn.answer + len(
        rounds[1][0].turn.tokens
    ) + (rounds[1][0].turn.answer - 1)
    assert kept.compared == 3 * 6 - 1, "what that user asks later is another prompt"
    assert load.judge(kept, sides["alone"]) == wrong
    assert printed(capsys)[-1]["params"]["wrong"] == wrong


def test_an_interval_of_equal_ratios_is_that_ratio() -> None:
    limits = [[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]]
    values = [[3 * one for one in part] for part in limits]
    assert lines.ratio_interval(values, limits) == [pytest.approx(3)] * 2
    wide = lines.ratio_interval([[1.0], [9.0], [1.0]], [[1.0], [1.0], [1.0]])
    assert wide[0] == 1
    assert wide[1] > 1
    assert lines.quantile([3, 1, 2], 0.99) == 3


# ---- The slow disk ------------------------------------------------------------------------------


def test_the_throttle_is_set_before_each_pair_and_its_line_tells_the_ratio(
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine: Any = Fake("terrace")
    always: Any = Fake("terrace")
    throttle.measure(engine, always, throttle.Plan((1, 0.001), 1, 4, (0.001,)), 1e9)
    rows = printed(capsys)
    fixed = "vllm-throttle.fixed"
    names = [fixed, fixed, "vllm-throttle.best", "vllm-throttle.changing"]
    assert [row["name"] for row in rows] == names
    assert [row["params"].get("throttle_per_mille") for row in rows] == [1000, 1, 1, None]
    best = rows.pop(2)
    assert best["params"]["best"] == "always", "as fast as Terrace, which is faster than off"
    assert (best["runs"], best["ratio"]) == (4, pytest.approx(1))
    assert [one["mode"] for one in always.served] == ["on"] * 4
    assert [words for verb, words in always.told if verb == "throttle"] == [
        {"bytes_per_second": 1e6}
    ] * 4
    for row in rows:
        assert row["ratio"] == pytest.approx(0.5)
        assert row["params"]["loads"] == row["runs"] == 4
        assert row["params"]["slow_loads"] == 0
        assert row["params"]["hit_share"] == pytest.approx(3 / throttle.TOKENS)
    verbs = [verb for verb, _ in engine.told]
    assert verbs[:5] == ["throttle", "forget", "serve", "forget", "serve"]
    rates = [words["bytes_per_second"] for verb, words in engine.told if verb == "throttle"]
    assert rates[:10] == [1e9] * 5 + [1e6] * 5
    modes = [one["mode"] for one in engine.served]
    assert modes.count("on") == modes.count("off") == 2 * 5 + 4
    assert modes[2:6] == ["on", "off", "off", "on"]


def test_loads_that_took_longer_than_computing_are_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pairs = throttle.Pairs([1.2, 1.2, 0.3], [1.0, 1.0, 1.0], [{"hit_tokens": {"disk": 9}}, {}, {}])
    pairs.ledgers[2] = {"hit_tokens": {"host": 9}}
    throttle.emit("vllm-throttle.fixed", pairs, throttle.Pairs(), {})
    params = printed(capsys)[0]["params"]
    assert (params["loads"], params["slow_loads"], params["worst"]) == (2, 1, 1.2)
    assert params["disk_share"] == pytest.approx(9 / (3 * throttle.TOKENS))


def test_a_disk_tier_that_does_not_write_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = Fake("terrace")
    monkeypatch.setattr(throttle, "PUT_LIMIT_S", 0.0)
    answer = {"value": 0.0, "rows": [{}], "text": '{"queues": "full"}'}
    monkeypatch.setattr(engine, "ask", lambda *_, **__: answer)
    with pytest.raises(RuntimeError, match=r"not on disk after 6 times: full"):
        throttle.store(engine)


def test_the_slow_disk_keeps_all_that_a_backend_promises() -> None:
    program = ROOT / "build" / "release" / "bin" / "terrace"
    done = subprocess.run(
        [str(program), "backend", "check", str(THROTTLED)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ---- Engines in processes of their own ----------------------------------------------------------

PROGRAM = """
import json, os, sys
answers = os.fdopen(int(sys.argv[1]), "w")
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "end":
        sys.exit("no such model")
    answer = {"error": "ValueError: x"} if asked["do"] == "fail" else asked
    answers.write(json.dumps(answer) + "\\n")
    answers.flush()
"""


def test_a_side_answers_and_its_end_is_told_with_its_words(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROGRAM]
    with side(tmp_path, words) as one:
        assert one.ask("serve", asked=["é" * 70_000]) == {"do": "serve", "asked": ["é" * 70_000]}
        with pytest.raises(RuntimeError, match="an engine failed: ValueError: x"):
            one.ask("fail")
        with pytest.raises(RuntimeError, match=r"an engine ended:\s+no such model"):
            one.ask("end")
    with side(tmp_path, words) as one, pytest.raises(RuntimeError, match=r"no answer in 0 s"):
        one.hear(limit_s=0.05)


def test_descriptors_and_processes_of_a_side_are_gone_after_it(tmp_path: Path) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    with side(tmp_path, [sys.executable, "-c", PROGRAM]) as one:
        one.ask("forget")
        process = one._process
    assert process.returncode is not None
    assert set(Path("/proc/self/fd").iterdir()) == before
