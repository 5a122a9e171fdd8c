"""What clients say of their requests: read, or ignored and counted, and never an error."""

from __future__ import annotations

import json
import logging
from array import array
from pathlib import Path
from typing import Any

import pytest

from terrace import _native
from terrace._native import Code, Hints, Layout
from terrace.connectors.vllm import hints
from terrace.connectors.vllm.hints import HintReader
from terrace.connectors.vllm.keys import KeyMaker
from terrace.connectors.vllm.scheduler import SchedulerHalf
from tests.engine_objects import Request
from tests.native_table import Table, make_owner
from tests.test_real_library import Pair

BLOCK = 4
CALL, TURN_END = 91, 92


def make(call_ends: frozenset[int] = frozenset()) -> tuple[Table, SchedulerHalf]:
    table = Table()
    plain = Layout(BLOCK, 1, ((64, 64),))
    keys = KeyMaker(lambda _path: "digest")
    owner = make_owner(table, BLOCK)
    return table, SchedulerHalf(owner, keys, plain, has_events=False, call_ends=call_ends)


def saying(asked: Any, **own: Any) -> dict[str, Any]:
    return {"terrace": {"hints": asked, **own}}


# ---- Reading ------------------------------------------------------------------------------------


def test_all_hints_are_read() -> None:
    said = {"session": "ä-1", "tool_call": True, "return_s": 2.5, "priority": "low"}
    assert HintReader().read(saying(said)) == Hints(
        session="ä-1".encode(),
        flags=_native.HINT_TOOL_CALL,
        return_ns=2_500_000_000,
        priority=_native.PRIORITY_LOW,
    )
    over = {"session_over": True, "tool_call": False, "priority": "normal"}
    assert HintReader().read(saying(over)) == Hints(flags=_native.HINT_SESSION_OVER)


@pytest.mark.parametrize("params", [None, {}, [], {"terrace": 1}, {"terrace": {}}, saying({})])
def test_a_request_without_hints_says_nothing(params: Any) -> None:
    assert not HintReader().read(params)


STRANGE: list[tuple[str, Any]] = [
    ("session", 5),
    ("session", None),
    ("session", ""),
    ("session", ["a"]),
    ("session", "x" * 257),
    ("session", "ä" * 200),  # 400 bytes.
    ("session", "x" * 10_000_000),
    ("session", "\ud800"),
    ("session_over", 1),
    ("session_over", "true"),
    ("session_over", None),
    ("tool_call", {}),
    ("return_s", True),
    ("return_s", "5"),
    ("return_s", -1),
    ("return_s", 0),
    ("return_s", float("nan")),
    ("return_s", float("inf")),
    ("return_s", 1e300),
    ("return_s", 10**5000),
    ("priority", 2),
    ("priority", "urgent"),
    ("priority", ["high"]),
    ("priorität", "high"),
    ("x" * 1_000_000, {"a": [1] * 1000}),
]


