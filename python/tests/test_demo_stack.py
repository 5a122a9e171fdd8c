"""`./dev demo --stack` with a stand-in for the engine, and the real Prometheus and bridge.

Whatever ends it, a signal or a part that dies, all of it has ended and the reason is told.
tests/integration/vllm/test_stack.py does it with the real engine.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import prometheus_server
from demo import __main__ as demo
from demo import load, stack
from demo.server import EngineError, Server, writers
from demo.stack import Ports, Stack, StackError
from dev import clean, paths
from engine_env import ROOT, scratch
from prometheus_server import PrometheusServer
from s3_server import free_ports

STAND_IN = Path(__file__).parent / "stack_stand_in.py"
# As `terrace config --json` of a build with a page, and of one without.
TABLES = {True: '{"settings": {"metrics.port": {}, "metrics.address": {}}}'}
TABLES[False] = '{"settings": {"metrics.port": {}}}'


def four_ports() -> int:
    """The first of four free ports in a row."""
    while True:
        (first,) = free_ports(1)
        try:
            stack.check_free(Ports.from_first(first))
        except StackError:
            continue
        return first


@dataclass
class Tried:
    """A stack in a folder of its own, `work`."""

    folder: Path
    wrong: str = ""
    page: bool = True
    told: list[str] = field(default_factory=list)
    chosen: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first = four_ports()
        self.work = self.folder / "w"
        self.sockets = self.folder / "terrace"
        self.program = self.folder / "terrace-of-this-build"
        self.program.write_text(f"#!/bin/sh\necho '{TABLES[self.page]}'\n")
        self.program.chmod(0o700)
        ports = Ports.from_first(self.first)
        self.stack = Stack(
            self.work, ports, self.start, self.sockets, self.program, self.told.append
        )

    def start(self, chosen: dict[str, Any], port: int) -> Server:
        self.chosen = chosen
        words = [str(port), str(self.sockets), json.dumps(chosen), self.wrong]
        command = [sys.executable, str(STAND_IN), *words]
        server = Server(command, dict(os.environ), self.work / "engine.log", port)
        server.wait_ready(lambda _text: None)
        return server

    def left(self) -> list[int]:
        return [pid for name in stack.LOGS for pid in writers(self.work / name)]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Short, for sockets."""
    monkeypatch.setattr(stack, "PAUSE_S", 0.05)  # Of the load.
    scratch().mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="k", dir=scratch()) as name:
        yield Path(name)


