"""./dev campaign fuzz: each libFuzzer target for --minutes 20, one after the other.

Set out from valid inputs, keep the corpus of earlier runs, and print one row a target: executions,
coverage, minutes, findings.  A finding's input lies in <build>/fuzz/findings.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import sessions

# A socket's input crosses threads: the longest of them that is known took a second under load.
INPUT_LIMIT_S = 90
MEMORY_LIMIT_MIB = 4096
LONGEST_INPUT = 16384


@dataclass(frozen=True)
class Outcome:
    """What one target did."""

    target: str
    executions: int
    coverage: int
    minutes: float
    findings: int

    def row(self) -> str:
        return (
            f"| {self.target} | {self.executions:,} | {self.coverage:,} "
            f"| {self.minutes:.1f} | {self.findings} |"
        )


def targets(build: Path) -> list[str]:
    return sorted(path.name.removeprefix("fuzz_") for path in (build / "fuzz").glob("fuzz_*"))


def outcome(target: str, log: str, minutes: float, status: int, findings: int) -> Outcome:
    """From libFuzzer's own words; a run that ended badly is a finding, whatever it left."""
    executions = re.findall(r"^stat::number_of_executed_units: (\d+)$", log, re.MULTILINE)
    executions = executions or re.findall(r"^#(\d+)\s", log, re.MULTILINE)
    coverage = re.findall(r" cov: (\d+) ", log)
    return Outcome(
        target,
        int(executions[-1]) if executions else 0,
        int(coverage[-1]) if coverage else 0,
        minutes,
        max(findings, 1 if status != 0 or not executions else 0),
    )


def run(build: Path, target: str, minutes: float) -> Outcome:
    fuzz = build / "fuzz"
    corpus, seeds, found = fuzz / "corpus" / target, fuzz / "seeds" / target, fuzz / "findings"
    for folder in (corpus, seeds, found):
        folder.mkdir(parents=True, exist_ok=True)
    before = set(found.glob(f"{target}-*"))
    command: list[str | Path] = [
        fuzz / f"fuzz_{target}",
        f"-max_total_time={round(minutes * 60)}",
        f"-timeout={INPUT_LIMIT_S}",
        f"-rss_limit_mb={MEMORY_LIMIT_MIB}",
        f"-max_len={LONGEST_INPUT}",
        "-print_final_stats=1",
        f"-artifact_prefix={found}/{target}-",
        corpus,
        seeds,
    ]
    log = fuzz / f"{target}.log"
    began = time.monotonic()
    with log.open("w") as file:
        status = subprocess.run(command, stdout=file, stderr=file, check=False).returncode
    took = (time.monotonic() - began) / 60
    new = set(found.glob(f"{target}-*")) - before
    text = log.read_text(errors="replace")
    result = outcome(target, text, took, status, len(new))
    if result.findings:
        print("\n".join(text.splitlines()[-60:]))
        print(f"{target}: see {log}, and {', '.join(map(str, sorted(new))) or 'its end'}")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev campaign fuzz", description=__doc__)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=float, default=20, help="for each target (20)")
    parser.add_argument("--target", action="append", help="this one only; may be repeated")
    options = parser.parse_args()
    known = targets(options.build)
    chosen = options.target or known
    unknown = set(chosen) - set(known)
    if unknown or not known:
        print(f"no target {', '.join(sorted(unknown)) or 'is built'}; known are {', '.join(known)}")
        return 2
    writer = options.build / "fuzz" / "write_seeds"
    subprocess.run([writer, options.build / "fuzz" / "seeds"], check=True)
    print("| target | executions | coverage (edges) | minutes | findings |")
    print("|---|---|---|---|---|", flush=True)
    findings = 0
    with sessions.interruptible():  # What ends this ends the target that runs.
        for target in chosen:
            result = run(options.build, target, options.minutes)
            findings += result.findings
            print(result.row(), flush=True)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
