"""./dev matrix: what the last ./dev test proved; --write makes docs/support.md.

The page is made of tests/matrix.toml and of the tests that there are; a test fails when it is
stale.
"""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as Xml
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev import paths, run, say, venv
from engine_env import program_environment

TABLE = paths.ROOT / "tests" / "matrix.toml"
PAGE = paths.ROOT / "docs" / "support.md"
REPORTS = paths.BUILD / "reports"
# Where the tests of a proof's first part lie, and what runs them.
PLACES = {
    "vllm": (paths.ROOT / "tests" / "integration" / "vllm", "real engine"),
    "s3": (paths.ROOT / "tests" / "integration" / "s3", "real S3 server"),
    "python": (paths.ROOT / "python" / "tests", "Python tests"),
    "cpp": (paths.ROOT, "C++ tests"),
}
STATES = ("served", "works", "not cached", "passed through", "unknown", "not built")
# What a row without tests may say instead.
NEVER = ("never run", "compiled, never run", "validated, never run")
CPP_TEST = re.compile(r"^TEST(?:_[FP])?\(\s*(\w+),\s*(\w+)\)", re.MULTILINE)
HEAD = """# What is supported

Made by `./dev matrix --write` from `tests/matrix.toml` and the tests that there are; a test fails
when this page is stale. The last column counts a row's tests. `./dev test` runs them all, on vLLM
0.32.0 (CPU build) where they need an engine, but for those of a campaign, which is run by hand:
[campaigns.md](results/campaigns.md) says when it was, and with how many tests at that time.
`./dev matrix` says which of all these the last `./dev test` did not pass.

- *Served*: hits are loaded and equal the engine's own. *Not cached*: the request runs as without
  Terrace, and is counted. *Passed through*: the engine does, and its log says why. *Works*: for
  what serves no requests. *Unknown*: nobody has tried.
- *Real engine*: with a real model, or a small random one. *Never run*: not by anybody who wrote
  this. *Compiled*, *validated*: all that was done with it.
"""


@dataclass(frozen=True)
class Row:
    subject: str
    state: str
    proof: tuple[str, ...] = ()
    without: tuple[str, ...] = ()  # Of the proof.
    campaign: str = ""  # Runs the proof instead of ./dev test.
    never: str = ""  # One of NEVER, of a row without proof or beside it.
    table: str = ""

    def has(self, test: str) -> bool:
        return any(matches(proof, test) for proof in self.proof) and not any(
            matches(proof, test) for proof in self.without
        )

    def run_by(self) -> str:
        if self.campaign:
            return f"campaign `{self.campaign}`"
        places = {proof.partition("/")[0] for proof in self.proof}
        told = [text for name, (_, text) in PLACES.items() if name in places]
        return ", ".join([*told, *([self.never] if self.never else [])]) or "–"


def matches(proof: str, test: str) -> bool:
    """`proof` is the beginning of a test's name; a star in it stands for anything."""
    pattern = ".*".join(re.escape(part) for part in proof.split("*"))
    # Not test_xy for test_x; but test_x[…], and a file's or a folder's tests.
    end = r"(?![A-Za-z0-9_])" if proof[-1].isalnum() or proof[-1] == "_" else ""
    return re.match(pattern + end, test) is not None


def rows(table: Path = TABLE) -> list[Row]:
    found = []
    for part in tomllib.loads(table.read_text())["table"]:
        for row in part["row"]:
            proof, without = tuple(row.pop("proof", ())), tuple(row.pop("without", ()))
            found.append(Row(**row, proof=proof, without=without, table=part["title"]))
    return found


def problems(row: Row, campaigns: Iterable[str]) -> list[str]:
    """What is wrong with a row, apart from its tests."""
    found = []
    if row.state not in STATES:
        found.append(f"{row.state} is none of {', '.join(STATES)}")
    if row.never and row.never not in NEVER:
        found.append(f"{row.never} is none of {', '.join(NEVER)}")
    if row.campaign and row.campaign not in campaigns:
        found.append(f"there is no campaign {row.campaign}")
    if not row.proof and not row.never and row.state != "not built":
        found.append("it names neither proof nor that it was never run")
    found += [
        f"{proof} begins with none of {', '.join(PLACES)}"
        for proof in row.proof
        if proof.partition("/")[0] not in PLACES
    ]
    return [f"{row.subject}: {text}" for text in found]


