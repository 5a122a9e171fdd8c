"""Runs other programs: their output goes to a log file, its tail is shown when they fail."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import sessions
from dev import paths, say

TAIL_LINES = 40
INTERRUPTED_LIMIT_S = 60.0


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with `extra` on top.

    The system's own folders come first on PATH, so that every machine runs apt's compilers, cmake
    and ninja, whatever version managers stand before them in a person's shell.
    """
    path = "/usr/bin:/bin:" + os.environ.get("PATH", "/usr/sbin:/sbin")
    return {**os.environ, "PATH": path, **(extra or {})}


def log_path(log: str) -> Path:
    return paths.LOGS / f"{log}.log"


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """The end of a log; of a build's log the part that belongs to the first failure."""
    text = path.read_text(errors="replace").splitlines()
    failed = [index for index, row in enumerate(text) if row.startswith("FAILED: ")]
    begin = failed[0] if failed else max(0, len(text) - lines)
    return "\n".join(text[begin : begin + lines])


def logged(
    command: Sequence[str | Path],
    log: str,
    *,
    cwd: Path = paths.ROOT,
    env: Mapping[str, str] | None = None,
    way_out: str = "",
    what: str = "",
) -> None:
    """Runs `command` with output in build/logs/<log>.log; stops with the log's tail if it fails.

    `what` says in words what failed then; without it the program's name does.
    """
    paths.LOGS.mkdir(parents=True, exist_ok=True)
    path = log_path(log)
    with path.open("w") as sink:
        sink.write("$ " + " ".join(str(part) for part in command) + "\n")
        sink.flush()
        try:
            done = subprocess.run(
                [str(part) for part in command],
                cwd=cwd,
                env=environment(env),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                check=False,
            )
        except FileNotFoundError as error:
            raise say.Stop(f"{command[0]} is not installed ({error})", "run ./dev setup") from error
    if done.returncode != 0:
        say.line(tail(path))
        name = what or Path(str(command[0])).name
        raise say.Stop(
            f"{name}: failed with exit status {done.returncode}; "
            f"whole output: {paths.relative(path)}",
            way_out,
        )


def stepped(
    text: str,
    command: Sequence[str | Path],
    log: str,
    *,
    env: Mapping[str, str] | None = None,
    way_out: str = "",
) -> None:
    """`logged` as a phase of its own, with the log's newest line as the sign of life."""
    with say.phase(text, log_path(log)):
        logged(command, log, env=env, way_out=way_out, what=text)


def shown(
    command: Sequence[str | Path],
    *,
    cwd: Path = paths.ROOT,
    env: Mapping[str, str] | None = None,
) -> int:
    """Runs `command` on this terminal and returns its exit status.

    Ctrl-C reaches the command too, `kill` is handed on; it gets time to end what it started.
    """
    with sessions.interruptible():
        return _shown([str(part) for part in command], cwd, environment(env))


def _shown(command: list[str], cwd: Path, env: dict[str, str]) -> int:
    try:
        process = subprocess.Popen(command, cwd=cwd, env=env)
    except FileNotFoundError as error:
        raise say.Stop(f"{command[0]} is not installed ({error})", "run ./dev setup") from error
    try:
        return process.wait()
    except KeyboardInterrupt as interrupt:
        if interrupt.args and interrupt.args[0] != signal.SIGINT:
            process.terminate()
        try:
            process.wait(timeout=INTERRUPTED_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def captured(
    command: Sequence[str | Path],
    *,
    cwd: Path = paths.ROOT,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """(exit status, standard output and error) of a program that needs no terminal."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        return 127, str(error)
    return done.returncode, done.stdout
