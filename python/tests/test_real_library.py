"""The binding over the real library: an owner, a worker and a few blocks of "device" memory.

The library is the one that TERRACE_LIBRARY names (./dev test sets it).
"""

from __future__ import annotations

import ctypes as c
import json
import time
import uuid
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from terrace import _native
from terrace._native import (
    Code,
    ExtraKey,
    GroupRegions,
    Layout,
    Owner,
    Region,
    TerraceError,
    Worker,
)

BLOCK_TOKENS, BLOCKS, PIECE, PIECES = 4, 16, 8192, 2
LAYOUT = Layout(BLOCK_TOKENS, 1, ((PIECE,) * PIECES,))
SETTINGS: dict[str, Any] = {"host.size": "4MiB", "planner.enabled": False}
DEADLINE_S = 30.0
VECTORS = Path(__file__).resolve().parents[2] / "docs" / "formats" / "vectors"


class Device:
    """KV memory of a pretended engine: two pieces, block after block."""

    def __init__(self) -> None:
        self.memory = (c.c_uint8 * (PIECES * BLOCKS * PIECE))()
        base = c.addressof(self.memory)
        self.regions = tuple(
            Region(base + piece * BLOCKS * PIECE, PIECE, PIECE) for piece in range(PIECES)
        )

    def write(self, block: int, value: int) -> None:
        for region in self.regions:
            c.memset(region.address + block * PIECE, value, PIECE)

    def read(self, block: int) -> list[int]:
        content = [c.string_at(region.address + block * PIECE, PIECE) for region in self.regions]
        return sorted({byte for piece in content for byte in piece})


class Pair:
    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        engine_id = str(uuid.uuid4())
        text = json.dumps(SETTINGS | (settings or {}))
        self.device = Device()
        self.worker = Worker(
            LAYOUT,
            0,
            [GroupRegions(self.device.regions, BLOCKS, 0)],
            engine_id=engine_id,
            settings_json=text,
        )
        self.owner = Owner(
            LAYOUT, engine_id=engine_id, settings_json=text, fingerprint="content.a=b\n"
        )

    def close(self) -> None:
        self.owner.close(1_000_000_000)
        self.worker.close(1_000_000_000)

    def step(self) -> set[int]:
        """One engine step: orders out, work, report in.  Returns the blocks that failed."""
        orders = self.owner.build_orders()
        if not orders:
            return set()
        self.worker.run_canary(orders)
        code, failed = self.worker.run_loads(orders)
        assert code == Code.OK
        self.worker.run_saves(orders)
        self.owner.take_report(self.worker.build_report())
        return set(failed)

    def poll(self, request: int, local: int, limit: int) -> int:
        """Steps on until the look-up is answered."""
        found: list[int | None] = [None]

        def is_answered() -> bool:
            found[0] = self.owner.poll_request(request, local, limit)
            self.step()
            return found[0] is not None

        until(is_answered)
        assert found[0] is not None
        return found[0]


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def store(pair: Pair, tokens: array[int], blocks: list[int]) -> None:
    request = pair.owner.begin_request(tokens)
    pair.poll(request, 0, len(tokens) - 1)
    pair.owner.accept_load(request, 0, 0, [blocks])
    pair.owner.advance_request(request, len(tokens), array("I"), [blocks])
    assert pair.step() == set()
    pair.owner.end_request(request)


def test_bytes_come_back_into_other_blocks(pair: Pair) -> None:
    tokens = array("I", range(13))
    for block, value in ((3, 0x11), (4, 0x22), (5, 0x33)):
        pair.device.write(block, value)
    store(pair, tokens, [3, 4, 5, 6])
    request = pair.owner.begin_request(tokens)
    assert pair.poll(request, 0, 12) == 12
    pair.owner.accept_load(request, 0, 12, [[9, 10, 11, 12]])
    assert pair.step() == set()
    assert [pair.device.read(block) for block in (9, 10, 11)] == [[0x11], [0x22], [0x33]]
    ledger = json.loads(pair.owner.end_request(request))
    assert ledger["hit_tokens"] == {"host": 12}


