"""Starts engines, one process each, and reads their answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sessions
from engine_env import engine_env, installed

ROOT = Path(__file__).parents[3]
LIMIT_S = 600.0
SHORTCUTS = {
    # Log-probabilities would be ranked by a kernel that each engine compiles anew: 20 CPU seconds.
    "TORCHDYNAMO_DISABLE": "1",
    # What vLLM finds out about a model class by starting a process: 6 CPU seconds.
    "VLLM_CACHE_ROOT": str(ROOT / "build" / "engine-cache"),
}
KILLED_ITSELF = -signal.SIGKILL


@dataclass
class EngineProcess:
    """A running scenario; ended by `wait` or `kill`, whichever comes first."""

    process: subprocess.Popen[bytes]
    answer: Path
    output: Path

    def wait(self, limit_s: float = LIMIT_S) -> int:
        try:
            return self.process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"engine still ran after {limit_s} s\n{self.tail()}") from None

    def kill(self) -> None:
        """The whole session, by its id: the engine's workers with it."""
        sessions.kill(self.process.pid)
        self.process.wait(timeout=30)

    def tail(self) -> str:
        return self.output.read_text(errors="replace")[-6000:]

    def read(self) -> Any:
        return json.loads(self.answer.read_text())


def start(
    work: Path,
    scenario: str,
    *,
    multiprocessing: bool = False,
    name: str = "",
    package: Path | None = None,
    settings_env: Mapping[str, str] | None = None,
    **arguments: Any,
) -> EngineProcess:
    """Starts `scenarios.<module>.<function>`, named `module.function`, with JSON arguments.

    `package`: the folder of an installed package, to be taken instead of this tree's.
    """
    folder = work / (name or scenario)
    folder.mkdir(parents=True, exist_ok=True)
    asked, answer = folder / "asked.json", folder / "answer.json"
    answer.unlink(missing_ok=True)
    asked.write_text(json.dumps(arguments, default=str))
    env = engine_env(folder, multiprocessing=multiprocessing)
    env |= SHORTCUTS
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env["PYTHONPATH"]])
    if os.environ.get("TERRACE_LIBRARY"):
        env["TERRACE_LIBRARY"] = os.environ["TERRACE_LIBRARY"]
    if package is not None:
        env["PYTHONPATH"] = env["PYTHONPATH"].replace(str(ROOT / "python"), str(package))
        del env["TERRACE_LIBRARY"]
    env |= settings_env or {}
    output = folder / "output.txt"
    with output.open("wb") as stream, sessions.starting() as known:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("engine_process.py"))]
            + [scenario, str(asked), str(answer)],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        known.add(process.pid)
    return EngineProcess(process, answer, output)


def run(work: Path, scenario: str, *, ends_by_kill: bool = False, **arguments: Any) -> Any:
    """Runs a scenario to its end and returns what it answered."""
    engine = start(work, scenario, **arguments)
    status = engine.wait()
    engine.kill()
    expected = KILLED_ITSELF if ends_by_kill else 0
    assert status == expected, f"engine ended with {status}\n{engine.tail()}"
    return engine.read()


def run_several(work: Path, parts: dict[str, tuple[str, dict[str, Any]]]) -> Any:
    """Several scenarios in one process; answers by name. Each has an engine of its own."""
    return run(work, "several.run", parts=parts)


def model(dtype: str) -> str:
    return str(installed()[f"model_{dtype}"])
