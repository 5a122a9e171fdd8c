"""The control: every turn with the answer of the engine without Terrace; made once, kept."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.integration.vllm.harness import SHORTCUTS
from tests.soak.conversations import Turn

from engine_env import engine_env

MOST_SET_ASIDE = 0.05  # Of all turns.
SOURCES = ("conversations.py", "control_process.py")


class NoControl(RuntimeError):
    """The engine alone did not answer, or does not repeat itself."""


def key(model: Path) -> str:
    """Of all that determines the answers, but for the engine, whose folder's name has a key."""
    digest = hashlib.sha256(f"{sys.executable}\n{os.environ.get('TERRACE_TEST_ENGINE')}".encode())
    digest.update((model / "config.json").read_bytes())
    for name in SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()[:12]


def _make(work: Path, model: Path, kept: Path) -> None:
    folder = work / "control"
    folder.mkdir(parents=True, exist_ok=True)
    asked, output = folder / "asked.json", folder / "output.txt"
    asked.write_text(json.dumps({"model": str(model)}))
    program = Path(__file__).with_name("control_process.py")
    with output.open("wb") as stream:
        ran = subprocess.run(
            [sys.executable, str(program), str(asked), str(kept)],
            env=engine_env(folder) | SHORTCUTS,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if ran.returncode != 0 or not kept.exists():
        tail = output.read_text(errors="replace")[-3000:]
        raise NoControl(f"the engine alone ended with {ran.returncode}\n{tail}")


def read(work: Path, model: Path) -> list[Turn]:
    """Every turn; raises NoControl where too many do not repeat themselves."""
    work.mkdir(parents=True, exist_ok=True)
    kept = work / f"book-{key(model)}.json"
    if not kept.exists():
        _make(work, model, kept)
    turns = [Turn(**one) for one in json.loads(kept.read_text())]
    check(turns)
    return turns


def check(turns: list[Turn]) -> None:
    aside = sum(not turn.is_steady for turn in turns)
    if aside >= MOST_SET_ASIDE * len(turns):
        raise NoControl(f"{aside} of {len(turns)} controls do not repeat themselves")
