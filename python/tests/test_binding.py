"""The ctypes table is the header, name by name and byte by byte."""

from __future__ import annotations

import ctypes as c
import re
import subprocess
from array import array
from pathlib import Path
from typing import Any

import pytest

from terrace import _native
from terrace._native import Code
from tests.native_table import Table, make_owner, make_worker, tokens

HEADER = Path(__file__).resolve().parents[2] / "include" / "terrace" / "terrace.h"
TEXT = HEADER.read_text()


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)


def prototypes() -> dict[str, tuple[str, list[str]]]:
    found = {}
    for match in re.finditer(r"TERRACE_API\s+([^;(]+?)(\w+)\(([^;]*)\);", without_comments(TEXT)):
        result, name, parameters = match.groups()
        listed = [] if parameters.strip() == "void" else parameters.split(",")
        found[name] = (" ".join(result.split()), [" ".join(one.split()) for one in listed])
    return found


def comments() -> dict[str, str]:
    """The comment right before each function."""
    found = {}
    for match in re.finditer(r"(/\*(?:[^*]|\*(?!/))*\*/)\s*TERRACE_API[^(]*?(\w+)\(", TEXT):
        found[match.group(2)] = match.group(1)
    return found


def field_names(struct: type[c.Structure]) -> list[str]:
    return [field[0] for field in struct._fields_]


def header_fields(name: str) -> list[str]:
    body = re.search(rf"typedef struct {name} \{{(.*?)\}} {name};", without_comments(TEXT), re.S)
    assert body is not None, name
    return re.findall(r"(\w+)\s*;", body.group(1))


def ctypes_of(c_type: str) -> tuple[Any, ...]:
    """The ctypes that may stand for a C parameter or result."""
    plain = c_type.replace("const ", "").replace(" const", "").strip()
    numbers = {
        "uint32_t": (c.c_uint32,),
        "uint64_t": (c.c_uint64,),
        "terrace_request": (c.c_uint64,),
        "int64_t": (c.c_int64,),
        "int": (c.c_int,),
        "terrace_code": (c.c_int,),
        "void": (None,),
        "char*": (c.c_char_p, c.c_void_p),
        "uint8_t*": (c.c_char_p, c.c_void_p),
        "uint32_t*": (c.c_void_p,),
        "uint64_t*": (c.POINTER(c.c_uint64), c.c_void_p),
        "terrace_request*": (c.POINTER(c.c_uint64),),
        "uint32_t* *": (c.c_void_p,),
        "uint32_t**": (c.c_void_p,),
    }
    if plain in numbers:
        return numbers[plain]
    if plain in ("terrace_owner*", "terrace_worker*"):
        return (c.c_void_p,)
    if plain in ("terrace_owner**", "terrace_worker**"):
        return (c.POINTER(c.c_void_p),)
    return (c.POINTER(_native.STRUCTS[plain.removesuffix("*")]),)


def test_every_function_of_the_header_is_bound_and_no_other() -> None:
    assert set(prototypes()) == set(_native.FUNCTIONS)


@pytest.mark.parametrize("name", sorted(_native.FUNCTIONS))
def test_a_function_has_the_headers_result_and_parameters(name: str) -> None:
    result, parameters = prototypes()[name]
    bound = _native.FUNCTIONS[name]
    assert bound.result in ctypes_of(result)
    assert len(bound.arguments) == len(parameters)
    for given, declared in zip(bound.arguments, parameters, strict=True):
        c_type = re.sub(r"\s*\b\w+(\[\d+\])?$", lambda m: "*" if m.group(1) else "", declared)
        assert given in ctypes_of(c_type), declared


@pytest.mark.parametrize("name", sorted(_native.FUNCTIONS))
def test_the_interpreter_lock_is_given_away_exactly_where_a_call_can_take_long(name: str) -> None:
    said = comments().get(name, "")
    if "Never blocks" in said.replace("Never\n * blocks", "Never blocks"):
        assert not _native.FUNCTIONS[name].waits
    if re.search(r"BLOCKS|Copies", said):
        assert _native.FUNCTIONS[name].waits


@pytest.mark.parametrize("name", sorted(_native.FUNCTIONS))
def test_each_function_says_itself_which_threads_may_call_it(name: str) -> None:
    said = " ".join(comments().get(name, "").replace("*", " ").split())
    assert re.search(r"Thread-safe|thread-safe|Engine thread|per thread", said), said


def test_comments_name_only_what_the_header_declares() -> None:
    declared = set(re.findall(r"\bterrace_\w+", without_comments(TEXT)))
    said = set(re.findall(r"\bterrace_\w+", " ".join(re.findall(r"/\*.*?\*/", TEXT, re.DOTALL))))
    assert said
    assert not said - declared


