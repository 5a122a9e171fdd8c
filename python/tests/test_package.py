"""Importing is cheap and starts nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

FORBIDDEN = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "vllm", "numpy", "transformers"):
            raise AssertionError(f"{name} was imported")
sys.meta_path.insert(0, Refuse())
"""


def run(program: str) -> str:
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {str(PACKAGE)!r})\n{program}",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_importing_needs_no_engine_and_no_library() -> None:
    run(
        FORBIDDEN
        + "import terrace, terrace.connectors.vllm, terrace._native\n"
        + "import terrace.connectors.vllm.scheduler, terrace.connectors.vllm.worker\n"
        + "assert 'libterrace' not in open('/proc/self/maps').read()\n"
    )


def test_importing_the_connector_starts_no_thread() -> None:
    program = "import os, terrace.connectors.vllm\nprint(len(os.listdir('/proc/self/task')))"
    assert run(program).strip() == "1"


def test_an_unknown_name_is_an_attribute_error() -> None:
    program = (
        "import terrace.connectors.vllm as m\n"
        "try: m.Other\n"
        "except AttributeError as error: print(error)\n"
    )
    assert "Other" in run(program)