def _collected(place: str, files: Iterable[str]) -> list[str]:
    """The cases of pytest in these files of a place, '' being all; nothing is run."""
    folder, _ = PLACES[place]
    asked = [folder / name if name else folder for name in sorted(files)]
    command: list[str | Path] = [venv.python(), "-m", "pytest", "--collect-only", "-q"]
    command += ["-p", "no:cacheprovider", f"--rootdir={paths.ROOT}"]
    code, output = run.captured([*command, *asked], env=program_environment())
    if code != 0:
        say.line(output)
        raise say.Stop(f"pytest cannot collect the tests of {paths.relative(folder)}")
    begin = f"{folder.relative_to(paths.ROOT)}/"
    rows = (row for row in output.splitlines() if row.startswith(begin) and "::" in row)
    return [f"{place}/{row.removeprefix(begin)}" for row in rows]


def tests(listed: Sequence[Row]) -> list[str]:
    """PLACE/FILE::TEST[…] of all tests in the places and files that the rows name."""
    named: dict[str, set[str]] = {place: set() for place in PLACES}
    for row in listed:
        for proof in row.proof:
            place, _, rest = proof.partition("/")
            named[place].add(rest.partition("::")[0])
    found = []
    for name in sorted(named.pop("cpp")):
        text = (paths.ROOT / name).read_text()
        found += [f"cpp/{name}::{suite}.{test}" for suite, test in CPP_TEST.findall(text)]
    for place, files in named.items():
        if files:
            found += _collected(place, {""} if "" in files else files)
    return found


def page(listed: Sequence[Row], known: Sequence[str]) -> str:
    text, title = HEAD, ""
    for row in listed:
        if row.table != title:
            title = row.table
            text += f"\n## {title}\n| | state | run by | tests |\n|---|---|---|---|\n"
        count = sum(row.has(test) for test in known)
        text += f"| {row.subject} | {row.state} | {row.run_by()} | {count or '–'} |\n"
    return text


def _cpp_file(told: str) -> str:
    """A test's file as gtest tells it: whole, or as the compiler in the build folder saw it."""
    path = (paths.BUILD / "release" / told).resolve()
    return str(path.relative_to(paths.ROOT)) if path.is_relative_to(paths.ROOT) else path.name


def results(reports: Iterable[Path]) -> dict[str, bool]:
    """PLACE/FILE::TEST[…] -> passed, of junit reports."""
    found: dict[str, bool] = {}
    for report in reports:
        for case in Xml.parse(report).iter("testcase"):
            is_bad = any(case.find(tag) is not None for tag in ("failure", "error", "skipped"))
            parts, name = case.get("classname", "").split("."), case.get("name")
            folder = "python" if parts[:1] == ["python"] else parts[-2] if len(parts) > 1 else ""
            told = f"{folder}/{parts[-1]}.py::{name}"
            if file := case.get("file"):
                told = f"cpp/{_cpp_file(file)}::{case.get('classname')}.{name}"
            found[told] = not is_bad
    return found


def judge(row: Row, found: dict[str, bool]) -> tuple[int, list[str]]:
    """How many of its tests passed, and what keeps the row from standing."""
    own = {name: passed for name, passed in found.items() if row.has(name)}
    bad = [f"{name} did not pass" for name, passed in own.items() if not passed]
    bad += [
        f"{proof} was not run"
        for proof in row.proof
        if not any(matches(proof, name) for name in own)
    ]
    return sum(own.values()), bad


def main(arguments: Sequence[str]) -> int:
    unknown = [word for word in arguments if word != "--write"]
    if unknown:
        raise say.Stop(f"matrix does not know {unknown[0]}", "it takes --write or nothing")
    listed = rows()
    if "--write" in arguments:
        PAGE.write_text(page(listed, tests(listed)))
        say.note(f"wrote {paths.relative(PAGE)}")
        return 0
    reports = [*REPORTS.glob("*.xml"), *REPORTS.glob("gtest/*.xml")]
    found = results(sorted(path for path in reports if not path.name.startswith("ctest")))
    bad = 0
    for row in listed:
        if row.campaign or not row.proof:
            continue
        count, wrong = judge(row, found)
        bad += bool(wrong)
        for text in wrong:
            say.note(f"{row.subject}: {text}")
        say.line(f"{count:5} passed  {row.subject}")
    if bad:
        say.line(f"{bad} rows are not proven; run ./dev test first")
    return 1 if bad else 0