def test_the_null_block_keeps_its_bytes_through_the_canary(pair: Pair) -> None:
    pair.device.write(0, 0x5A)
    store(pair, array("I", range(5)), [3, 4])
    assert json.loads(pair.owner.read_status())["canary"] == "passed"
    assert pair.device.read(0) == [0x5A]


def test_other_tokens_and_other_salts_do_not_match(pair: Pair) -> None:
    store(pair, array("I", range(5)), [3, 4])
    other = pair.owner.begin_request(array("I", range(1, 6)))
    assert pair.poll(other, 0, 4) == 0
    salted = pair.owner.begin_request(array("I", range(5)), 0, [ExtraKey(ExtraKey.SALT, b"tenant")])
    assert pair.poll(salted, 0, 4) == 0


def test_after_a_reset_nothing_matches(pair: Pair) -> None:
    store(pair, array("I", range(5)), [3, 4])
    pair.owner.reset()
    request = pair.owner.begin_request(array("I", range(5)))
    assert pair.poll(request, 0, 4) == 0


def test_what_a_tainted_step_saved_is_stored_only_when_it_is_computed_anew(pair: Pair) -> None:
    tokens, blocks = array("I", range(5)), [[3, 4]]
    request = pair.owner.begin_request(tokens)
    pair.poll(request, 0, 4)
    pair.owner.accept_load(request, 0, 0, blocks)
    pair.owner.advance_request(request, 5, array("I"), blocks)
    pair.worker.run_saves(pair.owner.build_orders())
    pair.owner.taint_steps()
    pair.owner.take_report(pair.worker.build_report())
    assert pair.poll(pair.owner.begin_request(tokens), 0, 4) == 0
    pair.owner.advance_request(request, 5, array("I"), blocks)
    pair.step()
    assert pair.poll(pair.owner.begin_request(tokens), 0, 4) == 4


def test_cut_orders_and_reports_are_refused(pair: Pair) -> None:
    tokens = array("I", range(5))
    store(pair, tokens, [3, 4])
    request = pair.owner.begin_request(tokens)
    assert pair.poll(request, 0, 4) == 4
    pair.owner.accept_load(request, 0, 4, [[9, 10]])
    orders = pair.owner.build_orders()
    code, failed = pair.worker.run_loads(orders[: len(orders) // 2])
    assert (code, failed) == (Code.INVALID, [])
    pair.worker.run_loads(orders)
    report = pair.worker.build_report()
    with pytest.raises(TerraceError):
        pair.owner.take_report(report[: len(report) // 2])
    pair.owner.take_report(report)


def test_a_request_that_ended_is_not_found(pair: Pair) -> None:
    request = pair.owner.begin_request(array("I", range(5)))
    pair.owner.end_request(request)
    assert pair.owner.end_request(request) == ""
    with pytest.raises(TerraceError) as caught:
        pair.owner.accept_load(request, 0, 0, [[]])
    assert caught.value.code == Code.NOT_FOUND


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(TerraceError, match=r"host\.sise") as caught:
        Pair({"host.sise": "1GiB"})
    assert caught.value.code == Code.INVALID


def test_metrics_log_and_events_are_text(pair: Pair) -> None:
    store(pair, array("I", range(5)), [3, 4])
    assert "terrace_requests_total" in pair.owner.read_metrics()
    for line in pair.owner.read_log().splitlines():
        assert line.split(" ")[0] in ("debug", "info", "warn", "error")


def vectors() -> list[list[str]]:
    rows = (VECTORS / "sequence-hash.tsv").read_text().splitlines()
    return [row.split("\t") for row in rows if row and not row.startswith("#")]


@pytest.mark.parametrize("row", vectors(), ids=lambda row: str(row[0]))
def test_sequence_hashes_equal_the_published_vectors(row: list[str]) -> None:
    _, block_tokens, tokens, keys, hashes = row
    extra = []
    for key in keys.split(";") if keys else []:
        kind, identity, first, count = key.split(":")
        extra.append(ExtraKey(int(kind), bytes.fromhex(identity), int(first), int(count)))
    given = array("I", [int(token) for token in tokens.split(",")])
    found = _native.hash_sequence(int(block_tokens), given, extra)
    assert [value.hex() for value in found] == [value for value in hashes.split(",") if value]
