"""One server with Terrace over small tiers, and everything that may befall it."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.integration.vllm.engine import until
from tests.integration.vllm.server import OnlineEngine, Serve
from tests.soak import admin, watch
from tests.soak.place import Answer, Asked, Refused
from tests.soak.watch import Sample

from demo.server import Server
from engine_env import ROOT, scratch

TERRACE = ROOT / "build" / "release" / "bin" / "terrace"
BLOCK_TOKENS = 32
FLIPS = 8
ENGINE_BLOCKS, HOST_BLOCKS, DISK_BLOCKS = 26, 40, 120
LONGEST = 24 * BLOCK_TOKENS
REQUEST_LIMIT_S = 180.0
END_LIMIT_S = 10.0  # An engine core outlives its server; so it does without Terrace.

# Later flags win over those of OnlineEngine: the engine has a prefix cache of its own, too small
# for the requests that run, so that it preempts; and prompts come in several steps.
FLAGS = ["--enable-prefix-caching", "--max-model-len", str(LONGEST), "--max-num-seqs", "6"]
FLAGS += ["--max-num-batched-tokens", "192"]
ENVIRONMENT = {
    "VLLM_SERVER_DEV_MODE": "1",  # For /reset_prefix_cache.
    # What torch frees goes back to the system, so that growth is what somebody holds: else the
    # engine's worker grows by 350 MB within minutes, with or without Terrace.
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    "MALLOC_ARENA_MAX": "2",
    # oneDNN keeps compiled kernels for each new number of tokens in a step, 1,024 of them unless
    # told: without Terrace the worker grows by 90 MB in 7 minutes, with this by 2 MB.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8",
}


@dataclass
class Site:
    """Its server lives from `start` to `kill`; the cache directory outlives it."""

    work: Path
    model: Path
    engine_memory: int
    serve: Serve = Server
    end_limit_s: float = END_LIMIT_S  # Of what a process leaves behind that is killed alone.
    starts: int = 0
    engine: OnlineEngine | None = None
    pids: dict[str, int] = field(default_factory=dict)
    socket: Path | None = None

    def __post_init__(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        scratch().mkdir(mode=0o700, parents=True, exist_ok=True)
        # A socket's path must be short.
        self.sockets = Path(tempfile.mkdtemp(prefix="soak-", dir=scratch()))
        self.disk = self.work / "disk"
        self.disk.mkdir()

    # ---- Life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when it answers."""
        self.disk.mkdir(exist_ok=True)
        self.starts += 1
        settings = {
            "host.size": "0",
            "host.blocks": HOST_BLOCKS,
            "disk.blocks": DISK_BLOCKS,
            "disk.paths": [str(self.disk)],
            "attach.directory": str(self.sockets),
        }
        flags = [*FLAGS, "--kv-cache-memory-bytes", str(self.engine_memory)]
        self.engine = OnlineEngine(
            self.work / f"start-{self.starts}",
            str(self.model),
            settings,
            flags,
            more_env=ENVIRONMENT,
            serve=self.serve,
        )
        self.engine.wait_ready()
        self.pids = {
            "server": self.engine.server.process.pid,
            "core": self.engine.core,
            "worker": self.engine.worker,
        }
        until("the owner answers", lambda: admin.find(self.sockets, self.pids["core"]) is not None)
        self.socket = admin.find(self.sockets, self.pids["core"])

    def kill(self, target: str = "all") -> bool:
        """kill -9 of one process or of all; False when others outlived the one."""
        assert self.engine is not None
        engine, self.engine = self.engine, None
        has_ended = True
        if target != "all":
            with suppress(ProcessLookupError):
                os.kill(self.pids[target], signal.SIGKILL)
            try:
                until("all processes ended", lambda: not engine.processes(), self.end_limit_s)
            except AssertionError:
                has_ended = False
        engine.close()
        until("all processes ended", lambda: not engine.processes(), 60.0)
        for path in self.sockets.iterdir():
            path.unlink()
        return has_ended

    def close(self) -> None:
        if self.engine is not None:
            self.engine.close()
            self.engine = None
        shutil.rmtree(self.sockets, ignore_errors=True)

    def is_alive(self) -> bool:
        return self.engine is not None and set(self.pids.values()) <= set(self.engine.processes())

    def output(self) -> str:
        """All that the newest server has said."""
        path = self.work / f"start-{self.starts}" / "output.txt"
        return path.read_text(errors="replace")

    # ---- What befalls it ------------------------------------------------------------------------

    def signal(self, process: str, number: signal.Signals) -> None:
        os.kill(self.pids[process], number)

    def lose_directory(self) -> None:
        """As `rm -rf` would, in use or not."""
        shutil.rmtree(self.disk, ignore_errors=True)

    def flip(self, rng: random.Random) -> int:
        """One byte of each of some frames; how many were written."""
        written = 0
        for slots in sorted(self.disk.glob("terrace-*/0.slots")):
            size = slots.stat().st_size
            with slots.open("r+b", buffering=0) as file:
                for _ in range(FLIPS):
                    offset = rng.randrange(max(1, size))
                    byte = os.pread(file.fileno(), 1, offset)
                    if byte:
                        os.pwrite(file.fileno(), bytes([byte[0] ^ 0x40]), offset)
                        written += 1
        return written

    def switch(self, verb: str) -> None:
        """`terrace pause`, `readonly` or `resume`."""
        line = [str(TERRACE), verb, "--all", "--directory", str(self.sockets)]
        ran = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        if ran.returncode != 0:
            raise Refused(f"terrace {verb}: {ran.returncode} {ran.stdout}{ran.stderr}")

    def reset(self, *, is_external: bool) -> bool:
        """The engine's own cache, or Terrace's with it; False where blocks were in use."""
        path = "/reset_prefix_cache" + ("?reset_external=true" if is_external else "")
        return bool(json.loads(self._exchange("POST", path)).get("success"))

    # ---- Requests -------------------------------------------------------------------------------

    def _connect(self) -> http.client.HTTPConnection:
        engine = self.engine
        if engine is None:
            raise Refused("there is no server")
        return http.client.HTTPConnection("127.0.0.1", engine.port, timeout=REQUEST_LIMIT_S)

    def _exchange(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        connection = self._connect()
        with closing(connection):
            try:
                headers = {"Content-Type": "application/json"} if body else {}
                connection.request(method, path, json.dumps(body) if body else None, headers)
                reply = connection.getresponse()
                text = reply.read()
            except (OSError, http.client.HTTPException) as error:
                raise Refused(f"{path}: {error!r}") from error
        if reply.status != HTTPStatus.OK:
            raise Refused(f"{path}: {reply.status} {text[:500]!r}")
        return text

    def ask(self, asked: Asked) -> Answer:
        if asked.is_streamed:
            return Answer([self.stream(asked, None)])
        reply = json.loads(self._exchange("POST", "/v1/completions", asked.body()))
        own = (reply.get("kv_transfer_params") or {}).get("terrace") or {}
        return Answer([list(one["token_ids"]) for one in reply["choices"]], own.get("ledger"))

    def stream(self, asked: Asked, most: int | None) -> list[int]:
        """Closes the connection after so many tokens; None reads to the end."""
        tokens: list[int] = []
        connection = self._connect()
        with closing(connection):
            try:
                headers = {"Content-Type": "application/json"}
                connection.request("POST", "/v1/completions", json.dumps(asked.body()), headers)
                if most == 0:
                    return tokens
                reply = connection.getresponse()
                while line := reply.readline():
                    text = line.decode().removeprefix("data: ").strip()
                    if not text or text == "[DONE]":
                        continue
                    piece = json.loads(text)
                    if "error" in piece:
                        raise Refused(f"stream: {text[:500]}")
                    tokens += [t for one in piece["choices"] for t in one.get("token_ids") or []]
                    if most is not None and len(tokens) >= most:
                        return tokens
            except (OSError, http.client.HTTPException) as error:
                raise Refused(f"stream: {error!r}") from error
        return tokens

    # ---- Looking --------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        assert self.socket is not None
        return admin.status(self.socket)

    def metrics(self) -> dict[str, float]:
        assert self.socket is not None
        return admin.metrics(self.socket)

    def engine_metric(self, name: str) -> float:
        text = self._exchange("GET", "/metrics").decode()
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def samples(self, *, is_idle: bool) -> Sequence[Sample]:
        found = [watch.sample(name, pid, is_idle=is_idle) for name, pid in self.pids.items()]
        return [one for one in found if one is not None]
