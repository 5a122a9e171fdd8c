"""Thin typed wrappers over the C ABI: an owner, a worker, and the pure functions."""

from __future__ import annotations

import ctypes as c
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from terrace._abi import (
    ABI_VERSION,
    ENDING_ABORT,
    ENDING_LENGTH,
    ENDING_STOP,
    ENDING_TOOL_CALL,
    ENDING_UNKNOWN,
    FUNCTIONS,
    HINT_SESSION_OVER,
    HINT_TOOL_CALL,
    PRIORITY_HIGH,
    PRIORITY_LOW,
    PRIORITY_NORMAL,
    REQUEST_NO_LOAD,
    REQUEST_NO_STORE,
    REQUEST_UNKEYABLE,
    STRUCTS,
    Bytes,
    Code,
    EndingStruct,
    ExtraKeyStruct,
    GroupLayoutStruct,
    GroupRegionsStruct,
    HintsStruct,
    Native,
    OwnerOptionsStruct,
    ProgressStruct,
    RegionStruct,
    RequestOptionsStruct,
    TerraceError,
    WorkerOptionsStruct,
    find_library,
    load,
)
from terrace._hints import Hints
from terrace._regions import GroupRegions, Region

__all__ = [
    "ABI_VERSION",
    "ENDING_ABORT",
    "ENDING_LENGTH",
    "ENDING_STOP",
    "ENDING_TOOL_CALL",
    "ENDING_UNKNOWN",
    "FUNCTIONS",
    "HINT_SESSION_OVER",
    "HINT_TOOL_CALL",
    "PRIORITY_HIGH",
    "PRIORITY_LOW",
    "PRIORITY_NORMAL",
    "REQUEST_NO_LOAD",
    "REQUEST_NO_STORE",
    "REQUEST_UNKEYABLE",
    "STRUCTS",
    "Bytes",
    "Code",
    "EndingStruct",
    "ExtraKey",
    "ExtraKeyStruct",
    "GroupLayoutStruct",
    "GroupRegions",
    "GroupRegionsStruct",
    "Hints",
    "HintsStruct",
    "Layout",
    "Native",
    "Owner",
    "OwnerOptionsStruct",
    "ProgressStruct",
    "Region",
    "RegionStruct",
    "RequestOptionsStruct",
    "TerraceError",
    "Worker",
    "WorkerOptionsStruct",
    "digest_weights",
    "find_library",
    "hash_sequence",
    "load",
]


@dataclass(frozen=True)
class ExtraKey:
    """What else than token ids changes the KV; kinds as in terrace_extra_key."""

    SALT = 1
    LORA = 2
    MULTIMODAL = 3

    kind: int
    identity: bytes
    first_token: int = 0
    token_count: int = 0


def _extra_keys(keys: Sequence[ExtraKey]) -> Any:
    if not keys:
        return None
    structs = (ExtraKeyStruct * len(keys))()
    size = c.sizeof(ExtraKeyStruct)
    for struct, key in zip(structs, keys, strict=True):
        struct.struct_size = size
        struct.kind = key.kind
        struct.identity = key.identity
        struct.identity_length = len(key.identity)
        struct.first_token = key.first_token
        struct.token_count = key.token_count
    return structs


def _address(numbers: array[int]) -> int:
    return numbers.buffer_info()[0] if numbers else 0


def _text_of(value: Bytes) -> str:
    return _bytes_of(value).decode(errors="replace")


def _bytes_of(value: Bytes) -> bytes:
    return c.string_at(value.data, value.length) if value.length else b""


def hash_sequence(
    block_tokens: int,
    tokens: array[int],
    extra_keys: Sequence[ExtraKey] = (),
    native: Native | None = None,
) -> list[bytes]:
    """The 16-byte sequence hash of each full block."""
    native = native or load()
    count = len(tokens) // block_tokens if block_tokens else 0
    room = c.create_string_buffer(16 * max(count, 1))
    code = native.hash_sequence(
        block_tokens,
        _address(tokens),
        len(tokens),
        _extra_keys(extra_keys),
        len(extra_keys),
        c.cast(room, c.c_void_p),
    )
    native.check("terrace_hash_sequence", code)
    return [room.raw[16 * i : 16 * i + 16] for i in range(count)]


def digest_weights(directory: str, native: Native | None = None) -> str:
    """Fingerprint of a folder's safetensors files; reads them."""
    native = native or load()
    digest = c.create_string_buffer(65)
    code = native.digest_weights(os.fsencode(directory), c.cast(digest, c.c_void_p))
    native.check("terrace_digest_weights", code)
    return digest.value.decode()


@dataclass(frozen=True)
class Layout:
    """What owner and workers must agree on: bytes of one block in each piece of each group.

    What follows is for the owner alone: how many tokens back each group looks, the present one
    included (0 = to the start, as all do when `windows` is empty), and the device block that stands
    for none in block tables.
    """

    block_tokens: int
    rank_count: int
    groups: tuple[tuple[int, ...], ...]
    windows: tuple[int, ...] = ()
    null_block: int | None = None

    @property
    def is_plain(self) -> bool:
        """One group that needs all: a load that fails in part is worth its leading part."""
        return len(self.groups) == 1 and not any(self.windows)


