"""Chooses the verb."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence

from dev import say
from dev.verbs import MODULES, VERBS

PAGE = """\
Terrace: a tiered KV-cache store for LLM engines

  ./dev demo [--stay | --plan]  set up, build, run the real engine through every tier; --stay: leave
                                it running; --plan: only say what would be installed and needed
  ./dev demo --s3               two engines that share what they computed through an S3 server
  ./dev demo --stack            engine, Prometheus and page under a small load, to look around
  ./dev test [--only SUITE] [-k TEXT]
                                set up, build, run every test; SUITE: cpp, python, integration,
                                gpu (the last where a GPU is)
  ./dev test NAME               longer ones alone: vllm-versions, hybrid-real
  ./dev setup [--check]         install and make all that is needed; --check: the check tools too
  ./dev build [PRESET]          release (default), debug, asan, tsan, clang, fuzz
  ./dev check [NAME…]           format, clang-tidy, ruff, mypy, ladder and header rules, links
  ./dev fmt                     apply the formats
  ./dev bench [NAME…] [--json] [--short]
                                benchmarks whose name starts with NAME; --json: result lines only;
                                --short: fewer samples, where a benchmark can
  ./dev campaign [NAME ARGS…]   long runs outside the tests; alone it lists them
  ./dev matrix [--write]        what the last ./dev test proved of docs/support.md; --write: make it
  ./dev dashboards [--check]    make deploy/ and docs/alerts.md; --check: only say what is stale
  ./dev plots [--check]         draw docs/results/*.svg of the figures there; --check: the same
  ./dev ptx [--check]           make the CUDA kernels' PTX, by nvcc; --check: only say if stale
  ./dev terrace ARGS…           the command line program of this tree
  ./dev clean [--all]           remove build/; --all: everything put outside apt's reach as well

Logs lie in build/logs. What is dear to make (Python environment, model, compiler cache) lies in
$TERRACE_CACHE_DIR, else in terrace/ in the user's cache folder, and is shared by all clones.
"""


# They tell their own arguments, or hand them on.
EXPLAIN_THEMSELVES = frozenset({"demo", "test", "bench", "terrace"})


def page_of(verb: str) -> str:
    """The lines of PAGE about one verb."""
    lines: list[str] = []
    is_its = False
    for line in PAGE.splitlines():
        if not line.startswith("     "):
            is_its = re.match(rf"  \./dev {verb}\b", line) is not None
        if is_its:
            lines.append(line)
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("help", "--help", "-h"):
        print(PAGE, end="")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        say.error(say.Stop(f"there is no '{verb}'", f"known are: {', '.join(VERBS)}"))
        return 2
    module = importlib.import_module(MODULES[verb])
    if verb not in EXPLAIN_THEMSELVES and rest and rest[0] in ("--help", "-h"):
        print(page_of(verb), (module.__doc__ or "").strip(), sep="\n\n")
        return 0
    try:
        status: int = module.main(rest)
    except say.Stop as stop:
        say.error(stop)
        return 1
    except OSError as error:  # A full disk, a folder that went: no fault of the program's.
        say.error(say.Stop(f"{verb}: {error}", "put that right and run again"))
        return 1
    except KeyboardInterrupt:
        print("dev: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    return status
