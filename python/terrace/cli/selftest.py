"""`terrace selftest --model M [engine flags]`: does a hit change nothing, on your engine and model?

Four engines run one after the other, each ended by kill -9: one without Terrace; one that stores
and hits out of host memory; one that hits on disk after the restart; one over a disk of which a
byte was flipped.  Nothing of it is kept but the report.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import terrace
from terrace import _native
from terrace.cli import damage
from terrace.cli.selftest_engine import CORRUPT, DISK, HOST

LIMIT_S = 240.0  # For one engine, its start included.
PAYLOAD_AT = 4096
Answers = list[dict[str, Any]]


class StepError(Exception):
    """An engine did not end as it should; the text says which, and where its output is."""


@dataclass
class Report:
    model: str
    flags: list[str]
    checks: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)

    def check(self, name: str, passed: bool, detail: str) -> None:
        self.checks.append({"name": name, "passed": passed, "detail": detail})
        print(f"  {'ok  ' if passed else 'FAIL'} {name}: {detail}", flush=True)

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check["passed"] for check in self.checks)

    def as_json(self, seconds: float) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "terrace": terrace.__version__,
            "library": _native.load().library_version(),
            "model": self.model,
            "flags": self.flags,
            "engine": self.facts,
            "checks": self.checks,
            "ratios": self.ratios,
            "seconds": round(seconds, 1),
        }


def run_step(work: Path, step: str, flags: list[str]) -> dict[str, Any]:
    """One engine.  Raises StepError."""
    asked, answer, output = (work / f"{step}.{end}" for end in ("asked", "answer", "txt"))
    asked.write_text(json.dumps({"flags": flags, "disk": str(work / "disk")}))
    command = [sys.executable, "-m", "terrace.cli.selftest_engine", step, str(asked), str(answer)]
    env = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    with output.open("wb") as stream:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            raise StepError(
                f"{step}: still ran after {LIMIT_S:.0f} s; its output: {output}"
            ) from None
        finally:
            _end(process)
    if not answer.is_file():
        tail = output.read_text(errors="replace").strip().splitlines()[-1:]
        raise StepError(
            f"{step}: the engine ended without an answer ({tail}); its output: {output}"
        )
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _equal(report: Report, name: str, found: Answers, like: Answers, is_exact: bool) -> None:
    same = [one["tokens"] == other["tokens"] for one, other in zip(found, like, strict=True)]
    bits = [one["logprobs"] == other["logprobs"] for one, other in zip(found, like, strict=True)]
    passed = all(same) and (all(bits) or not is_exact)
    detail = f"{sum(same)} of {len(same)} answers equal, {sum(bits)} bit for bit"
    report.check(name, passed, detail)


def _served(report: Report, name: str, found: Answers, counter: str, wanted: list[int]) -> None:
    served = [int(one["grown"].get(counter, 0)) for one in found]
    report.check(name, served == wanted, f"{served} tokens served of {wanted}")


def _bytes(report: Report, pairs: list[Any]) -> None:
    compared = equal = 0
    for before, after in pairs:
        for stored, loaded in zip(before, after, strict=True):
            both = [p for p in zip(stored, loaded, strict=True) if None not in p]
            compared += len(both)
            equal += sum(one == other for one, other in both)
    passed = compared > 0 and equal == compared
    report.check("bytes", passed, f"{equal} of {compared} blocks equal after a hit")


def _best(answers: Answers) -> float:
    """Seconds of the fastest: the first ones warm the engine up."""
    return min(float(one["seconds"]) for one in answers)


def _flip(disk: Path, block_tokens: int, prompt: list[int]) -> None:
    """One byte of the first block of a prompt."""
    first = _native.hash_sequence(block_tokens, array("I", prompt[:block_tokens]))[0]
    path, offset = damage.find_frame(disk, first)
    damage.flip_byte(path, offset + PAYLOAD_AT + 77)


def run(report: Report, work: Path) -> None:
    (work / "disk").mkdir()
    flags = ["--model", report.model, *report.flags]
    print("1/4 the engine without Terrace", flush=True)
    own = run_step(work, "own", flags)
    report.facts = own["facts"]
    exact = all(
        one["logprobs"] == other["logprobs"]
        for one, other in zip(own["local"], own["again"], strict=True)
    )
    text = "bit for bit" if exact else "not bit for bit: tokens are compared alone"
    report.check("control", True, f"the engine repeats its own hits {text}")
    print("2/4 storing, and hits out of host memory", flush=True)
    stored = run_step(work, "store", flags)
    if stored.get("refused"):
        report.check("served", False, f"Terrace stands aside; why: {work / 'store.txt'}")
        return
    size = int(stored["facts"]["block_tokens"])
    print("3/4 hits on disk, after kill -9", flush=True)
    after = run_step(work, "restart", flags)
    hits = [(len(prompt) - 1) // size * size for prompt in after["prompts"]]
    report.check("canary", stored["status"]["ready"], "a pattern went the whole way and came back")
    report.check(
        "capacity",
        stored["facts"]["blocks"] == own["facts"]["blocks"],
        f"{stored['facts']['blocks']} blocks with Terrace, {own['facts']['blocks']} without",
    )
    _bytes(report, stored["bytes"])
    _served(report, "host served", stored["host"], HOST, hits)
    _equal(report, "host hit = own hit", stored["host"], own["local"], exact)
    _served(report, "disk served", after["disk"], DISK, hits)
    _equal(report, "disk hit = own hit", after["disk"], own["local"], exact)
    print("4/4 one byte flipped on disk", flush=True)
    _flip(work / "disk", size, after["prompts"][0])
    flipped = run_step(work, "flipped", flags)["disk"]
    counted = sum(one["grown"].get(CORRUPT, 0) for one in flipped)
    report.check("damage counted", counted == 1, f"{counted:.0f} corrupt block counted")
    _served(report, "damage not served", flipped, DISK, [0, *hits[1:]])
    _equal(report, "answer after damage", flipped[:1], own["cold"][:1], False)
    local = _best(own["local"])
    report.ratios = {
        "cold_to_own_hit": round(_best(own["cold"]) / local, 3),
        "host_hit_to_own_hit": round(_best(stored["host"]) / local, 3),
        "disk_hit_to_own_hit": round(_best(after["disk"]) / local, 3),
    }


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="terrace selftest",
        description=__doc__,
        epilog="Whatever else is given goes to the engine, as --dtype bfloat16.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, help="folder or name, as the engine takes it")
    parser.add_argument("--report", default="terrace-selftest.json", help="where the JSON goes")
    parser.add_argument(
        "--work", help="folder for the disk tier of the test; default: a temporary one"
    )
    parser.add_argument("--keep", action="store_true", help="leave the work folder with all output")
    options, flags = parser.parse_known_args(list(arguments))
    return options, [flag for flag in flags if flag != "--"]


def _unusable(options: argparse.Namespace) -> str:
    """What would fail only after minutes, or as a traceback; "" = nothing."""
    if options.work is not None and not os.access(options.work, os.W_OK | os.X_OK):
        return f"--work {options.work}: is no folder that you may write to"
    report = Path(options.report)
    place = report if report.exists() else report.parent
    if report.is_dir() or not os.access(place, os.W_OK):
        return f"--report {report}: cannot be written"
    return ""


def main(arguments: Sequence[str]) -> int:
    options, flags = _parse(arguments)
    if problem := _unusable(options):
        print(f"terrace selftest: {problem}", file=sys.stderr)
        return 1
    if importlib.util.find_spec("vllm") is None:
        print(f"terrace selftest: vLLM is not installed for {sys.executable}", file=sys.stderr)
        return 1
    report = Report(options.model, flags)
    begun = time.monotonic()
    keeps = options.keep
    work = Path(tempfile.mkdtemp(prefix="terrace-selftest-", dir=options.work))
    try:
        run(report, work)
    except (StepError, LookupError, FileNotFoundError) as error:
        keeps = True
        report.check("engine", False, str(error))
    except KeyboardInterrupt:
        print("terrace selftest: interrupted", file=sys.stderr)
        return 130
    finally:
        if not keeps:
            shutil.rmtree(work, ignore_errors=True)
    text = json.dumps(report.as_json(time.monotonic() - begun), indent=1)
    Path(options.report).write_text(text + "\n")
    for name, ratio in report.ratios.items():
        print(f"  {name}: {ratio}")
    print(f"{'passed' if report.passed else 'FAILED'}; written to {options.report}")
    return 0 if report.passed else 1
