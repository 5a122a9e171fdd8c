"""./dev test: sets up, builds, runs every suite; the last line counts all tests together."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dev import build, campaign, counts, paths, plots, run, say, schemas, setup, venv
from dev.counts import Counts
from engine_env import program_environment

REPORTS = paths.BUILD / "reports"
SUITES = ("cpp", "python", "integration", "gpu")
GPU = Path("/dev/nvidiactl")
FOLDERS = {"python": ("python/tests", "tests/tools"), "integration": ("tests/integration",)}
NO_TESTS_COLLECTED = 5
# A real model, its KV memory, and a host tier.
ENGINE_MEMORY_KIB = 4_000_000
# Starts first what takes longest, so that the end is not one file alone.
LONGEST_FIRST = (
    *("test_page.py", "test_wheel.py", "test_soak.py", "test_demo_stack.py", "test_matrix.py"),
    *("test_truth.py", "test_server.py", "test_tiers.py"),
)
CTEST_ROW = re.compile(r"^\s*(?:\d+/\d+ Test\s+#|Start\s+\d+: )")


# Names of tests that take long, or ask for more than ./dev test makes; each is made of campaigns.
LONG = {"vllm-versions": ("vllm-0.30", "vllm-0.31", "engine"), "hybrid-real": ("hybrid-real",)}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev test",
        usage="./dev test [-h] [--only {cpp,python,integration,gpu}] [-k TEXT] [-- PYTEST…]",
        description="Every suite: C++ (ctest), Python, integration with the real engine, and C++ "
        "on a GPU where one is. What stands after -- are more arguments for pytest.",
        epilog="Long ones on request: " + "; ".join(f"./dev test {name}" for name in LONG),
    )
    parser.add_argument("--only", choices=SUITES, action="append", help="this suite alone")
    parser.add_argument("-k", metavar="TEXT", help="only tests whose name contains TEXT")
    own = list(arguments)
    more = own[own.index("--") + 1 :] if "--" in own else []
    options, unknown = parser.parse_known_args(own[: len(own) - len(more) - ("--" in own)])
    if unknown:
        raise say.Stop(
            f"test does not know {unknown[0]}",
            f"long ones are: {', '.join(LONG)}; suites are chosen by --only SUITE, tests by "
            "-k TEXT; arguments for pytest stand after --",
        )
    options.pytest = more
    return options


def failures(log: str) -> str:
    """The parts of ctest's log that belong to failed programs, without the tests that passed."""
    shown: list[str] = []
    is_failed = False
    for row in log.splitlines():
        if CTEST_ROW.match(row):
            is_failed = "***" in row
        passed = row.startswith(("[ RUN", "[       OK", "[----"))
        if is_failed and not passed and row.strip():
            shown.append(row)
    return "\n".join(shown)


def _cpp(name: str | None, on_gpu: bool = False) -> Counts:
    """The programs that ctest knows: those labelled `gpu`, or all others."""
    log = "ctest-gpu" if on_gpu else "ctest"
    report, gtest = REPORTS / f"{log}.xml", REPORTS / ("gtest-gpu" if on_gpu else "gtest")
    shutil.rmtree(gtest, ignore_errors=True)
    gtest.mkdir(parents=True)
    report.unlink(missing_ok=True)
    env = {"GTEST_OUTPUT": f"xml:{gtest}/", "GTEST_COLOR": "no", **program_environment()}
    if name is not None:
        env["GTEST_FILTER"] = f"*{name}*"
    command: list[str | Path] = ["ctest", "--test-dir", build.folder("release")]
    command += ["--output-on-failure", "--output-junit", report, "-j", str(build.jobs())]
    command += ["-L" if on_gpu else "-LE", "gpu"]
    failed = False
    try:
        run.stepped("C++ tests on the GPU" if on_gpu else "C++ tests", command, log, env=env)
    except say.Stop as stop:
        failed = True
        say.line(failures(run.log_path(log).read_text(errors="replace")))
        say.note(stop.cause)
    found = counts.ctest(report, gtest)
    if failed and not found.failed:
        found += Counts(failed=1)
    return found


def _pytest_file(path: Path, name: str | None, more: Sequence[str]) -> Counts:
    """One file in a process of its own; its output is shown in one piece, at its end."""
    name_of_report = "-".join(path.relative_to(paths.ROOT).with_suffix(".xml").parts)
    report = REPORTS / name_of_report
    report.unlink(missing_ok=True)
    command: list[str | Path] = [venv.python(), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"--junitxml={report}", f"--rootdir={paths.ROOT}", path]
    if name is not None:
        command += ["-k", name]
    began = time.monotonic()
    status, output = run.captured([*command, *more], env=program_environment())
    if status == NO_TESTS_COLLECTED and name is not None:
        return Counts()
    found = counts.junit(report)
    if status != 0 and not found.failed:
        found += Counts(failed=1)
    if found.failed:
        say.line(output)
    say.note(f"{paths.relative(path)}: {found} in {time.monotonic() - began:.1f} s")
    return found


def _side_by_side(suite: str, at_a_time: int, name: str | None, more: Sequence[str]) -> Counts:
    """Every test file below the suite's folders, so many at a time."""

    def rank(path: Path) -> tuple[int, str]:
        is_long = path.name in LONGEST_FIRST
        return (LONGEST_FIRST.index(path.name) if is_long else len(LONGEST_FIRST), str(path))

    found = (path for folder in FOLDERS[suite] for path in (paths.ROOT / folder).rglob("test_*.py"))
    files = sorted(found, key=rank)
    began = time.monotonic()
    say.note(f"{suite} tests: {len(files)} files, {at_a_time} at a time")
    with ThreadPoolExecutor(at_a_time) as pool:
        total = sum(pool.map(lambda path: _pytest_file(path, name, more), files), Counts())
    say.note(f"{suite} tests: {total} in {time.monotonic() - began:.1f} s")
    return total


def run_suites(chosen: Sequence[str], name: str | None, more: Sequence[str]) -> Counts:
    total = Counts()
    REPORTS.mkdir(parents=True, exist_ok=True)
    if "cpp" in chosen:
        total += _cpp(name)
    if "gpu" in chosen:
        total += _cpp(name, on_gpu=True)
    if "python" in chosen:
        total += _side_by_side("python", build.jobs(), name, more)
    if "integration" in chosen:
        # As many as memory carries, too.
        total += _side_by_side("integration", build.jobs(ENGINE_MEMORY_KIB), name, more)
    return total


def _long(name: str, more: Sequence[str]) -> int:
    return max(campaign.main([one, *more]) for one in LONG[name])


def main(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] in LONG:
        return _long(arguments[0], arguments[1:])
    options = parse(arguments)
    chosen = options.only or tuple(one for one in SUITES if one != "gpu" or GPU.exists())
    if not options.only and "gpu" not in chosen:
        say.note(f"no NVIDIA GPU here ({GPU} is missing): the tests that need one are left out")
    setup.require(engine=not set(chosen) <= {"cpp", "gpu"})
    if "python" in chosen:
        schemas.ensure()
        plots.ensure()
    build.build("release")
    total = run_suites(chosen, options.k, options.pytest)
    in_ci = os.environ.get("CI", "").lower() in ("1", "true", "yes")
    if total.skipped and in_ci:
        say.note(f"{total.skipped} skipped: in CI nothing may be skipped, so this run fails")
    if total.passed + total.failed == 0:
        say.note("no test ran")
    say.line(str(total))
    bad = total.failed > 0 or (in_ci and total.skipped > 0) or total.passed == 0
    return 1 if bad else 0
