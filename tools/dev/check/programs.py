"""Checks that other programs make: clang-format, clang-tidy, compilers, ruff, mypy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from dev import build, paths, run, venv
from dev.check import memo
from dev.check.finding import Finding
from dev.check.tree import Tree, is_test

GNU = re.compile(r"^(?P<path>[^:\s]+):(?P<line>\d+):(?:\d+:)? (?P<text>(?:\w+ )?\w+: .*)$")
HEADER_FLAGS = ("-std=c++23", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I.", "-Iinclude")
# What the build defines for tests.
TEST_FLAGS = (
    "-Itests",
    "-DTERRACE_SYNC_POINTS",
    '-DTERRACE_CLI="terrace"',
    '-DTERRACE_SOURCE_DIR="."',
    '-DTERRACE_ATTACH_WORKER="attach_worker"',
)
PYTHON_PLACES = ("tools", "python", "tests", "bench", "deploy")


def formatted(tree: Tree) -> list[str]:
    return tree.cpp()


def _relative(name: str) -> str:
    return paths.relative(Path(name)) if name.startswith("/") else name.removeprefix("./")


def findings(rule: str, output: str, path: str) -> list[Finding]:
    """The compiler-like lines of a program's output; the whole output if it has none."""
    found = []
    for row in output.splitlines():
        match = GNU.match(row)
        if match and not match["text"].startswith("note:"):
            found.append(Finding(_relative(match["path"]), int(match["line"]), rule, match["text"]))
    return found or [Finding(path, 1, rule, output.strip()[-1500:])]


def clang_format(tree: Tree) -> Iterator[Finding]:
    files = formatted(tree)
    for start in range(0, len(files), 100):
        some = files[start : start + 100]
        code, output = run.captured(["clang-format-19", "--dry-run", "--Werror", *some])
        if code == 0:
            continue
        bad = sorted(
            {_relative(row.split(":")[0]) for row in output.splitlines() if ": error:" in row}
        )
        if not bad:
            yield Finding(".clang-format", 1, "format", output.strip()[-1500:])
        for path in bad:
            yield Finding(path, 1, "format", "is not formatted; run ./dev fmt")


def compiled() -> list[str]:
    """The repository's sources that the release build compiles."""
    listed = json.loads((build.folder("release") / "compile_commands.json").read_text())
    return sorted({_relative(entry["file"]) for entry in listed})


def clang_tidy(tree: Tree) -> list[Finding]:
    """Every compiled source with the headers it includes; a file that passed is remembered."""
    build.configure("release")
    _, version = run.captured(["clang-tidy-19", "--version"])
    settings = tree.text(".clang-tidy") + tree.text("include/.clang-tidy") + version
    files = [path for path in compiled() if path in tree.files]
    items = [(path, memo.fingerprint(tree, path, settings)) for path in files]

    def work(path: str) -> list[Finding]:
        command = ["clang-tidy-19", "--quiet", "-p", str(build.folder("release"))]
        # What g++ does not know: which mutex guards what (base/mutex.h).
        command += ["--extra-arg=-Wthread-safety", "--extra-arg=-Wno-unknown-warning-option", path]
        if path.endswith(".c"):
            command.append("--checks=-readability-identifier-naming")  # C has names of its own
        elif is_test(path):
            # A test is to read well: it may allocate, and multiplies numbers that it chose.
            left_out = (
                "performance-inefficient-vector-operation",
                "bugprone-implicit-widening-of-multiplication-result",
            )
            command.append(f"--checks=-{',-'.join(left_out)}")
        code, output = run.captured(command)
        return findings("tidy", output, path) if code != 0 else []

    return memo.each("clang-tidy", items, work)


def headers(tree: Tree) -> list[Finding]:
    """Each header compiles alone; the public ones as C11 too."""
    _, version = run.captured(["g++", "--version"])
    items = []
    for path in tree.having(".h"):
        if path.startswith(("terrace/", "include/", "tests/")):
            items.append((path, memo.fingerprint(tree, path, version, *HEADER_FLAGS, *TEST_FLAGS)))

    def work(path: str) -> list[Finding]:
        own = TEST_FLAGS if is_test(path) else ()
        command = ["g++", *HEADER_FLAGS, *own, "-include", path, "-x", "c++", "/dev/null"]
        code, output = run.captured(command)
        if code == 0 and path.startswith("include/"):
            flags = ("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only")
            code, output = run.captured(
                ["gcc", *flags, "-Iinclude", "-include", path, "-x", "c", "/dev/null"]
            )
        return findings("header-alone", output, path) if code != 0 else []

    return memo.each("header-alone", items, work)


def python_places() -> list[str]:
    return [place for place in PYTHON_PLACES if any((paths.ROOT / place).rglob("*.py"))]


def ruff(_tree: Tree) -> Iterator[Finding]:
    program = venv.python().with_name("ruff")
    places = python_places()
    code, output = run.captured([program, "check", "--output-format=concise", *places])
    if code != 0:
        for row in output.splitlines():
            match = re.match(r"^(\S+?):(\d+):\d+: (.*)$", row)
            if match:
                yield Finding(match[1], int(match[2]), "ruff", match[3])
    code, output = run.captured([program, "format", "--check", *places])
    for row in output.splitlines():
        match = re.match(r"^Would reformat: (\S+)$", row)
        if match:
            yield Finding(match[1], 1, "ruff", "is not formatted; run ./dev fmt")


def mypy(_tree: Tree) -> Iterator[Finding]:
    python = venv.python()
    command: list[str | Path] = [python, "-m", "mypy", "--python-executable", python]
    command += python_places()
    code, output = run.captured(command)
    if code != 0:
        yield from findings("mypy", output, "mypy.ini")