@pytest.mark.parametrize(("name", "value"), STRANGE, ids=range(len(STRANGE)))
def test_a_wrong_hint_is_ignored_and_counted_and_the_others_hold(
    name: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    right: dict[str, Any] = {"session": "s", "return_s": 1, "priority": "high"}
    found = HintReader().read(saying(right | {name: value}))
    assert found.ignored == 1
    assert (found.session == b"s") == (name != "session")
    assert (found.return_ns == 1_000_000_000) == (name != "return_s")
    assert (found.priority == _native.PRIORITY_HIGH) == (name != "priority")
    assert found.flags == 0
    assert caplog.text.count("is ignored") == 1
    assert len(caplog.text) < 1000


@pytest.mark.parametrize("asked", [5, "session_over", ["session_over"], True, 0.0])
def test_hints_that_are_no_object_count_as_one_wrong(asked: Any) -> None:
    assert HintReader().read(saying(asked)) == Hints(ignored=1)


def test_of_many_names_few_are_looked_at() -> None:
    found = HintReader().read(saying({f"name{n}": n for n in range(100_000)}))
    assert found == Hints(ignored=100_000)


def test_wrong_hints_are_said_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("terrace.connectors.vllm.hints.time.monotonic", lambda: now[0])
    reader = HintReader()
    for _ in range(1000):
        assert reader.read(saying({"session_over": "yes"})).ignored == 1
    assert caplog.text.count("is ignored") == 1
    assert "'session_over' of a request is ignored: 'yes' is neither true nor false" in caplog.text
    now[0] += 61
    reader.read(saying({"priority": "urgent"}))
    assert caplog.text.count("is ignored") == 2
    assert "(999 more of late)" in caplog.text
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_the_engines_own_session_is_taken_where_the_hints_have_none() -> None:
    assert HintReader().read(None, "engine's").session == b"engine's"
    assert HintReader().read(saying({"session": "own"}), "engine's").session == b"own"
    assert HintReader().read(None, "x" * 300) == Hints(ignored=1)
    assert HintReader().read(None, None) == HintReader().read(None, 7) == Hints()


# ---- In the scheduler's half --------------------------------------------------------------------


def test_hints_reach_the_core_before_the_first_poll() -> None:
    table, half = make()
    said = {"session": "s", "session_over": True}
    request = Request("a", list(range(8)), kv_transfer_params=saying(said))
    half.begin(request)
    half.match(request, 0)
    assert [name for name, _ in table.calls][-3:] == [
        "begin_request",
        "hint_request",
        "poll_request",
    ]
    (seen,) = table.named("hint_request")
    assert (seen["session"], seen["flags"]) == (b"s", _native.HINT_SESSION_OVER)


def test_a_request_that_says_nothing_makes_no_call_for_it() -> None:
    table, half = make()
    half.begin(Request("a", list(range(8)), kv_transfer_params={"terrace": {"ledger": True}}))
    assert table.count()["hint_request"] == 0


def test_malformed_hints_are_counted_by_the_core_and_change_nothing_else() -> None:
    table, half = make()
    asked = {"session": 5, "session_over": "no", "more": None}
    request = Request("a", list(range(9)), kv_transfer_params=saying(asked))
    half.begin(request)
    (seen,) = table.named("hint_request")
    assert seen["ignored"] == 3
    assert table.named("begin_request")[0]["flags"] == 0
    table.external = [8]
    assert half.match(request, 0) == 8


def test_a_core_that_refuses_hints_serves_the_request() -> None:
    table, half = make()
    table.codes["hint_request"] = Code.EXHAUSTED
    request = Request("a", list(range(9)), kv_transfer_params=saying({"session": "s"}))
    half.begin(request)
    table.external = [8]
    assert half.match(request, 0) == 8


# ---- How an answer ended ------------------------------------------------------------------------


class Ended(Request):
    def __init__(self, reason: str, answer: list[int]) -> None:
        super().__init__("a", list(range(8)))
        self.stop_reason = reason
        self.output_token_ids = answer

    def get_finished_reason(self) -> str:
        return self.stop_reason


@pytest.mark.parametrize(
    ("reason", "answer", "said"),
    [
        ("stop", [1, 2, 3], _native.ENDING_STOP),
        ("length", [1, 2, CALL], _native.ENDING_LENGTH),
        ("abort", [1, 2, CALL], _native.ENDING_ABORT),
        ("error", [1], _native.ENDING_ABORT),
        ("stop", [1, 2, CALL, TURN_END], _native.ENDING_TOOL_CALL),
        ("stop", [CALL], _native.ENDING_TOOL_CALL),
        ("stop", [CALL, 1, 2, 3, 4], _native.ENDING_STOP),
        ("None", [1, 2], _native.ENDING_UNKNOWN),
    ],
)
def test_the_core_hears_how_an_answer_ended_and_how_long_it_was(
    reason: str, answer: list[int], said: int
) -> None:
    table, half = make(frozenset({CALL}))
    table.texts["finish_request"] = b"{}"
    request = Ended(reason, answer)
    half.begin(request)
    half.end(request)
    (seen,) = table.named("finish_request")
    assert (seen["reason"], seen["answer_tokens"]) == (said, len(answer))


def test_an_engine_that_does_not_say_ends_its_requests_all_the_same() -> None:
    table, half = make()
    request = Request("a", list(range(8)))
    half.begin(request)
    half.end(request)
    assert table.count()["end_request"] == 1
    assert table.count()["finish_request"] == 0


def tokenizer(folder: Path, config: str) -> str:
    (folder / "tokenizer_config.json").write_text(config, encoding="utf-8")
    return str(folder)


def test_tokens_that_end_tool_calls_are_found_in_the_models_folder(tmp_path: Path) -> None:
    tokens = {"7": "<|im_end|>", "8": "</tool_call>", "9": "<|call|>"}
    added = {number: {"content": text, "special": True} for number, text in tokens.items()}
    folder = tokenizer(tmp_path, json.dumps({"added_tokens_decoder": added}))
    assert hints.tool_call_ends(folder) == {8, 9}


@pytest.mark.parametrize(
    "config",
    [
        "",
        "[]",
        "{}",
        '{"added_tokens_decoder": 5}',
        '{"added_tokens_decoder": {"x": {"content": "<|call|>"}}}',
        '{"added_tokens_decoder": {"5": {}}}',
        '{"added_tokens_decoder": {"5": {"content": ["a"]}}}',
        "[" * 100_000,
    ],
)
def test_a_folder_that_does_not_tell_them_has_none(tmp_path: Path, config: str) -> None:
    assert hints.tool_call_ends(tokenizer(tmp_path, config)) == frozenset()
    assert hints.tool_call_ends(str(tmp_path / "none")) == frozenset()


# ---- Over the real library ----------------------------------------------------------------------


def test_the_library_takes_hints_and_endings_and_tells_them_in_the_ledger() -> None:
    pair = Pair({"host.eviction": "hazard"})
    try:
        for turn in (1, 2):
            request = pair.owner.begin_request(array("I", range(100 * turn, 100 * turn + 13)))
            said = Hints(b"s", _native.HINT_TOOL_CALL, 10**9, _native.PRIORITY_HIGH, ignored=2)
            pair.owner.hint_request(request, said)
            pair.poll(request, 0, 12)
            pair.owner.accept_load(request, 0, 0, [[3, 4, 5, 6]])
            pair.owner.advance_request(request, 13, array("I"), [[3, 4, 5, 6]])
            pair.step()
            ledger = json.loads(pair.owner.end_request(request, _native.ENDING_TOOL_CALL, 40))
        assert ledger["turn"] == 2
        assert ledger["ending"] == "tool_call"
        assert ledger["hints"] == ["session", "tool_call", "return", "priority"]
        assert ledger["ignored_hints"] == 2
        text = pair.owner.read_metrics()
        assert 'terrace_hints_total{hint="session"} 2\n' in text
        assert "terrace_ignored_hints_total 4\n" in text
        assert 'terrace_answers_total{ending="tool_call"} 2\n' in text
    finally:
        pair.close()
