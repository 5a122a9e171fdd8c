"""`./dev demo --stack`: engine, Prometheus and web page beside each other, loaded, until ^C."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sessions
from demo.load import PAUSE_S, Load
from demo.server import EngineError, Server, end_left_behind
from engine_env import ROOT
from prometheus_server import PrometheusServer
from prometheus_server import settings as prometheus_settings

BRIDGE = ROOT / "deploy" / "prometheus" / "bridge.py"
# There since the page is: an earlier build knows metrics.port and serves nothing there.
PAGE_SETTING = "metrics.address"
FIRST_PORT = 8800
SCRAPE_EVERY = "2s"
DATA_LIMIT_S = 60.0
LINE_EVERY_S = 30.0
END_LIMIT_S = 10.0
LOGS = ("engine.log", "bridge.log", "prometheus.log")
KEPT = ("data", "cache")  # Prometheus' series and the disk tier.
TIERS = {"host.size": "256MiB", "disk.size": "1GiB"}
GRAPH = "sum by (tier) (rate(terrace_hit_tokens_total[1m]))"
Say = Callable[[str], None]
# Starts an engine with these settings on this port, and waits until it is ready.
Start = Callable[[dict[str, Any], int], Server]


class StackError(RuntimeError):
    """A part did not start, or ended while it was wanted."""


@dataclass(frozen=True)
class Ports:
    """Each part's port on 127.0.0.1."""

    engine: int
    page: int
    prometheus: int
    bridge: int

    @classmethod
    def from_first(cls, first: int) -> Ports:
        return cls(*range(first, first + 4))


def check_free(ports: Ports) -> None:
    """Raises StackError that names a port that somebody listens on, and whose it should be."""
    for part, port in vars(ports).items():
        with socket.socket() as probe:
            # As the servers do: what an earlier run has just closed is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except (OSError, OverflowError) as error:
                raise StackError(
                    f"port {port}, for the {part}, cannot be had: {error}; "
                    f"--port N takes {len(vars(ports))} ports from N on (now {ports.engine})"
                ) from error


