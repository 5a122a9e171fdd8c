"""The scheduler's half: a request that opts out, by itself or by mistake."""

from __future__ import annotations

from typing import Any

import pytest

from terrace import _native
from terrace._native import Layout
from terrace.connectors.vllm.keys import KeyMaker
from terrace.connectors.vllm.scheduler import SchedulerHalf
from tests.engine_objects import Output, Request, Scheduled
from tests.native_table import Table, make_owner

BLOCK = 4


def make() -> tuple[Table, SchedulerHalf]:
    table = Table()
    plain = Layout(BLOCK, 1, ((64, 64),))
    keys = KeyMaker(lambda _path: "digest")
    return table, SchedulerHalf(make_owner(table, BLOCK), keys, plain, has_events=False)


def opting(mode: Any) -> dict[str, Any]:
    return {"terrace": {"mode": mode, "ledger": True}}


def test_a_request_that_opts_out_neither_loads_nor_stores_and_has_its_ledger() -> None:
    table, half = make()
    table.texts["end_request"] = b'{"first_miss":null}'
    request = Request("a", list(range(8)), kv_transfer_params=opting("off"))
    half.begin(request)
    both = _native.REQUEST_NO_LOAD | _native.REQUEST_NO_STORE
    assert table.named("begin_request")[0]["flags"] == both
    assert half.match(request, 0) == 0
    half.build_step(Output([Scheduled(request, 0, 8, [10, 11])]))
    assert table.count()["poll_request"] == table.count()["advance_request"] == 0
    assert half.end(request) == {"terrace": {"ledger": {"first_miss": None}}}


def test_a_request_that_only_reads_is_looked_up_and_not_stored() -> None:
    table, half = make()
    request = Request("a", list(range(9)), kv_transfer_params=opting("readonly"))
    half.begin(request)
    assert table.named("begin_request")[0]["flags"] == _native.REQUEST_NO_STORE
    table.external = [8]
    assert half.match(request, 0) == 8


@pytest.mark.parametrize("params", [None, {}, {"terrace": None}, {"terrace": {}}, opting("on")])
def test_a_request_that_does_not_opt_out_is_served_whole(params: Any) -> None:
    table, half = make()
    half.begin(Request("a", list(range(8)), kv_transfer_params=params))
    assert table.named("begin_request")[0]["flags"] == 0


def test_an_unknown_mode_is_off_and_said_once_each(caplog: pytest.LogCaptureFixture) -> None:
    table, half = make()
    strange: list[Any] = ["Off", None, 0, ["off"], {"a": 1}, "x" * 100_000]
    for number, mode in enumerate(strange * 2):
        half.begin(Request(f"a{number}", list(range(8)), kv_transfer_params=opting(mode)))
    both = _native.REQUEST_NO_LOAD | _native.REQUEST_NO_STORE
    assert {seen["flags"] for seen in table.named("begin_request")} == {both}
    assert caplog.text.count("taken for off") == len(strange)
    assert "mode 'Off'" in caplog.text
    assert len(caplog.text) < 5_000
    for number in range(1_000):
        half.begin(Request(f"b{number}", [1], kv_transfer_params=opting(number + 1)))
    assert caplog.text.count("taken for off") <= 16
