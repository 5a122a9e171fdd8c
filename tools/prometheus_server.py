"""Debian's Prometheus for tests and the demo: a port of this machine, a folder of its own, ended by
pid."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from engine_env import ROOT, installed
from s3_server import free_ports

PATIENCE_S = 60.0
PAUSE_S = 0.05
EXAMPLE = ROOT / "deploy" / "prometheus"


def until(is_so: Callable[[], bool], what: str, limit_s: float = PATIENCE_S) -> None:
    """Waits for what other programs do, as long as a slow machine may need."""
    deadline = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {limit_s:.0f} s still not: {what}")
        time.sleep(PAUSE_S)


def promtool(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [installed()["prometheus"] / "promtool", *words],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def settings(folder: Path, bridge_port: int, interval: str) -> Path:
    """The example of deploy/ as a file in `folder`, with this port and this patience."""
    text = (EXAMPLE / "prometheus.yml").read_text()
    text, ports = re.subn(r"127\.0\.0\.1:\d+", f"127.0.0.1:{bridge_port}", text)
    text = text.replace("alerts.yml", str(EXAMPLE / "alerts.yml"))
    text, intervals = re.subn(r"(interval): 15s", rf"\1: {interval}", text)
    if (ports, intervals) != (1, 3):
        raise ValueError(f"{EXAMPLE / 'prometheus.yml'} is not the example that is known here")
    path = folder / "prometheus.yml"
    path.write_text(text)
    return path


class PrometheusServer:
    """One server over one settings file, asked over its HTTP interface; without `port` on any."""

    def __init__(self, folder: Path, settings: Path, port: int | None = None) -> None:
        self._folder = folder
        self._port = free_ports(1)[0] if port is None else port
        programs = installed()["prometheus"]
        command = [str(programs / "prometheus"), f"--config.file={settings}"]
        command += [f"--web.listen-address=127.0.0.1:{self._port}", "--log.level=warn"]
        command += [f"--web.local-assets={programs / 'web'}"]
        command += [f"--storage.tsdb.path={folder / 'data'}"]
        with (folder / "prometheus.log").open("ab") as log:
            # A session of its own: ^C on a terminal is for whoever started it.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
            )

    def ask(self, path: str, **words: str) -> Any:
        """`data` of its answer. OSError where there is none, ValueError where it refuses."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            try:
                connection.request("GET", f"/api/v1/{path}?{urlencode(words)}")
                content = connection.getresponse().read()
            except http.client.HTTPException as error:
                raise OSError(str(error)) from error
        answer = json.loads(content)
        if answer["status"] != "success":
            raise ValueError(f"{path} {words}: {answer.get('error')}")
        return answer["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """(labels, value) of each series that the expression gives now."""
        found = self.ask("query", query=expression)
        if found["resultType"] != "vector":
            raise ValueError(f"{expression}: gives a {found['resultType']}")
        return [(row["metric"], float(row["value"][1])) for row in found["result"]]

    def wait_ready(self) -> None:
        def is_ready() -> bool:
            if self.process.poll() is not None:
                log = (self._folder / "prometheus.log").read_text(errors="replace")
                raise RuntimeError(f"Prometheus did not come up:\n{log[-4000:]}")
            try:
                self.ask("status/runtimeinfo")
            except (OSError, ValueError):
                return False
            return True

        until(is_ready, "Prometheus answers")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def prometheus_server(folder: Path, settings: Path) -> Iterator[PrometheusServer]:
    server = PrometheusServer(folder, settings)
    try:
        server.wait_ready()
        yield server
    finally:
        server.kill()
