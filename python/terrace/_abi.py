"""The C ABI (include/terrace/terrace.h) as ctypes: constants, structs, and the function table.

A test compares every function, struct, offset and constant with the header.  Calls that never block
keep the interpreter lock (`PyDLL`: giving it away costs milliseconds beside a busy thread); copies
and waits give it away (`CDLL`).
"""

from __future__ import annotations

import ctypes as c
import enum
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ABI_VERSION = 1
REQUEST_UNKEYABLE = 1
REQUEST_NO_LOAD = 2
REQUEST_NO_STORE = 4
HINT_SESSION_OVER = 1
HINT_TOOL_CALL = 2
PRIORITY_NORMAL = 0
PRIORITY_HIGH = 1
PRIORITY_LOW = 2
ENDING_UNKNOWN = 0
ENDING_STOP = 1
ENDING_LENGTH = 2
ENDING_ABORT = 3
ENDING_TOOL_CALL = 4


class Code(enum.IntEnum):
    OK = 0
    INVALID = 1
    NOT_FOUND = 2
    EXHAUSTED = 3
    UNAVAILABLE = 4
    DEADLINE = 5
    CORRUPT = 6
    IO = 7
    REFUSED = 8
    CLOSED = 9
    INTERNAL = 10


class TerraceError(Exception):
    """A C function's code that is not OK, with the library's text for it."""

    def __init__(self, function: str, code: int, text: str) -> None:
        super().__init__(f"{function}: {text or Code(code).name}")
        self.code = Code(code)
        self.text = text


class Bytes(c.Structure):
    _fields_ = (("data", c.c_void_p), ("length", c.c_uint64))


class ExtraKeyStruct(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        ("kind", c.c_uint32),
        ("identity", c.c_char_p),
        ("identity_length", c.c_uint64),
        ("first_token", c.c_uint64),
        ("token_count", c.c_uint64),
    )


class GroupLayoutStruct(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        ("piece_count", c.c_uint32),
        ("piece_bytes", c.c_void_p),
        ("window_tokens", c.c_uint64),
        ("null_block", c.c_uint32),
        ("has_null_block", c.c_uint32),
    )


class OwnerOptionsStruct(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        ("block_tokens", c.c_uint32),
        ("rank_count", c.c_uint32),
        ("group_count", c.c_uint32),
        ("groups", c.POINTER(GroupLayoutStruct)),
        ("engine_id", c.c_char_p),
        ("settings_json", c.c_char_p),
        ("fingerprint", c.c_char_p),
        ("model_directory", c.c_char_p),
        ("can_store", c.c_uint32),
        ("can_load", c.c_uint32),
    )


class RequestOptionsStruct(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        ("flags", c.c_uint32),
        ("tokens", c.c_void_p),
        ("token_count", c.c_uint64),
        ("extra_keys", c.POINTER(ExtraKeyStruct)),
        ("extra_key_count", c.c_uint64),
        ("prompt_tokens", c.c_uint64),
        ("name", c.c_char_p),
        ("unkeyable", c.c_char_p),
    )


class HintsStruct(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        ("flags", c.c_uint32),
        ("session", c.c_char_p),
        ("session_length", c.c_uint64),
        ("return_ns", c.c_int64),
        ("priority", c.c_uint32),
        ("ignored", c.c_uint32),
    )


class EndingStruct(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        ("reason", c.c_uint32),
        ("answer_tokens", c.c_uint64),
    )


class ProgressStruct(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        ("reserved", c.c_uint32),
        ("request", c.c_uint64),
        ("computed_tokens", c.c_uint64),
        ("new_tokens", c.c_void_p),
        ("new_token_count", c.c_uint64),
        ("blocks", c.c_void_p),
        ("block_counts", c.c_void_p),
        ("aliases", c.c_void_p),
        ("alias_first", c.c_uint64),
        ("alias_count", c.c_uint64),
    )


class RegionStruct(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        ("reserved", c.c_uint32),
        ("address", c.c_void_p),
        ("block_stride", c.c_uint64),
        ("piece_bytes", c.c_uint64),
    )


class GroupRegionsStruct(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        ("region_count", c.c_uint32),
        ("regions", c.POINTER(RegionStruct)),
        ("block_count", c.c_uint64),
        ("null_block", c.c_uint32),
        ("has_null_block", c.c_uint32),
    )


class WorkerOptionsStruct(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        ("rank", c.c_uint32),
        ("rank_count", c.c_uint32),
        ("block_tokens", c.c_uint32),
        ("group_count", c.c_uint32),
        ("reserved", c.c_uint32),
        ("groups", c.POINTER(GroupRegionsStruct)),
        ("engine_id", c.c_char_p),
        ("settings_json", c.c_char_p),
    )


STRUCTS: dict[str, type[c.Structure]] = {
    "terrace_bytes": Bytes,
    "terrace_extra_key": ExtraKeyStruct,
    "terrace_group_layout": GroupLayoutStruct,
    "terrace_owner_options": OwnerOptionsStruct,
    "terrace_request_options": RequestOptionsStruct,
    "terrace_hints": HintsStruct,
    "terrace_progress": ProgressStruct,
    "terrace_ending": EndingStruct,
    "terrace_region": RegionStruct,
    "terrace_group_regions": GroupRegionsStruct,
    "terrace_worker_options": WorkerOptionsStruct,
}


@dataclass(frozen=True)
class Prototype:
    result: Any
    arguments: tuple[Any, ...]
    waits: bool = False  # Copies, waits or reads files: the interpreter lock is given away.