def when_up(tried: Tried, act: Callable[[], None]) -> threading.Thread:
    """Does it once all is up, beside the test."""

    def watch() -> None:
        if tried.stack.up.wait(120):
            act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def interrupt(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as reply:
        return str(reply.read().decode())


@pytest.mark.parametrize("page", [True, False])
def test_it_tells_addresses_that_answer_and_ends_by_interrupt(
    page: bool, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tried = Tried(folder, page=page)
    ports = Ports.from_first(tried.first)
    seen: dict[str, str] = {}

    def look() -> None:
        seen["graph"] = get(ports.prometheus, "/graph")
        seen["script"] = get(ports.prometheus, "/classic/static/jquery/jquery.min.js")
        asked = get(ports.prometheus, "/api/v1/query?query=terrace_prompt_tokens_total")
        (row,) = json.loads(asked)["data"]["result"]
        seen["value"] = row["value"][1]
        if page:
            seen["page"] = get(ports.page, "/")
        interrupt()

    thread = when_up(tried, look)
    tried.stack.run()
    thread.join()
    shown = capfd.readouterr().out
    assert float(seen["value"]) > 0
    assert "<html" in seen["graph"]
    assert len(seen["script"]) > 10_000
    assert ("page" in seen) == page
    assert (f"http://127.0.0.1:{ports.page}/" in shown) == page
    assert any("without the web page" in line for line in tried.told) != page
    assert ("metrics.port" in tried.chosen) == page
    for port in (ports.engine, ports.prometheus):
        assert f"http://127.0.0.1:{port}/" in shown
    assert f"kill {os.getpid()}" in shown
    assert tried.left() == []
    assert tried.told[-1] == "all ended"
    stack.check_free(ports)


def test_a_kill_ends_it_as_an_interrupt_does(folder: Path) -> None:
    tried = Tried(folder)
    when_up(tried, lambda: interrupt(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    tried.stack.run()
    assert tried.left() == []
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("part", "name"),
    [("engine", "the engine"), ("prometheus", "Prometheus"), ("bridge", "the bridge")],
)
def test_a_part_that_dies_ends_the_others_and_is_named(part: str, name: str, folder: Path) -> None:
    tried = Tried(folder)

    def kill() -> None:
        for pid in writers(tried.work / f"{part}.log"):
            os.kill(pid, signal.SIGKILL)

    when_up(tried, kill)
    with pytest.raises(StackError, match=rf"^{name}.* ended with -9; last lines of .*{part}.log"):
        tried.stack.run()
    assert tried.left() == []


def test_an_engine_that_dies_of_a_request_is_told_with_its_last_words(folder: Path) -> None:
    tried = Tried(folder, "dies")
    with pytest.raises(StackError, match=r"the engine ended with 3;[^$]*a bug of the stand-in"):
        tried.stack.run()
    assert tried.left() == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("counts nothing", "Prometheus holds what the engine counted"),
        ("has no page", "the engine's page answers"),
    ],
)
def test_what_does_not_come_up_in_time_is_told(
    wrong: str, words: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "DATA_LIMIT_S", 0.5)
    tried = Tried(folder, wrong)
    with pytest.raises(StackError, match=f"still not: {words}"):
        tried.stack.run()
    assert tried.left() == []


def test_an_engine_that_does_not_start_ends_prometheus(folder: Path) -> None:
    tried = Tried(folder)

    def broken(_chosen: dict[str, Any], _port: int) -> Server:
        raise EngineError("the engine ended with 1")

    tried.stack.start = broken
    with pytest.raises(EngineError):
        tried.stack.run()
    assert tried.left() == []


def test_an_interrupt_before_all_is_up_is_one(folder: Path) -> None:
    tried = Tried(folder)

    def interrupted(_chosen: dict[str, Any], _port: int) -> Server:
        interrupt()
        raise AssertionError

    tried.stack.start = interrupted
    with pytest.raises(KeyboardInterrupt):
        tried.stack.run()
    assert tried.left() == []


def test_a_prometheus_that_does_not_start_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = Tried(folder)
    real = prometheus_server.settings

    def damaged(*words: Any) -> Path:
        path = real(*words)
        path.write_text("scrape_configs: 7\n")
        return path

    monkeypatch.setattr(stack, "prometheus_settings", damaged)
    with pytest.raises(RuntimeError, match=r"Prometheus did not come up:[^$]*unmarshal"):
        tried.stack.run()
    assert tried.left() == []


@pytest.mark.parametrize("part", ["engine", "page", "prometheus", "bridge"])
def test_a_port_that_is_taken_is_named_before_anything_starts(part: str, folder: Path) -> None:
    tried = Tried(folder)
    port = vars(tried.stack.ports)[part]
    told = rf"port {port}, for the {part}, .*--port N"
    with socket.create_server(("127.0.0.1", port)), pytest.raises(StackError, match=told):
        tried.stack.run()
    assert tried.told == []


def test_what_a_killed_run_left_behind_is_ended_by_the_next_one(folder: Path) -> None:
    log = folder / "prometheus.log"
    folder.joinpath("data").mkdir()
    path = folder / "prometheus.yml"
    path.write_text("global: {}\n")
    left = PrometheusServer(folder, path)
    left.wait_ready()
    assert writers(log) == [left.process.pid]
    stack.begin(folder)
    assert left.process.wait(timeout=10) is not None
    assert writers(log) == []
    assert not folder.joinpath("data").exists()


def test_a_folder_of_something_else_is_left_alone(folder: Path) -> None:
    for name in ("cache", "data"):
        (folder / name).mkdir()
        (folder / name / "letters").write_text("dear")
    (folder / "photographs").mkdir()
    with pytest.raises(StackError, match="is not of --stack: it holds photographs"):
        stack.begin(folder)
    assert (folder / "cache" / "letters").exists()
    assert (folder / "data" / "letters").exists()


def test_the_command_says_what_is_wrong_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = four_ports()
    with socket.create_server(("127.0.0.1", first)):
        words = ["--stack", "--port", str(first), "--work", str(tmp_path)]
        assert demo.main(words) == 1
    assert f"demo: port {first}, for the engine" in capsys.readouterr().err
    assert demo.main(["--stack", "--port", "70000", "--work", str(tmp_path)]) == 1
    assert "port 70000" in capsys.readouterr().err


def test_the_real_program_says_whether_it_has_a_page() -> None:
    program = ROOT / "build" / "release" / "bin" / "terrace"
    table = (ROOT / "docs" / "settings.md").read_text()
    assert stack.has_page(program) == (f"`{stack.PAGE_SETTING}`" in table)


def test_the_load_tells_where_tokens_came_from() -> None:
    asked: list[dict[str, Any]] = []

    def post(_path: str, body: dict[str, Any]) -> dict[str, Any]:
        asked.append(body)
        ledger = {"local_tokens": 25, "hit_tokens": {"host": 50, "disk": 0}}
        own = {"terrace": {"ledger": ledger}}
        return {"usage": {"prompt_tokens": 100}, "kv_transfer_params": own}

    made = load.Load(post)
    for _ in range(2 * load.NEW_EVERY):
        made.one()
    salts = [body["cache_salt"] for body in asked if "cache_salt" in body]
    assert len(set(salts)) == len(salts) == 2
    assert len({body["prompt"] for body in asked}) > 1
    assert made.line() == "12 requests, 1,200 prompt tokens: device 25%, host 50%, computed 25%"


def test_the_load_runs_by_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load, "PAUSE_S", 0.0)
    tried = Tried(folder)
    port = tried.stack.ports.engine
    tried.work.mkdir()
    server = tried.start({}, port)
    try:
        assert load.main(["--port", str(port), "--requests", "10"]) == 0
    finally:
        server.stop()
    assert "10 requests, 1,000 prompt tokens" in capsys.readouterr().out
    assert load.main(["--port", str(port)]) == 1
    assert f"load: 127.0.0.1:{port}: " in capsys.readouterr().err


def test_clean_ends_what_it_left_running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ended: set[Path] = set()

    def end(log: Path) -> int:
        ended.add(log)
        return 0

    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    monkeypatch.setattr(clean, "end_left_behind", end)
    clean.main([])
    assert {tmp_path / "build" / "demo" / "stack" / name for name in stack.LOGS} <= ended
