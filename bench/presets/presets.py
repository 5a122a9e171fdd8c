"""`presets`: what each preset gains over the defaults, and what it costs.

Prompts of its purpose are replayed by `terrace simulate` at several sizes of host and disk, with
the defaults, with the preset, and with other settings that might have become one. Exact
counts and modelled times: the same figures on every machine.

    presets.py [NAME]... [--chat=FILE] [--agents=FILE] [--seed=N]...

Without a trace chats are made up; those of agents are left out. rag and batch are always made up,
as no open trace of theirs is at hand. Progress goes to standard error, one JSON line a result to
standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("python", ".")]

os.environ.setdefault("TERRACE_PROGRAM", str(ROOT / "build" / "release" / "bin" / "terrace"))

from bench.vllm.lines import emit  # noqa: E402

from terrace.cli import program  # noqa: E402

HOSTS, DISKS = ("1%", "2%", "5%"), ("10%", "30%")
# What else might have become the preset.
OTHERS = {
    "expected": ["--admission=expected"],
    "reuse": ["--admission=reuse"],
    "demote": ["--write=demote"],
    "prompt": ["--scope=prompt"],
    "reuse, prompt": ["--admission=reuse", "--scope=prompt"],
}
# Answers are not known apart there, so their scope changes nothing.
OF_CHATS = ("expected", "reuse", "demote")
KEPT = (
    "host_hit_percent",
    "disk_hit_percent",
    "disk_writes_per_100",
    "stores_per_100",
    "saved_prefill_seconds",
    "ttft_p99_seconds",
)


@dataclass(frozen=True)
class Workload:
    """What is replayed: `words` of `terrace simulate`, one `seed` at a time."""

    preset: str
    name: str
    words: tuple[str, ...]
    others: tuple[str, ...]
    seeds: tuple[int, ...]


def is_of_its_own(preset: str) -> bool:
    """False where a preset is the defaults."""
    done = subprocess.run(
        [program.find(), "config", "--explain", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    return any(preset in setting["presets"] for setting in json.loads(done.stdout))


def simulated(words: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(
        [program.find(), "simulate", *words, "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"presets: {done.stderr.strip()}")
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def hits(row: dict[str, Any]) -> float:
    return round(float(row["host_hit_percent"]) + float(row["disk_hit_percent"]), 2)


def cells(workload: Workload) -> Iterator[tuple[dict[str, Any], list[str]]]:
    for seed in workload.seeds:
        for disk in DISKS:
            for host in HOSTS:
                yield (
                    {"host": host, "disk": disk, "seed": seed},
                    [*workload.words, f"--host={host}", f"--disk={disk}", f"--seed={seed}"],
                )


def measure(workload: Workload) -> None:
    bundles = {name: OTHERS[name] for name in workload.others}
    if is_of_its_own(workload.preset):
        bundles = {workload.preset: [f"--preset={workload.preset}"], **bundles}
    for cell, words in cells(workload):
        usual = simulated(words)
        for name, said in bundles.items():
            row = simulated([*words, *said])
            params: dict[str, Any] = {"workload": workload.name, **cell, "settings": name}
            params |= {one: row[one] for one in KEPT}
            params |= {f"default_{one}": usual[one] for one in KEPT}
            emit(
                f"presets.{workload.preset}",
                params,
                "% of prompt blocks",
                [hits(row)],
                "defaults",
                [hits(usual)],
                "higher",
            )
        print(f"presets: {workload.name} {cell}", file=sys.stderr)


def workloads(asked: argparse.Namespace) -> list[Workload]:
    seeds = tuple(asked.seed or [1])
    listed = []
    if asked.chat:
        listed.append(Workload("chat", Path(asked.chat).name, (asked.chat,), OF_CHATS, (1,)))
    listed.append(Workload("chat", "made up", ("--scenario=chat",), OF_CHATS, seeds))
    words: tuple[str, ...] = ("--scenario=chat,scan",)
    listed.append(Workload("chat", "made up, scan", words, OF_CHATS, seeds))
    if asked.agents:
        words = (asked.agents, "--block-tokens=512")
        listed.append(Workload("agents", Path(asked.agents).name, words, OF_CHATS, (1,)))
    listed.append(Workload("rag", "made up", ("--scenario=rag",), tuple(OTHERS), seeds))
    # What the preset is already is not tried again.
    others = tuple(name for name in OTHERS if name != "reuse, prompt")
    listed.append(Workload("batch", "made up", ("--scenario=batch",), others, seeds))
    wanted = [f"presets.{name.removeprefix('presets.')}" for name in asked.names]
    return [one for one in listed if not wanted or f"presets.{one.preset}" in wanted]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", help="chat, agents, rag, batch; none = all")
    parser.add_argument("--chat", help="a trace of chats")
    parser.add_argument("--agents", help="a trace of agents")
    parser.add_argument("--seed", type=int, action="append")
    for workload in workloads(parser.parse_args()):
        measure(workload)
    return 0


if __name__ == "__main__":
    sys.exit(main())
