"""./dev bench: runs the benchmarks that bench/bench.toml lists.

Each entry is a table [[bench]] with `name` and either `program` (a path below build/release) or
`python` (a path below the repository), and optionally `args` and `engine = true` if it starts an
engine; `short = true` if it knows `--short`, a run of a few minutes that shows the shape and little
else; `peers = true` if it needs the packages of requirements/peers.txt, which are brought on
request alone: such a one runs only when it is named.  A benchmark prints JSON lines (conventions
section 7) on standard output, anything for people on standard error.  The names asked for are
passed on as arguments, so that `vllm-ttft.host` can leave out the rest of `vllm-ttft`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dev import build, paths, peers, run, say, setup, venv
from engine_env import program_environment

TABLE = paths.ROOT / "bench" / "bench.toml"
RESULTS = paths.BUILD / "bench"


@dataclass(frozen=True)
class Bench:
    name: str
    program: str = ""
    python: str = ""
    engine: bool = False
    short: bool = False
    peers: bool = False
    args: list[str] = field(default_factory=list)

    def command(self, names: Sequence[str]) -> list[str | Path]:
        if self.program:
            return [build.folder("release") / self.program, *self.args, *names]
        return [venv.python(), paths.ROOT / self.python, *self.args, *names]


def read(table: Path = TABLE) -> list[Bench]:
    if not table.exists():
        raise say.Stop(f"{paths.relative(table)} is not there", "it lists the benchmarks")
    listed = [Bench(**entry) for entry in tomllib.loads(table.read_text())["bench"]]
    for bench in listed:
        if bool(bench.program) == bool(bench.python):
            raise say.Stop(f"bench.toml: {bench.name} needs either program or python")
    return listed


def asked(bench: Bench, names: Sequence[str]) -> list[str]:
    """The asked names that this benchmark answers: prefixes of its name, or parts below it."""
    return [name for name in names if bench.name.startswith(name) or name.startswith(bench.name)]


def chosen(listed: Sequence[Bench], names: Sequence[str]) -> list[Bench]:
    """Those asked for; a name below two entries, `x` and `x.y`, is the longer one's alone."""

    def is_answered_closer(bench: Bench, name: str) -> bool:
        return any(
            len(other.name) > len(bench.name)
            and (name == other.name or name.startswith(f"{other.name}."))
            for other in listed
        )

    return [
        bench
        for bench in listed
        if (not names and not bench.peers)
        or any(not is_answered_closer(bench, name) for name in asked(bench, names))
    ]


def is_wanted(row: str, names: Sequence[str]) -> bool:
    if not row.startswith("{"):
        return False
    try:
        name = str(json.loads(row)["name"])
    except (ValueError, KeyError):
        return False
    return not names or any(name.startswith(wanted) for wanted in names)


def summary(row: str) -> str:
    """A result in a line for people."""
    result = json.loads(row)
    params = " ".join(f"{key}={value}" for key, value in result.get("params", {}).items())
    text = f"{result['name']} {params}: {result['value']:.4g} {result['unit']}"
    if result.get("ratio") is not None:
        text += f"  ({result['ratio']:.3f} of {result.get('limit_name', 'limit')})"
    return text


def words(bench: Bench, names: Sequence[str], is_short: bool) -> list[str]:
    """What it is told: the names below its own, and to be short if it can."""
    own = [name for name in asked(bench, names) if name.startswith(f"{bench.name}.")]
    return [*own, *(["--short"] if is_short and bench.short else [])]


def _run(bench: Bench, names: Sequence[str], as_json: bool, is_short: bool) -> bool:
    """Runs one benchmark; keeps its lines in build/bench/<name>.json."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [str(part) for part in bench.command(words(bench, names, is_short))],
        cwd=paths.ROOT,
        env=run.environment(
            {**program_environment(), **(peers.environment() if bench.peers else {})}
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with (RESULTS / f"{bench.name}.json").open("w") as kept:
        for raw in process.stdout:
            row = raw.rstrip("\n")
            if is_wanted(row, names):
                kept.write(row + "\n")
                print(row if as_json else summary(row), flush=True)
            elif not as_json and not row.startswith("{"):
                print(row, flush=True)
    if process.wait() != 0:
        print(f"dev: bench {bench.name} ended with {process.returncode}", file=sys.stderr)
    return process.returncode == 0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="prefixes of result names")
    parser.add_argument("--json", action="store_true", help="print the JSON lines alone")
    parser.add_argument("--short", action="store_true", help="fewer samples, where it can")
    options = parser.parse_args(arguments)
    listed = read()
    wanted = chosen(listed, options.names)
    if not wanted:
        known = ", ".join(bench.name for bench in listed)
        raise say.Stop(f"no benchmark is called {' '.join(options.names)}", f"known are: {known}")
    with say.on_stderr(options.json):
        groups = (*setup.ENGINE, "bench")
        setup.require(groups, engine=any(bench.engine for bench in wanted))
        build.build("release")
    outcomes = [_run(bench, options.names, options.json, options.short) for bench in wanted]
    return 0 if all(outcomes) else 1
