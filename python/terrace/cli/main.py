"""The `terrace` command: what needs Python is done here, the rest by the native program.

Exit codes as the native program's: 0 = done; 1 = failed, or something is wrong with what was asked
about; 2 = the command line was not understood.
"""

from __future__ import annotations

import difflib
import importlib
import os
import subprocess
import sys
from collections.abc import Sequence

from terrace.cli import program

FAILED = 1
MISUSED = 2
# Name -> module with `main(arguments) -> int`, and what `terrace --help` says about it.
OWN = {
    "serve": ("terrace.cli.serve", "Start an engine with Terrace below its KV cache."),
    "selftest": ("terrace.cli.selftest", "Prove hits, restart and damage on your own engine."),
    "doctor": ("terrace.doctor", "Say what is installed, what fits, and what stands in the way."),
    "migrate-config": ("terrace.cli.migrate", "Print Terrace's settings for those of another."),
}


def _help() -> int:
    code = subprocess.run([program.find(), "--help"], check=False).returncode
    print("\nOf the Python package:")
    for name, (_, text) in OWN.items():
        print(f"  {name:<26}{text}")
    return code


def _meant(name: str) -> str:
    """Which of the package's own commands this may have been; the native program tells its own."""
    begun = [own for own in OWN if len(name) > 2 and own.startswith(name)]
    near = begun or difflib.get_close_matches(name, OWN, n=1, cutoff=0.75)
    return near[0] if near else ""


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in OWN:
        own = importlib.import_module(OWN[given[0]][0])
        code: int = own.main(given[1:])
        return code
    if given and (meant := _meant(given[0])):
        print(
            f"terrace: there is no sub-command {given[0]!r}; did you mean {meant}?", file=sys.stderr
        )
        return MISUSED
    try:
        if not given:
            _help()
            return MISUSED
        if given in (["--help"], ["-h"]):
            return _help()
        path = program.find()
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return FAILED
    os.execv(path, [str(path), *given])
    raise AssertionError("execv came back")