class _Tables:
    """Block tables of all groups as C sees them: pointers to each, and their lengths."""

    def __init__(self, group_count: int) -> None:
        self._pointers = (c.c_void_p * group_count)()
        self._counts = (c.c_uint64 * group_count)()
        self._kept: list[array[int]] = []
        self.pointers = c.addressof(self._pointers)
        self.counts = c.addressof(self._counts)

    def fill(self, tables: Sequence[Sequence[int]]) -> None:
        if len(tables) != len(self._pointers):
            raise ValueError(f"{len(tables)} block tables instead of {len(self._pointers)}")
        self._kept = [array("I", table) for table in tables]
        for group, table in enumerate(self._kept):
            self._pointers[group], self._counts[group] = table.buffer_info()


class Owner:
    """Holds the catalog; lives where the engine schedules.  One engine thread at a time."""

    def __init__(
        self,
        layout: Layout,
        *,
        engine_id: str,
        settings_json: str,
        fingerprint: str,
        model_directory: str = "",
        can_store: bool = True,
        can_load: bool = True,
        native: Native | None = None,
    ) -> None:
        self._native = native or load()
        self._handle = c.c_void_p()
        groups = (GroupLayoutStruct * len(layout.groups))()
        kept = [array("Q", pieces) for pieces in layout.groups]
        for struct, pieces in zip(groups, kept, strict=True):
            struct.struct_size = c.sizeof(GroupLayoutStruct)
            struct.piece_count = len(pieces)
            struct.piece_bytes = _address(pieces)
            struct.null_block = layout.null_block or 0
            struct.has_null_block = int(layout.null_block is not None)
        for struct, window in zip(groups, layout.windows, strict=False):
            struct.window_tokens = window
        options = OwnerOptionsStruct(
            struct_size=c.sizeof(OwnerOptionsStruct),
            block_tokens=layout.block_tokens,
            rank_count=layout.rank_count,
            group_count=len(layout.groups),
            groups=groups,
            engine_id=engine_id.encode(),
            settings_json=settings_json.encode(),
            fingerprint=fingerprint.encode(),
            model_directory=os.fsencode(model_directory),
            can_store=int(can_store),
            can_load=int(can_load),
        )
        code = self._native.open_owner(c.byref(options), c.byref(self._handle))
        self._native.check("terrace_open_owner", code)
        self._tables = _Tables(len(layout.groups))
        self._bytes = Bytes()
        self._number = c.c_uint64()
        self._progress = ProgressStruct(
            struct_size=c.sizeof(ProgressStruct),
            blocks=self._tables.pointers,
            block_counts=self._tables.counts,
        )

    def begin_request(
        self,
        tokens: array[int],
        flags: int = 0,
        extra_keys: Sequence[ExtraKey] = (),
        *,
        name: str = "",
        unkeyable: str = "",
        prompt_tokens: int = 0,
    ) -> int:
        """`name`: the engine's id, for people who ask; `unkeyable`: what of it has no key.

        `prompt_tokens`: where `tokens` are not all of the prompt; 0 = they are.
        """
        options = RequestOptionsStruct(
            struct_size=c.sizeof(RequestOptionsStruct),
            flags=flags,
            tokens=_address(tokens),
            token_count=len(tokens),
            extra_keys=_extra_keys(extra_keys),
            extra_key_count=len(extra_keys),
            prompt_tokens=prompt_tokens or len(tokens),
            name=name.encode(errors="replace"),
            unkeyable=unkeyable.encode(errors="replace"),
        )
        code = self._native.begin_request(self._handle, c.byref(options), c.byref(self._number))
        self._native.check("terrace_begin_request", code)
        return self._number.value

    def hint_request(self, request: int, hints: Hints) -> None:
        code = self._native.hint_request(self._handle, request, c.byref(hints.struct()))
        self._native.check("terrace_hint_request", code)

    def poll_request(self, request: int, local_tokens: int, limit_tokens: int) -> int | None:
        """Tokens beyond the local ones that are ready; None = ask again next step."""
        code = self._native.poll_request(
            self._handle, request, local_tokens, limit_tokens, c.byref(self._number)
        )
        if code == Code.UNAVAILABLE:
            return None
        self._native.check("terrace_poll_request", code)
        return self._number.value

    def accept_load(
        self, request: int, local_tokens: int, external_tokens: int, tables: Sequence[Sequence[int]]
    ) -> None:
        self._tables.fill(tables)
        code = self._native.accept_load(
            self._handle,
            request,
            local_tokens,
            external_tokens,
            self._tables.pointers,
            self._tables.counts,
        )
        self._native.check("terrace_accept_load", code)

    def advance_request(
        self,
        request: int,
        computed_tokens: int,
        new_tokens: array[int],
        tables: Sequence[Sequence[int]],
        aliases: array[int] | None = None,
        alias_first: int = 0,
    ) -> None:
        self._tables.fill(tables)
        progress = self._progress
        progress.request = request
        progress.computed_tokens = computed_tokens
        progress.new_tokens = _address(new_tokens)
        progress.new_token_count = len(new_tokens)
        progress.aliases = _address(aliases) if aliases else None
        progress.alias_first = alias_first
        progress.alias_count = len(aliases) if aliases else 0
        code = self._native.advance_request(self._handle, c.byref(progress))
        self._native.check("terrace_advance_request", code)

    def _filled(self, name: str) -> Bytes:
        code = getattr(self._native, name)(self._handle, c.byref(self._bytes))
        self._native.check(f"terrace_{name}", code)
        return self._bytes

    def build_orders(self) -> bytes:
        return _bytes_of(self._filled("build_orders"))

    def take_report(self, report: bytes) -> None:
        self._native.check(
            "terrace_take_report", self._native.take_report(self._handle, report, len(report))
        )

    def taint_steps(self) -> None:
        """Nothing of steps whose reports are not all taken is stored."""
        self._native.check("terrace_taint_steps", self._native.taint_steps(self._handle))

    def end_request(
        self,
        request: int,
        ending: int = ENDING_UNKNOWN,
        answer_tokens: int = 0,
        *,
        wants_ledger: bool = True,
    ) -> str:
        """The request's ledger as JSON; "" if unwanted, or for one that the owner does not know.

        How its answer ended, and its length, when the engine says.
        """
        text = c.byref(self._bytes) if wants_ledger else None
        if ending or answer_tokens:
            said = EndingStruct(c.sizeof(EndingStruct), ending, answer_tokens)
            code = self._native.finish_request(self._handle, request, c.byref(said), text)
        else:
            code = self._native.end_request(self._handle, request, text)
        if code == Code.NOT_FOUND:
            return ""
        self._native.check("terrace_end_request", code)
        return _text_of(self._bytes) if wants_ledger else ""

    def take_events(self) -> str:
        return _text_of(self._filled("take_events"))

    def read_status(self) -> str:
        return _text_of(self._filled("read_status"))

    def read_metrics(self) -> str:
        return _text_of(self._filled("read_metrics"))

    def read_log(self) -> str:
        return _text_of(self._filled("read_log"))

    def event_fd(self) -> int:
        return int(self._native.owner_event_fd(self._handle))

    def reset(self) -> None:
        self._native.check("terrace_reset_owner", self._native.reset_owner(self._handle))

    def close(self, deadline_ns: int) -> None:
        handle, self._handle = self._handle, c.c_void_p()
        if handle:
            self._native.close_owner(handle, deadline_ns)


