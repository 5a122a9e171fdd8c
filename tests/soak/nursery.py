"""Servers forked from one process that has imported the engine: starts that cost three seconds."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import IO, cast

from tests.integration.vllm.harness import SHORTCUTS

import sessions
from demo.server import Server
from engine_env import engine_env

ENDED = -1  # How is not known: it is no child of this process.


class Forked:
    """A process of somebody else, watched as `subprocess.Popen` would watch it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.handle = os.pidfd_open(pid)

    def __del__(self) -> None:
        os.close(self.handle)

    def _has_ended(self, limit_ms: float | None) -> bool:
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        return bool(poll.poll(limit_ms))

    def poll(self) -> int | None:
        return ENDED if self._has_ended(0) else None

    def wait(self, timeout: float | None = None) -> int:
        if not self._has_ended(None if timeout is None else timeout * 1000):
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return ENDED


class Nursery:
    """The process that forks; ended by `close`."""

    def __init__(self, work: Path) -> None:
        work.mkdir(parents=True, exist_ok=True)
        program = Path(__file__).with_name("nursery_process.py")
        with (work / "nursery.txt").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(program)],
                env=engine_env(work, multiprocessing=True) | SHORTCUTS,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._asks = cast("IO[str]", self._process.stdin)
        self._answers = cast("IO[str]", self._process.stdout)
        self._answer("ready")

    def _answer(self, name: str) -> int:
        line = self._answers.readline()
        if not line:
            raise RuntimeError("the nursery ended; see nursery.txt")
        return int(json.loads(line)[name])

    def serve(self, command: list[str], env: dict[str, str], log: Path, port: int) -> Server:
        """Instead of `Server(…)`; `command` is that of the plain start."""
        arguments = command[command.index("-m") + 2 :]
        asked = {"arguments": arguments, "environment": env, "output": str(log)}
        server = Server.__new__(Server)
        server.port, server.log = port, log
        server._file = log.open("ab")
        with sessions.starting() as known:
            self._asks.write(json.dumps(asked) + "\n")
            self._asks.flush()
            process = self._answer("process")
            known.add(process)
        server.process = cast("subprocess.Popen[bytes]", Forked(process))
        return server

    def close(self) -> None:
        self._asks.close()
        self._process.wait(timeout=60)
        self._answers.close()
