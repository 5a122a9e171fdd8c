"""The scheduler's half: what the core is told, when, and when it is left alone."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from terrace import _native
from terrace._native import Code, Layout, TerraceError
from terrace.connectors.vllm.keys import KeyMaker
from terrace.connectors.vllm.scheduler import SchedulerHalf
from tests.engine_objects import Output, Request, Scheduled
from tests.native_table import Table, make_owner

BLOCK = 4


PLAIN = Layout(BLOCK, 1, ((64, 64),))


WINDOWED = Layout(BLOCK, 1, ((64,), (64,)), (0, 2 * BLOCK), 0)


def make(
    *, has_events: bool = False, layout: Layout = PLAIN, hash_tokens: int | None = None
) -> tuple[Table, SchedulerHalf]:
    table = Table()
    keys = KeyMaker(lambda _path: "digest")
    owner = make_owner(table, BLOCK, groups=len(layout.groups))
    half = SchedulerHalf(owner, keys, layout, has_events=has_events, hash_tokens=hash_tokens)
    return table, half


def step(half: SchedulerHalf, request: Request, computed: int, count: int, **other: Any) -> Any:
    table = list(range(10, 10 + -(-(computed + count) // BLOCK)))
    return half.build_step(Output([Scheduled(request, computed, count, table, **other)]))


def admit(table: Table, half: SchedulerHalf, request: Request, external: int) -> None:
    table.external = [external]
    assert half.match(request, 0) == external
    blocks = list(range(10, 10 + -(-len(request.all_token_ids) // BLOCK)))
    half.accept(request, 0, external, (blocks,))


def test_a_whole_prompt_hit_leaves_one_token_to_compute() -> None:
    table, half = make()
    request = Request("a", list(range(8)))
    half.begin(request)
    half.match(request, 0)
    assert table.named("poll_request")[0]["limit"] == 7


def test_not_yet_is_passed_on() -> None:
    table, half = make()
    request = Request("a", list(range(8)))
    half.begin(request)
    table.external = [None, 4]
    assert half.match(request, 0) is None
    assert half.match(request, 0) == 4


def test_a_request_that_must_not_read_caches_is_answered_without_asking() -> None:
    table, half = make()
    request = Request("a", list(range(8)), skip_reading_prefix_cache=True)
    half.begin(request)
    assert table.named("begin_request")[0]["flags"] == _native.REQUEST_NO_LOAD
    assert half.match(request, 0) == 0
    assert table.count()["poll_request"] == 0


def test_accepted_blocks_are_those_after_the_local_ones() -> None:
    table, half = make()
    request = Request("a", list(range(14)))
    half.begin(request)
    table.external = [8]
    half.match(request, 4)
    half.accept(request, 4, 8, ([10, 11, 12, 13],))
    table.texts["build_orders"] = b"orders"
    built = step(half, request, 12, 2)
    assert built.orders == b"orders"
    assert built.load_blocks == (11, 12)
    assert built.failed_blocks == ()


def test_a_load_that_the_core_refuses_is_reported_as_failed_and_not_saved() -> None:
    table, half = make()
    request = Request("a", list(range(9)))
    half.begin(request)
    table.codes["accept_load"] = Code.DEADLINE
    admit(table, half, request, 8)
    built = step(half, request, 8, 1)
    assert built.failed_blocks == (10, 11)
    assert built.load_blocks == ()
    assert table.count()["advance_request"] == 0
    assert half.match(request, 0) == 0


def test_another_request_on_unfilled_blocks_is_not_saved_either() -> None:
    table, half = make()
    first, second = Request("a", list(range(9))), Request("b", list(range(9)))
    third = Request("c", list(range(100, 109)))
    for request in (first, second, third):
        half.begin(request)
    table.codes["accept_load"] = Code.DEADLINE
    admit(table, half, first, 8)
    half.build_step(
        Output(
            [
                Scheduled(first, 8, 1, [10, 11, 12]),
                Scheduled(second, 8, 1, [10, 11, 13]),
                Scheduled(third, 0, 9, [20, 21, 22]),
            ]
        )
    )
    assert [seen["request"] for seen in table.named("advance_request")] == [3]


def test_loads_without_orders_are_reported_as_failed() -> None:
    table, half = make()
    request = Request("a", list(range(9)))
    half.begin(request)
    admit(table, half, request, 8)
    table.codes["build_orders"] = Code.EXHAUSTED
    assert step(half, request, 8, 1).failed_blocks == (10, 11)


def test_the_core_hears_of_a_step_only_when_a_block_became_full() -> None:
    table, half = make()
    request = Request("a", list(range(6)))
    half.begin(request)
    step(half, request, 0, 6)
    assert [seen["computed"] for seen in table.named("advance_request")] == [6]
    for number in (6, 7, 8, 9):
        request.all_token_ids.append(number)
        step(half, request, len(request.all_token_ids) - 1, 1, is_new=False)
    advanced = table.named("advance_request")
    assert [seen["computed"] for seen in advanced] == [6, 8]
    assert advanced[1]["tokens"] == [6, 7]


def test_a_step_with_nothing_due_makes_no_call() -> None:
    table, half = make()
    request = Request("a", list(range(6)))
    half.begin(request)
    table.texts["build_orders"] = b"orders"
    step(half, request, 0, 6)
    half.take_output([b"report"], ())
    request.all_token_ids.append(6)
    table.calls.clear()
    step(half, request, 6, 1, is_new=False)
    half.take_output([], ())
    assert half.events() == ""
    assert table.calls == []


def test_tokens_that_are_not_known_yet_wait() -> None:
    table, half = make()
    request = Request("a", list(range(6)))
    half.begin(request)
    step(half, request, 0, 10)  # Speculative tokens beyond the known ones.
    (seen,) = table.named("advance_request")
    assert seen["computed"] == 6


def test_blocks_of_a_failed_step_are_told_again() -> None:
    table, half = make()
    request = Request("a", list(range(9)))
    half.begin(request)
    admit(table, half, request, 8)
    table.texts["build_orders"] = b"orders"
    step(half, request, 8, 1)
    half.take_output([b"report"], {11})
    step(half, request, 4, 5, is_new=False)
    assert [seen["computed"] for seen in table.named("advance_request")] == [9, 9]
    assert half.match(request, 0) == 0, "a load that failed is not offered again"


def test_after_a_failed_load_the_core_is_asked_with_each_step() -> None:
    table, half = make()
    request = Request("a", list(range(9)))
    half.begin(request)
    admit(table, half, request, 8)
    table.texts["build_orders"] = b"orders"
    step(half, request, 8, 1)
    half.take_output([b"report"], {10})
    step(half, request, 0, 9, is_new=False)
    request.all_token_ids.append(9)
    step(half, request, 9, 1, is_new=False)
    assert [call["computed"] for call in table.named("advance_request")] == [9, 9, 10]


def test_a_failure_touches_only_its_own_requests() -> None:
    table, half = make()
    first, second = Request("a", list(range(9))), Request("b", list(range(20, 29)))
    for request, blocks in ((first, [10, 11, 12]), (second, [20, 21, 22])):
        half.begin(request)
        table.external = [8]
        half.match(request, 0)
        half.accept(request, 0, 8, (blocks,))
    table.texts["build_orders"] = b"orders"
    half.build_step(
        Output([Scheduled(first, 8, 1, [10, 11, 12]), Scheduled(second, 8, 1, [20, 21, 22])])
    )
    half.take_output([b"report"], {21})
    table.external = [4]
    assert half.match(first, 0) == 4
    assert half.match(second, 0) == 0


@pytest.mark.parametrize(
    ("failed", "told"),
    [
        ({30}, ["taint_steps", "take_report"]),
        ({11, 30}, ["taint_steps", "take_report"]),
        ({11}, ["take_report"]),
        ({11, 20, 21}, ["take_report"]),
    ],
)
def test_a_step_on_blocks_that_another_connector_did_not_fill_is_not_stored(
    failed: set[int], told: list[str]
) -> None:
    table, half = make()
    table.texts["build_orders"] = b"orders"
    loading, refused = Request("a", list(range(9))), Request("b", list(range(9)))
    half.begin(loading)
    half.begin(refused)
    admit(table, half, loading, 8)
    table.codes["accept_load"] = Code.EXHAUSTED
    table.external = [8]
    half.match(refused, 0)
    half.accept(refused, 0, 8, ([20, 21, 22],))
    half.build_step(Output([Scheduled(loading, 8, 1, [10, 11, 12])]))
    table.calls.clear()
    half.take_output([b"of a rank", b"of another"], failed)
    assert [name for name, _ in table.calls if name != "read_log"] == told
    assert table.named("take_report")[0]["report"] == b"of a rankof another"
    half.build_step(Output())
    half.take_output([], {11})
    assert table.count()["taint_steps"] == len(told), "of an earlier step: not ours any more"


def test_of_a_step_that_cannot_be_tainted_no_report_is_taken() -> None:
    table, half = make()
    table.codes["taint_steps"] = Code.EXHAUSTED
    half.take_output([b"report"], {30})
    half.take_output([b"of a step later"], ())
    assert table.count()["take_report"] == 0
    del table.codes["taint_steps"]
    for _ in range(2):
        half.take_output([b"later still"], ())
    told = [name for name, _ in table.calls if name in ("taint_steps", "take_report")]
    assert told == ["taint_steps"] * 3 + ["take_report"] * 2


def test_a_resumed_request_is_told_with_its_new_table() -> None:
    table, half = make()
    request = Request("a", list(range(9)))
    half.begin(request)
    step(half, request, 0, 9)
    half.build_step(Output([Scheduled(request, 4, 5, [30, 31, 32], is_new=False, is_resumed=True)]))
    advanced = table.named("advance_request")
    assert [seen["tables"] for seen in advanced] == [[[10, 11, 12]], [[30, 31, 32]]]


def test_generated_tokens_reach_the_core_once() -> None:
    table, half = make()
    request = Request("a", list(range(6)))
    half.begin(request)
    for _ in range(10):
        step(half, request, len(request.all_token_ids) - 1, 1, is_new=False)
        request.all_token_ids.append(len(request.all_token_ids))
    told = [token for seen in table.named("advance_request") for token in seen["tokens"]]
    assert told == list(range(6, 6 + len(told)))


def test_engine_hashes_go_along_only_for_events() -> None:
    hashes = [bytes(24) + number.to_bytes(8, "big") for number in (5, 6)]
    for has_events, expected in ((True, [5, 6]), (False, [])):
        table, half = make(has_events=has_events)
        request = Request("a", list(range(9)), block_hashes=hashes)
        half.begin(request)
        step(half, request, 0, 9)
        assert table.named("advance_request")[0]["aliases"] == expected


def test_of_hashes_within_a_block_the_last_one_is_the_blocks() -> None:
    hashes = [bytes(24) + number.to_bytes(8, "big") for number in range(1, 7)]
    table, half = make(has_events=True, hash_tokens=BLOCK // 2)
    request = Request("a", list(range(3 * BLOCK)), block_hashes=hashes[:5])
    half.begin(request)
    step(half, request, 0, BLOCK)
    step(half, request, BLOCK, BLOCK, is_new=False)
    request.block_hashes.append(hashes[5])
    step(half, request, 2 * BLOCK, BLOCK, is_new=False)
    told = [(seen["alias_first"], seen["aliases"]) for seen in table.named("advance_request")]
    assert told == [(0, [2]), (1, [4]), (2, [6])]


def test_the_ledger_is_returned_to_who_asks() -> None:
    for params, expected in (
        ({"terrace": {"ledger": True}}, {"terrace": {"ledger": {"host": 3}}}),
        ({"terrace": {}}, None),
        ({"other": 1}, None),
        (None, None),
    ):
        table, half = make()
        table.texts["end_request"] = b'{"host": 3}'
        request = Request("a", [1], kv_transfer_params=params)
        half.begin(request)
        assert half.end(request) == expected
        assert half.end(request) is None


def test_a_ledger_that_nobody_wants_is_not_made(caplog: pytest.LogCaptureFixture) -> None:
    table, half = make()
    request = Request("a", [1])
    half.begin(request)
    with caplog.at_level(logging.INFO, logger="vllm.terrace"):
        half.end(request)
    assert table.named("end_request")[0]["wants_ledger"] is False


def test_each_ledger_is_a_line_in_the_engines_debug_log(caplog: pytest.LogCaptureFixture) -> None:
    table, half = make()
    table.texts["end_request"] = b'{"host": 3}'
    request = Request("a", [1])
    half.begin(request)
    with caplog.at_level(logging.DEBUG, logger="vllm.terrace"):
        half.end(request)
    assert caplog.messages == ['terrace: request a {"host": 3}']


def test_a_request_that_the_core_lost_is_only_a_miss() -> None:
    table, half = make()
    request = Request("a", list(range(9)))
    half.begin(request)
    table.codes["poll_request"] = Code.NOT_FOUND
    assert half.match(request, 0) == 0
    step(half, request, 0, 9)
    assert table.count()["advance_request"] == 0


def test_a_refused_request_keeps_the_load_that_it_was_promised_in_the_same_step() -> None:
    table, half = make()
    table.texts["build_orders"] = b"orders"
    request = Request("a", list(range(9)))
    half.begin(request)
    table.codes["advance_request"] = Code.INVALID
    admit(table, half, request, 8)
    built = step(half, request, 8, 1)
    assert (built.orders, built.load_blocks, built.failed_blocks) == (b"orders", (10, 11), ())
    assert table.count()["end_request"] == 0
    step(half, request, 9, 4, is_new=False)
    assert table.count()["advance_request"] == 1
    half.end(request)
    assert table.count()["end_request"] == 1


NO_MEMORY = ("begin_request", "poll_request", "accept_load", "advance_request", "build_orders")


@pytest.mark.parametrize("function", [*NO_MEMORY, "take_report", "take_events", "read_log"])
def test_a_core_that_finds_no_memory_for_one_call_is_only_a_miss(function: str) -> None:
    table, half = make(has_events=True)
    table.codes[function] = Code.EXHAUSTED
    request = Request("a", list(range(9)))
    half.begin(request)
    table.external = [8]
    found = half.match(request, 0)
    assert found == (0 if function in NO_MEMORY[:2] else 8)
    half.accept(request, 0, found, ([10, 11, 12],))
    step(half, request, 8, 1)
    half.take_output([b"report"], ())
    assert half.events() == ""
    half.end(request)


def test_a_ledger_that_found_no_memory_is_missing() -> None:
    table, half = make()
    request = Request("a", [1], kv_transfer_params={"terrace": {"ledger": True}})
    half.begin(request)
    table.codes["end_request"] = Code.EXHAUSTED
    assert half.end(request) is None
    assert half.end(request) is None


@pytest.mark.parametrize("function", ["poll_request", "accept_load", "advance_request"])
def test_a_poisoned_core_is_an_error_here(function: str) -> None:
    table, half = make()
    request = Request("a", list(range(9)))
    half.begin(request)
    table.codes[function] = Code.INTERNAL
    with pytest.raises(TerraceError):
        admit(table, half, request, 8)
        step(half, request, 8, 1)


def test_a_refused_report_is_no_error() -> None:
    table, half = make()
    table.codes["take_report"] = Code.REFUSED
    half.take_output([b"a", b"b"], ())
    assert table.named("take_report")[0]["report"] == b"ab"


def test_an_admission_without_load_is_told_too() -> None:
    table, half = make()
    request = Request("a", list(range(9)))
    half.begin(request)
    half.match(request, 8)
    half.accept(request, 8, 0, ((),))
    (seen,) = table.named("accept_load")
    assert (seen["local"], seen["external"]) == (8, 0)
    assert half.build_step(Output()).load_blocks == ()


def admit_windowed(table: Table, half: SchedulerHalf, request: Request, external: int) -> None:
    table.external = [external]
    assert half.match(request, 0) == external
    half.accept(request, 0, external, ([10, 11, 12], [0, 21, 22]))


def test_a_load_that_the_engine_does_not_wait_for_goes_by_request() -> None:
    table, half = make(layout=WINDOWED)
    assert half.is_async
    table.texts["build_orders"] = b"orders"
    request = Request("a", list(range(9)))
    half.begin(request)
    admit_windowed(table, half, request, 8)
    found = half.build_step(Output([]))
    assert found.load_requests == (("a", (10, 11, 0, 21)),)
    assert (found.load_blocks, found.failed_blocks, found.failed_requests) == ((), (), ())
    half.accept(request, 0, 0, ((), ()))  # It has come: not told as a load of nothing.
    assert table.count()["accept_load"] == 1
    half.accept(request, 0, 0, ((), ()))
    assert table.count()["accept_load"] == 2


def test_a_load_that_failed_is_not_offered_again() -> None:
    table, half = make(layout=WINDOWED)
    table.texts["build_orders"] = b"orders"
    request = Request("a", list(range(9)))
    half.begin(request)
    admit_windowed(table, half, request, 8)
    half.build_step(Output([]))
    half.take_output([], (), {"a", "unknown"})
    table.external = [8]  # The core would; the engine would ask for it for ever.
    assert half.match(request, 0) == 0
    half.accept(request, 0, 0, ((), ()))  # Its ledger is settled.
    assert table.count()["accept_load"] == 2


def test_a_request_that_asks_again_before_its_load_was_told_is_settled_anew() -> None:
    table, half = make(layout=WINDOWED)
    request = Request("a", list(range(9)))
    half.begin(request)
    admit_windowed(table, half, request, 8)
    table.external = [0]
    assert half.match(request, 0) == 0  # Preempted meanwhile.
    half.accept(request, 0, 0, ((), ()))
    assert table.count()["accept_load"] == 2


def test_a_load_that_nobody_runs_is_named_by_its_request() -> None:
    table, half = make(layout=WINDOWED)
    refused, unordered = Request("refused", list(range(9))), Request("unordered", list(range(9)))
    half.begin(refused)
    half.begin(unordered)
    admit_windowed(table, half, unordered, 8)
    table.codes["accept_load"] = Code.EXHAUSTED
    admit_windowed(table, half, refused, 8)
    assert sorted(half.promised_requests()) == ["refused", "unordered"]
    found = half.build_step(Output([]))  # Without orders.
    assert sorted(found.failed_requests) == ["refused", "unordered"]
    assert found.load_requests == ()
    assert half.match(refused, 0) == 0


def test_a_reset_is_over_only_when_the_disk_has_forgotten_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table, half = make()
    assert half.reset() is True
    table.codes["reset_owner"] = Code.UNAVAILABLE
    with caplog.at_level(logging.WARNING):
        assert half.reset() is False
    assert "not reset on disk: terrace_reset_owner" in caplog.text


def test_a_reset_of_a_core_that_is_over_ends_this_half() -> None:
    table, half = make()
    table.codes["reset_owner"] = Code.INTERNAL
    with pytest.raises(TerraceError):
        half.reset()
