"""vLLM's OpenAI server in a session of its own: its processes one by one, and its answers."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.integration.vllm.engine import SETTINGS, transfer_config, until
from tests.integration.vllm.harness import SHORTCUTS

import sessions
from demo.server import Server, free_port
from engine_env import engine_env

NAME = "tiny"
Serve = Callable[[list[str], dict[str, str], Path, int], Server]
READY_LIMIT_S = 600.0  # Three processes import vLLM, on processors that others use as well.


class OnlineEngine:
    """One server without a prefix cache of its own: whatever is hit, Terrace served."""

    def __init__(
        self,
        work: Path,
        model: str,
        settings: dict[str, Any],
        flags: Sequence[str] = (),
        *,
        more_env: Mapping[str, str] | None = None,
        serve: Serve = Server,
    ) -> None:
        """`serve` starts the command; later flags win over those that stand here."""
        work.mkdir()
        port = free_port()
        config = transfer_config(SETTINGS | settings, "kv_both", None)
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--model", model]
        command += ["--served-model-name", NAME, "--dtype", "float32", "--block-size", "32"]
        command += ["--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "4"]
        command += ["--kv-cache-memory-bytes", "64M", "--no-enable-prefix-caching", "--seed", "0"]
        command += ["--kv-transfer-config", json.dumps(config), *flags]
        env = engine_env(work, multiprocessing=True) | SHORTCUTS | dict(more_env or {})
        if os.environ.get("TERRACE_LIBRARY"):
            env["TERRACE_LIBRARY"] = os.environ["TERRACE_LIBRARY"]
        self.port = port
        self.server = serve(command, env, work / "output.txt", port)

    def wait_ready(self) -> None:
        until("the server is ready or ended", self._is_settled, READY_LIMIT_S)
        assert self.server.process.poll() is None, self.server.tail()

    def _is_settled(self) -> bool:
        if self.server.process.poll() is not None:
            return True
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with closing(connection):
            try:
                connection.request("GET", "/health")
                return connection.getresponse().status == HTTPStatus.OK
            except OSError:  # Nobody listens yet.
                return False

    def close(self) -> None:
        """kill -9 of whatever is left of its session."""
        for process in self.processes():
            os.kill(process, signal.SIGCONT)
        self.server.kill()

    # ---- Processes ------------------------------------------------------------------------------

    def _living(self) -> dict[int, int]:
        return sessions.living(self.server.process.pid)

    def processes(self) -> list[int]:
        return sorted(self._living())

    def child_of(self, parent: int) -> int:
        """The engine's process below another: the core below the server, the worker below it."""
        for process, its_parent in sorted(self._living().items()):
            command = Path(f"/proc/{process}/cmdline").read_text(errors="replace")
            if its_parent == parent and "resource_tracker" not in command:
                return process
        raise AssertionError(f"process {parent} has no child among {self._living()}")

    @property
    def core(self) -> int:
        return self.child_of(self.server.process.pid)

    @property
    def worker(self) -> int:
        return self.child_of(self.core)

    def terminate(self) -> int:
        """SIGTERM to the API server alone; all must end."""
        self.server.process.terminate()
        status = self.server.process.wait(timeout=120)
        until("all processes ended", lambda: not self.processes())
        return status

    # ---- Requests -------------------------------------------------------------------------------

    def _body(self, prompt: str, count: int, more: dict[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = {"model": NAME, "prompt": prompt, "max_tokens": count}
        body |= {"temperature": 0, "ignore_eos": True}
        return body | {"kv_transfer_params": {"terrace": {"ledger": True}}} | more

    def complete(
        self, prompt: str, count: int = 8, headers: Mapping[str, str] | None = None, **more: Any
    ) -> dict[str, Any]:
        return self.send(self._body(prompt, count, more), headers)

    def send(
        self, body: dict[str, Any], headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        reply = self.server.post("/v1/completions", body, headers)
        ledger = ((reply.get("kv_transfer_params") or {}).get("terrace") or {}).get("ledger")
        return {"text": reply["choices"][0]["text"], "ledger": ledger}

    def stream(self, prompt: str, count: int = 8) -> Generator[str, None, None]:
        """Piece by piece; closing the iterator closes the connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with closing(connection):
            body = json.dumps(self._body(prompt, count, {"stream": True}))
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/completions", body, headers)
            reply = connection.getresponse()
            while line := reply.readline():
                text = line.decode().removeprefix("data: ").strip()
                if text and text != "[DONE]":
                    yield str(json.loads(text)["choices"][0]["text"])
            if connection.sock is not None:
                connection.sock.shutdown(socket.SHUT_RDWR)

    def metric(self, name: str) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with closing(connection):
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        values = [
            float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name)
        ]
        return sum(values)

    def wait_idle(self) -> None:
        until("no request runs", lambda: self.metric("vllm:num_requests_running") == 0, 120.0)