class Worker:
    """One rank's side: copies and verifies.  One engine thread at a time."""

    def __init__(
        self,
        layout: Layout,
        rank: int,
        groups: Sequence[GroupRegions],
        *,
        engine_id: str,
        settings_json: str,
        native: Native | None = None,
    ) -> None:
        self._native = native or load()
        self._handle = c.c_void_p()
        structs = (GroupRegionsStruct * len(groups))(*(group.struct() for group in groups))
        options = WorkerOptionsStruct(
            struct_size=c.sizeof(WorkerOptionsStruct),
            rank=rank,
            rank_count=layout.rank_count,
            block_tokens=layout.block_tokens,
            group_count=len(groups),
            groups=structs,
            engine_id=engine_id.encode(),
            settings_json=settings_json.encode(),
        )
        code = self._native.open_worker(c.byref(options), c.byref(self._handle))
        self._native.check("terrace_open_worker", code)
        self._bytes = Bytes()
        self._number = c.c_uint64()
        self._failed = array("I", bytes(4 * 256))

    def run_canary(self, orders: bytes) -> None:
        code = self._native.run_canary(self._handle, orders, len(orders))
        self._native.check("terrace_run_canary", code)

    def run_loads(self, orders: bytes) -> tuple[Code, list[int]]:
        """What the whole call came to, and the device blocks that must not be used."""
        while True:
            code = self._native.run_loads(
                self._handle,
                orders,
                len(orders),
                _address(self._failed),
                len(self._failed),
                c.byref(self._number),
            )
            count = self._number.value
            if count <= len(self._failed):
                return Code(code), self._failed[:count].tolist()
            self._failed = array("I", bytes(4 * count))

    def run_saves(self, orders: bytes) -> None:
        code = self._native.run_saves(self._handle, orders, len(orders))
        self._native.check("terrace_run_saves", code)

    def _filled(self, name: str) -> Bytes:
        code = getattr(self._native, name)(self._handle, c.byref(self._bytes))
        self._native.check(f"terrace_{name}", code)
        return self._bytes

    def build_report(self) -> bytes:
        return _bytes_of(self._filled("build_report"))

    def read_status(self) -> str:
        return _text_of(self._filled("read_worker_status"))

    def read_log(self) -> str:
        return _text_of(self._filled("read_worker_log"))

    def close(self, deadline_ns: int) -> None:
        handle, self._handle = self._handle, c.c_void_p()
        if handle:
            self._native.close_worker(handle, deadline_ns)
