"""Starts, watches and kills one OpenAI server of the real engine, and talks to it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import sessions

READY_LIMIT_S = 300.0
SIGN_EVERY_S = 15.0
END_LIMIT_S = 30.0
REQUEST_LIMIT_S = 180.0
COUNTED_LIMIT_S = 20.0
TTFT = "vllm:time_to_first_token_seconds"


class EngineError(RuntimeError):
    """The engine did not start, died, or refused a request."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def writers(log: Path) -> list[int]:
    """The processes whose output goes to `log`: an engine and all that it started."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            is_writer = str((entry / "fd" / "1").readlink()) == str(log)
        except OSError:  # Ended meanwhile, or another user's.
            continue
        if is_writer:
            found.append(int(entry.name))
    return found


def end_left_behind(log: Path) -> int:
    """Ends what a broken run or `--stay` left running with its output in `log`; how many."""
    ended: set[int] = set()
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + END_LIMIT_S
        waiting = {}
        for pid in writers(log):
            try:
                waiting[os.pidfd_open(pid)] = pid
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        ended.update(waiting.values())
        poll = select.poll()
        for handle in waiting:
            poll.register(handle, select.POLLIN)
        while waiting and time.monotonic() < deadline:
            for handle, _ in poll.poll(100):
                poll.unregister(handle)
                os.close(handle)
                del waiting[handle]
        for handle in waiting:
            os.close(handle)
    return len(ended)


@dataclass
class Answer:
    """One completion: its tokens, the engine's time to the first, what Terrace says it did."""

    tokens: list[int]
    ttft_s: float
    ledger: dict[str, Any]


class Server:
    """One engine process group; `kill()` is the operating system's kill -9."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path, port: int) -> None:
        self.port = port
        self.log = log
        self._file: IO[bytes] = log.open("ab")
        # A session of its own: the engine's children are killed with it and nothing else is.
        with sessions.starting() as known:
            self.process = subprocess.Popen(
                command,
                env=env,
                stdout=self._file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            known.add(self.process.pid)

    def wait_ready(self, say: Callable[[str], None]) -> float:
        """Seconds until /health answered; shows signs of life. Raises EngineError."""
        began = time.monotonic()
        next_sign = began + SIGN_EVERY_S
        while (now := time.monotonic()) - began < READY_LIMIT_S:
            if now >= next_sign:
                next_sign = now + SIGN_EVERY_S
                say(f"    … still starting after {now - began:.0f} s")
            if self.process.poll() is not None:
                raise EngineError(f"the engine ended with {self.process.returncode}\n{self.tail()}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2):
                    return time.monotonic() - began
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise EngineError(f"the engine was not ready after {READY_LIMIT_S:.0f} s\n{self.tail()}")

    def post(
        self, path: str, body: dict[str, Any], headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **(headers or {})},
        )
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_LIMIT_S) as reply:
                answer: dict[str, Any] = json.load(reply)
                return answer
        except urllib.error.HTTPError as error:
            raise EngineError(f"{path}: {error.code} {error.read()[:500]!r}") from error
        except OSError as error:
            raise EngineError(f"{path}: {error}\n{self.tail()}") from error

    def tokenize(self, text: str) -> list[int]:
        reply = self.post(
            "/tokenize", {"model": "smol", "prompt": text, "add_special_tokens": False}
        )
        return list(reply["tokens"])

    def complete(self, tokens: list[int], count: int, salt: str = "") -> Answer:
        """`count` greedy tokens after `tokens`; asks Terrace for the request's ledger.

        Requests with different salts share no cached block.
        """
        before = self._first_tokens()
        reply = self.post(
            "/v1/completions",
            {
                "model": "smol",
                "prompt": tokens,
                "max_tokens": count,
                "temperature": 0,
                "ignore_eos": True,
                "return_token_ids": True,
                "kv_transfer_params": {"terrace": {"ledger": True}},
                **({"cache_salt": salt} if salt else {}),
            },
        )
        own = (reply.get("kv_transfer_params") or {}).get("terrace") or {}
        tokens = list(reply["choices"][0]["token_ids"])
        return Answer(tokens, self._ttft_since(before), own.get("ledger") or {})

    def _first_tokens(self) -> tuple[int, float]:
        """How many first tokens the engine has counted, and the sum of the times to them."""
        url = f"http://127.0.0.1:{self.port}/metrics"
        try:
            with urllib.request.urlopen(url, timeout=REQUEST_LIMIT_S) as reply:
                text = reply.read().decode()
        except OSError as error:
            raise EngineError(f"/metrics: {error}\n{self.tail()}") from error
        sums = {"_count": 0.0, "_sum": 0.0}
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            for end in sums:
                if name.partition("{")[0] == TTFT + end:
                    sums[end] += float(value)
        return int(sums["_count"]), sums["_sum"]

    def _ttft_since(self, before: tuple[int, float]) -> float:
        """Of the one request since `before`: exact, as requests of the demo run alone."""
        deadline = time.monotonic() + COUNTED_LIMIT_S
        while True:
            count, total = self._first_tokens()
            if count == before[0] + 1:
                return total - before[1]
            if count != before[0]:
                raise EngineError(f"{TTFT} grew by {count - before[0]} with one request")
            if time.monotonic() >= deadline:
                raise EngineError(f"{TTFT} did not count a request in {COUNTED_LIMIT_S:.0f} s")
            time.sleep(0.02)

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join([f"last lines of {self.log}:", *lines])

    def kill(self) -> None:
        """kill -9 of the engine and all its processes; waits until they are gone."""
        sessions.kill(self.process.pid)
        self.process.wait(timeout=END_LIMIT_S)
        self._file.close()

    def stop(self) -> None:
        """By SIGTERM; what does not end by that, or outlives its leader, is killed."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=END_LIMIT_S)
        self.kill()