_HANDLE = c.c_void_p
_BUFFER = c.c_void_p  # Numbers of one kind, by address.
_U32, _U64, _I64, _CODE = c.c_uint32, c.c_uint64, c.c_int64, c.c_int
_TEXT = c.c_char_p
_BYTES = c.POINTER(Bytes)

FUNCTIONS: dict[str, Prototype] = {
    "terrace_abi_version": Prototype(_U32, ()),
    "terrace_version": Prototype(_TEXT, ()),
    "terrace_last_error": Prototype(_TEXT, ()),
    "terrace_hash_sequence": Prototype(
        _CODE, (_U32, _BUFFER, _U64, c.POINTER(ExtraKeyStruct), _U64, _BUFFER)
    ),
    "terrace_checksum_bytes": Prototype(_U64, (_BUFFER, _U64)),
    "terrace_digest_weights": Prototype(_CODE, (_TEXT, _BUFFER), waits=True),
    "terrace_open_owner": Prototype(
        _CODE, (c.POINTER(OwnerOptionsStruct), c.POINTER(_HANDLE)), waits=True
    ),
    "terrace_close_owner": Prototype(None, (_HANDLE, _I64), waits=True),
    "terrace_begin_request": Prototype(
        _CODE, (_HANDLE, c.POINTER(RequestOptionsStruct), c.POINTER(_U64))
    ),
    "terrace_hint_request": Prototype(_CODE, (_HANDLE, _U64, c.POINTER(HintsStruct))),
    "terrace_poll_request": Prototype(_CODE, (_HANDLE, _U64, _U64, _U64, c.POINTER(_U64))),
    "terrace_accept_load": Prototype(_CODE, (_HANDLE, _U64, _U64, _U64, _BUFFER, _BUFFER)),
    "terrace_advance_request": Prototype(_CODE, (_HANDLE, c.POINTER(ProgressStruct))),
    "terrace_build_orders": Prototype(_CODE, (_HANDLE, _BYTES)),
    "terrace_take_report": Prototype(_CODE, (_HANDLE, _TEXT, _U64)),
    "terrace_taint_steps": Prototype(_CODE, (_HANDLE,)),
    "terrace_end_request": Prototype(_CODE, (_HANDLE, _U64, _BYTES)),
    "terrace_finish_request": Prototype(_CODE, (_HANDLE, _U64, c.POINTER(EndingStruct), _BYTES)),
    "terrace_take_events": Prototype(_CODE, (_HANDLE, _BYTES)),
    "terrace_read_status": Prototype(_CODE, (_HANDLE, _BYTES)),
    "terrace_read_metrics": Prototype(_CODE, (_HANDLE, _BYTES)),
    "terrace_read_log": Prototype(_CODE, (_HANDLE, _BYTES)),
    "terrace_owner_event_fd": Prototype(c.c_int, (_HANDLE,)),
    "terrace_reset_owner": Prototype(_CODE, (_HANDLE,), waits=True),
    "terrace_open_worker": Prototype(
        _CODE, (c.POINTER(WorkerOptionsStruct), c.POINTER(_HANDLE)), waits=True
    ),
    "terrace_close_worker": Prototype(None, (_HANDLE, _I64), waits=True),
    "terrace_run_canary": Prototype(_CODE, (_HANDLE, _TEXT, _U64), waits=True),
    "terrace_run_loads": Prototype(
        _CODE, (_HANDLE, _TEXT, _U64, _BUFFER, _U64, c.POINTER(_U64)), waits=True
    ),
    "terrace_run_saves": Prototype(_CODE, (_HANDLE, _TEXT, _U64), waits=True),
    "terrace_build_report": Prototype(_CODE, (_HANDLE, _BYTES)),
    "terrace_read_worker_status": Prototype(_CODE, (_HANDLE, _BYTES)),
    "terrace_read_worker_log": Prototype(_CODE, (_HANDLE, _BYTES)),
}


class Native:
    """The library's functions by name, without the prefix `terrace_`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        keeping, giving = c.PyDLL(str(path)), c.CDLL(str(path))
        for name, prototype in FUNCTIONS.items():
            function = getattr(giving if prototype.waits else keeping, name)
            function.restype = prototype.result
            function.argtypes = prototype.arguments
            setattr(self, name.removeprefix("terrace_"), function)
        version = int(self.abi_version())
        if version != ABI_VERSION:
            raise TerraceError("load", Code.REFUSED, f"{path} has ABI {version}, not {ABI_VERSION}")

    def __getattr__(self, name: str) -> Any:  # For type checkers: the functions are set above.
        raise AttributeError(name)

    def check(self, function: str, code: int) -> None:
        if code != Code.OK:
            raise TerraceError(function, code, self.error_text())

    def error_text(self) -> str:
        text: bytes | None = self.last_error()
        return (text or b"").decode(errors="replace")

    def library_version(self) -> str:
        text: bytes = self.version()
        return text.decode()


def find_library() -> Path:
    """TERRACE_LIBRARY, else the copy inside the package.  Raises FileNotFoundError."""
    named = os.environ.get("TERRACE_LIBRARY", "")
    path = Path(named) if named else Path(__file__).parent / "lib" / "libterrace.so"
    if not path.is_file():
        where = "named by TERRACE_LIBRARY" if named else "in the installed package"
        raise FileNotFoundError(f"libterrace.so: no such file {where}: {path}")
    return path


@cache
def _load(path: Path) -> Native:
    return Native(path)


def load() -> Native:
    """The library, loaded once.  Raises FileNotFoundError, OSError or TerraceError."""
    return _load(find_library())