def has_page(program: Path) -> bool:
    """Whether the engine of this build serves a page: its settings table says so."""
    command = [str(program), "config", "--json", "--set", "host.size=1GiB"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return PAGE_SETTING in json.loads(ran.stdout)["settings"]


def settings(disk: Path, page_port: int | None) -> dict[str, Any]:
    """Terrace's settings; without a port no page."""
    chosen: dict[str, Any] = TIERS | {"disk.paths": [str(disk)]}
    if page_port is not None:
        chosen |= {"metrics.enabled": True, "metrics.port": page_port}
    return chosen


@dataclass(frozen=True)
class Part:
    name: str
    process: subprocess.Popen[bytes] | subprocess.Popen[str]
    log: Path


class Watch:
    """Sleeps until a time is over or a part has ended."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._poll = select.poll()
        self._parts = {os.pidfd_open(part.process.pid): part for part in parts}
        for handle in self._parts:
            self._poll.register(handle, select.POLLIN)

    def wait(self, seconds: float) -> None:
        """Raises StackError at once when a part ends, with the end of its log."""
        for handle, _ in self._poll.poll(seconds * 1000):
            part = self._parts[handle]
            rows = part.log.read_text(errors="replace").splitlines()[-15:]
            code = part.process.wait()
            text = "\n".join([f"{part.name} ended with {code}; last lines of {part.log}:", *rows])
            raise StackError(text)

    def close(self) -> None:
        for handle in self._parts:
            os.close(handle)


def end(process: subprocess.Popen[Any]) -> None:
    """Asks first."""
    process.terminate()
    try:
        process.wait(timeout=END_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def bridge(folder: Path, port: int, sockets: Path) -> Part:
    log = folder / "bridge.log"
    command = [sys.executable, str(BRIDGE), "--listen", f"127.0.0.1:{port}"]
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*command, "--directory", str(sockets)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    return Part("the bridge to Prometheus", process, log)


def _until(is_so: Callable[[], bool], what: str, watch: Watch) -> None:
    deadline = time.monotonic() + DATA_LIMIT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise StackError(f"after {DATA_LIMIT_S:.0f} s still not: {what}")
        watch.wait(0.2)


def page_answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def has_data(prometheus: PrometheusServer) -> bool:
    """Whether it holds something that an engine counted."""
    try:
        found = prometheus.query("terrace_prompt_tokens_total")
    except (OSError, ValueError):
        return False
    return any(value > 0 for _, value in found)


def addresses(ports: Ports, sockets: Path, has_its_page: bool) -> str:
    graph = f"http://127.0.0.1:{ports.prometheus}/graph?g0.expr={quote(GRAPH)}&g0.tab=0"
    rows = [("engine", f"http://127.0.0.1:{ports.engine}/v1   (OpenAI's API, model `smol`)")]
    if has_its_page:
        rows.append(("page", f"http://127.0.0.1:{ports.page}/"))
    rows += [
        ("Prometheus", f"{graph}&g0.range_input=15m"),
        ("", f"http://127.0.0.1:{ports.prometheus}/alerts"),
        ("command line", f"XDG_RUNTIME_DIR={sockets.parent} ./dev terrace status"),
    ]
    return "\n".join(f"  {name:13} {text}" for name, text in rows)


def end_left(folder: Path) -> None:
    """What writes to the logs in `folder`: of an earlier run, or of one that was broken off."""
    for name in LOGS:
        end_left_behind(folder / name)


def begin(folder: Path) -> Path:
    """Nothing of an earlier run goes on or is kept; the disk tier's folder.

    Raises StackError for a folder that holds anything that no stack left there.
    """
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if foreign := found - {*LOGS, *KEPT, "prometheus.yml", "engine"}:
        raise StackError(f"{folder} is not of --stack: it holds {', '.join(sorted(foreign))}")
    end_left(folder)
    for name in (*LOGS, "prometheus.yml"):
        (folder / name).unlink(missing_ok=True)
    for name in KEPT:
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "cache").mkdir(parents=True)
    return folder / "cache"


@dataclass
class Stack:
    """All parts; `start` starts the engine, whose sockets lie in `sockets`."""

    folder: Path
    ports: Ports
    start: Start
    sockets: Path
    program: Path
    say: Say
    up: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Goes on until ^C or SIGTERM, then returns; before all is up these are KeyboardInterrupt.

        Raises StackError, EngineError or what Prometheus raises where a part does not start or
        ends. Whatever the reason, all parts have ended afterwards.
        """
        disk = begin(self.folder)
        check_free(self.ports)
        with_page = has_page(self.program)
        if not with_page:
            self.say(f"without the web page: this build has no setting {PAGE_SETTING}")
        try:
            with sessions.interruptible(), ExitStack() as ends:
                ends.callback(self._ended)
                self._serve(settings(disk, self.ports.page if with_page else None), ends)
        except KeyboardInterrupt:
            if not self.up.is_set():
                raise

    def _ended(self) -> None:
        end_left(self.folder)
        self.say("all ended")

    def _serve(self, chosen: dict[str, Any], ends: ExitStack) -> None:
        ports, with_page = self.ports, "metrics.port" in chosen
        self.say("starting Prometheus, and a bridge that lets it ask Unix sockets")
        own = bridge(self.folder, ports.bridge, self.sockets)
        ends.callback(end, own.process)
        file = prometheus_settings(self.folder, ports.bridge, SCRAPE_EVERY)
        prometheus = PrometheusServer(self.folder, file, ports.prometheus)
        ends.callback(end, prometheus.process)
        prometheus.wait_ready()
        self.say("starting the engine with Terrace (host tier 256 MiB, disk tier 1 GiB)")
        server = self.start(chosen, ports.engine)
        ends.callback(server.stop)
        log = self.folder / "prometheus.log"
        parts = [own, Part("Prometheus", prometheus.process, log)]
        watch = Watch([Part("the engine", server.process, server.log), *parts])
        ends.callback(watch.close)
        load = Load(server.post)
        self._ask(load, watch)
        if with_page:
            _until(lambda: page_answers(ports.page), "the engine's page answers", watch)
        _until(lambda: has_data(prometheus), "Prometheus holds what the engine counted", watch)
        self.up.set()
        self.say("all is up, under a small load")
        print(addresses(ports, self.sockets, with_page))
        print(f"to end all of it: ^C here, or kill {os.getpid()}", flush=True)
        self._load(load, watch)

    def _load(self, load: Load, watch: Watch) -> None:
        told = time.monotonic()
        while True:
            watch.wait(PAUSE_S)
            self._ask(load, watch)
            if time.monotonic() - told >= LINE_EVERY_S:
                told = time.monotonic()
                self.say(load.line())

    def _ask(self, load: Load, watch: Watch) -> None:
        """One request; who ended is told rather than what that did to the request."""
        try:
            load.one()
        except EngineError:
            watch.wait(1.0)
            raise