def test_constants_equal_the_headers() -> None:
    defined = dict(re.findall(r"#define (TERRACE_\w+) (\d+)u", TEXT))
    assert int(defined.pop("TERRACE_ABI_VERSION")) == _native.ABI_VERSION
    for name, value in defined.items():
        assert getattr(_native, name.removeprefix("TERRACE_")) == int(value)
    codes = dict(re.findall(r"TERRACE_(\w+) = (\d+)", without_comments(TEXT)))
    assert {name: int(value) for name, value in codes.items()} == {
        code.name: code.value for code in Code
    }


def test_every_struct_of_the_header_is_bound_field_by_field() -> None:
    declared = set(re.findall(r"typedef struct (\w+) \{", without_comments(TEXT)))
    assert declared == set(_native.STRUCTS)
    for name, struct in _native.STRUCTS.items():
        assert field_names(struct) == header_fields(name)


def test_struct_sizes_and_offsets_equal_the_compilers(tmp_path: Path) -> None:
    lines = ["#include <stdio.h>", "#include <terrace/terrace.h>", "int main(void) {"]
    for name, struct in _native.STRUCTS.items():
        lines.append(f'  printf("{name} %zu\\n", sizeof({name}));')
        for field in field_names(struct):
            lines.append(f'  printf("{name}.{field} %zu\\n", offsetof({name}, {field}));')
    program = tmp_path / "sizes.c"
    program.write_text("\n".join([*lines, "  return 0;", "}", ""]))
    binary = tmp_path / "sizes"
    include = HEADER.parent.parent
    subprocess.run(["gcc", "-std=c11", f"-I{include}", str(program), "-o", str(binary)], check=True)
    printed = subprocess.run([str(binary)], check=True, capture_output=True, text=True).stdout
    compiled = dict(line.split() for line in printed.splitlines())
    bound = {}
    for name, struct in _native.STRUCTS.items():
        bound[name] = str(c.sizeof(struct))
        for field in field_names(struct):
            bound[f"{name}.{field}"] = str(getattr(struct, field).offset)
    assert bound == compiled


def test_tokens_tables_and_keys_arrive_as_given() -> None:
    table = Table()
    owner = make_owner(table)
    key = _native.ExtraKey(_native.ExtraKey.MULTIMODAL, b"a\0b", 3, 5)
    request = owner.begin_request(tokens(1, 2, 3, 4, 5), 2, [key], name="chatcmpl-\udc80é")
    table.external = [8]
    assert owner.poll_request(request, 4, 12) == 8
    owner.accept_load(request, 4, 8, [[7, 8, 9]])
    aliases = array("Q", [1 << 63, 2])
    owner.advance_request(request, 8, tokens(6, 7), [[7, 8]], aliases, 1)
    begun = table.named("begin_request")[0]
    assert begun["tokens"] == [1, 2, 3, 4, 5]
    assert begun["flags"] == 2
    assert begun["name"].decode() == "chatcmpl-?é"
    assert begun["keys"][0][0::2] == (3, 3)
    assert table.named("poll_request")[0] == {"request": request, "local": 4, "limit": 12}
    assert table.named("accept_load")[0]["tables"] == [[7, 8, 9]]
    advanced = table.named("advance_request")[0]
    assert advanced["tokens"] == [6, 7]
    assert advanced["tables"] == [[7, 8]]
    assert advanced["aliases"] == [1 << 63, 2]
    assert advanced["alias_first"] == 1


def test_a_code_becomes_an_error_that_carries_it() -> None:
    table = Table()
    owner = make_owner(table)
    table.codes["accept_load"] = Code.DEADLINE
    with pytest.raises(_native.TerraceError) as caught:
        owner.accept_load(1, 0, 4, [[1]])
    assert caught.value.code == Code.DEADLINE
    table.external = [None]
    assert owner.poll_request(1, 0, 4) is None


def test_more_failed_blocks_than_room_are_asked_for_again() -> None:
    table = Table()
    worker = make_worker(table)
    table.failed = list(range(1000))
    code, failed = worker.run_loads(b"orders")
    assert code == Code.OK
    assert failed == list(range(1000))
    assert [seen["capacity"] for seen in table.named("run_loads")] == [256, 1000]


def test_a_closed_owner_is_not_closed_twice() -> None:
    table = Table()
    owner = make_owner(table)
    owner.close(1)
    owner.close(1)
    assert table.count()["close_owner"] == 1


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TERRACE_LIBRARY", str(tmp_path / "absent.so"))
    with pytest.raises(FileNotFoundError, match=r"absent\.so"):
        _native.find_library()
