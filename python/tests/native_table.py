"""A function table that records calls and answers as told; stands where the C library would."""

from __future__ import annotations

import ctypes as c
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

from terrace import _native
from terrace._native import Code


def read_numbers(address: int | None, count: int, size: int = 4) -> list[int]:
    if not address or not count:
        return []
    kind = c.c_uint32 if size == 4 else c.c_uint64
    return list((kind * count).from_address(address))


class Table:
    """Set `codes[name]` to make a function fail, `external` to script polls (None = not yet)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.codes: dict[str, Code] = {}
        self.external: list[int | None] = []
        self.texts: dict[str, bytes] = {}
        self.failed: list[int] = []
        self._kept: list[Any] = []
        self._requests = 0

    def count(self) -> Counter[str]:
        return Counter(name for name, _ in self.calls)

    def named(self, name: str) -> list[dict[str, Any]]:
        return [seen for called, seen in self.calls if called == name]

    # ---- What Native offers ---------------------------------------------------------------------

    def check(self, function: str, code: int) -> None:
        if code != Code.OK:
            raise _native.TerraceError(function, code, f"told so: {Code(code).name}")

    def _note(self, function: str, **seen: Any) -> Code:
        self.calls.append((function, seen))
        return self.codes.get(function, Code.OK)

    def _fill(self, name: str, target: Any) -> Code:
        if target is None:
            return self._note(name)
        text = c.create_string_buffer(self.texts.get(name, b""))
        self._kept.append(text)
        target._obj.data = c.addressof(text)
        target._obj.length = len(self.texts.get(name, b""))
        return self._note(name)

    def open_owner(self, options: Any, owner: Any) -> Code:
        given = options._obj
        owner._obj.value = 1
        groups = [
            read_numbers(group.piece_bytes, group.piece_count, 8)
            for group in given.groups[: given.group_count]
        ]
        return self._note(
            "open_owner",
            block_tokens=given.block_tokens,
            groups=groups,
            engine_id=given.engine_id,
            settings=given.settings_json,
            can=(given.can_store, given.can_load),
        )

    def close_owner(self, _owner: Any, deadline_ns: int) -> None:
        self._note("close_owner", deadline_ns=deadline_ns)

    def begin_request(self, _owner: Any, options: Any, request: Any) -> Code:
        given = options._obj
        self._requests += 1
        request._obj.value = self._requests
        keys = given.extra_keys[: given.extra_key_count] if given.extra_key_count else []
        return self._note(
            "begin_request",
            flags=given.flags,
            tokens=read_numbers(given.tokens, given.token_count),
            prompt_tokens=given.prompt_tokens,
            name=given.name,
            unkeyable=given.unkeyable,
            keys=[(key.kind, key.identity, key.first_token, key.token_count) for key in keys],
        )

    def hint_request(self, _owner: Any, request: int, hints: Any) -> Code:
        said = hints._obj
        return self._note(
            "hint_request",
            request=request,
            flags=said.flags,
            session=said.session,
            return_ns=said.return_ns,
            priority=said.priority,
            ignored=said.ignored,
        )

    def poll_request(self, _owner: Any, request: int, local: int, limit: int, out: Any) -> Code:
        answer = self.external.pop(0) if self.external else 0
        out._obj.value = answer or 0
        code = self._note("poll_request", request=request, local=local, limit=limit)
        return Code.UNAVAILABLE if answer is None and code == Code.OK else code

    def _tables(self, blocks: int, counts: int) -> list[list[int]]:
        pointer = c.c_void_p.from_address(blocks).value
        return [read_numbers(pointer, c.c_uint64.from_address(counts).value)]

    def accept_load(
        self, _owner: Any, request: int, local: int, external: int, blocks: int, counts: int
    ) -> Code:
        tables = self._tables(blocks, counts)
        return self._note(
            "accept_load", request=request, local=local, external=external, tables=tables
        )

    def advance_request(self, _owner: Any, progress: Any) -> Code:
        given = progress._obj
        return self._note(
            "advance_request",
            request=given.request,
            computed=given.computed_tokens,
            tokens=read_numbers(given.new_tokens, given.new_token_count),
            tables=self._tables(given.blocks, given.block_counts),
            aliases=read_numbers(given.aliases, given.alias_count, 8),
            alias_first=given.alias_first,
        )

    def build_orders(self, _owner: Any, orders: Any) -> Code:
        return self._fill("build_orders", orders)

    def take_report(self, _owner: Any, report: bytes, length: int) -> Code:
        return self._note("take_report", report=report[:length])

    def taint_steps(self, _owner: Any) -> Code:
        return self._note("taint_steps")

    def end_request(self, _owner: Any, request: int, ledger: Any) -> Code:
        code = self._fill("end_request", ledger)
        self.calls[-1][1]["request"] = request
        self.calls[-1][1]["wants_ledger"] = ledger is not None
        return code

    def finish_request(self, _owner: Any, request: int, ending: Any, ledger: Any) -> Code:
        code = self._fill("finish_request", ledger)
        said = ending._obj
        self.calls[-1][1].update(
            request=request, reason=said.reason, answer_tokens=said.answer_tokens
        )
        return code

    def take_events(self, _owner: Any, text: Any) -> Code:
        return self._fill("take_events", text)

    def read_log(self, _owner: Any, text: Any) -> Code:
        return self._fill("read_log", text)

    def read_metrics(self, _owner: Any, text: Any) -> Code:
        return self._fill("read_metrics", text)

    def reset_owner(self, _owner: Any) -> Code:
        return self._note("reset_owner")

    def open_worker(self, options: Any, worker: Any) -> Code:
        given = options._obj
        worker._obj.value = 2
        groups = [
            [(r.address, r.block_stride, r.piece_bytes) for r in g.regions[: g.region_count]]
            for g in given.groups[: given.group_count]
        ]
        return self._note("open_worker", rank=given.rank, groups=groups)

    def close_worker(self, _worker: Any, deadline_ns: int) -> None:
        self._note("close_worker", deadline_ns=deadline_ns)

    def run_canary(self, _worker: Any, orders: bytes, length: int) -> Code:
        return self._note("run_canary", orders=orders[:length])

    def run_loads(
        self, _worker: Any, orders: bytes, length: int, room: int, capacity: int, count: Any
    ) -> Code:
        count._obj.value = len(self.failed)
        for index, block in enumerate(self.failed[:capacity]):
            c.c_uint32.from_address(room + 4 * index).value = block
        return self._note("run_loads", orders=orders[:length], capacity=capacity)

    def run_saves(self, _worker: Any, orders: bytes, length: int) -> Code:
        return self._note("run_saves", orders=orders[:length])

    def build_report(self, _worker: Any, report: Any) -> Code:
        return self._fill("build_report", report)

    def read_worker_log(self, _worker: Any, text: Any) -> Code:
        return self._fill("read_worker_log", text)


def make_owner(table: Table, block_tokens: int = 4, groups: int = 1) -> _native.Owner:
    return _native.Owner(
        _native.Layout(block_tokens, 1, ((64, 64),) * groups),
        engine_id="engine",
        settings_json="{}",
        fingerprint="",
        native=table,  # type: ignore[arg-type] # stands in for the library
    )


def make_worker(table: Table, regions: Sequence[_native.Region] = ()) -> _native.Worker:
    return _native.Worker(
        _native.Layout(4, 1, ((64, 64),)),
        0,
        [_native.GroupRegions(tuple(regions), 8, 0)],
        engine_id="engine",
        settings_json="{}",
        native=table,  # type: ignore[arg-type] # stands in for the library
    )


def tokens(*values: int) -> array[int]:
    return array("I", values)
