"""`./dev demo --stack` on the real engine: what it tells can be looked at, ^C ends all of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from demo import stack
from demo.server import end_left_behind, writers
from engine_env import ROOT, scratch
from prometheus_server import until
from s3_server import free_ports

LIMIT_S = 600.0


def four_ports() -> int:
    """The first of four free ports in a row."""
    while True:
        (first,) = free_ports(1)
        try:
            stack.check_free(stack.Ports.from_first(first))
        except stack.StackError:
            continue
        return first


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as reply:
        return str(reply.read().decode())


def value(port: int, expression: str) -> float:
    """The sum of what Prometheus holds now; 0 where there is nothing."""
    query = quote(f"sum({expression})")
    answer = json.loads(get(f"http://127.0.0.1:{port}/api/v1/query?query={query}"))
    rows = answer["data"]["result"]
    return float(rows[0]["value"][1]) if rows else 0.0


def of_engine(text: str, name: str) -> float:
    """The sum of what vLLM's own /metrics has of it."""
    return sum(float(row) for row in re.findall(rf"^vllm:{name}\{{.*}} (\S+)$", text, re.MULTILINE))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    scratch().mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="k", dir=scratch()) as name:
        yield Path(name)


def test_all_of_it_runs_is_scraped_and_ends(folder: Path) -> None:
    ports = stack.Ports.from_first(four_ports())
    work = folder / "w"
    words = ["--stack", "--port", str(ports.engine), "--work", str(work)]
    told = folder / "told.txt"
    with told.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "demo", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:

        def is_up() -> bool:
            assert process.poll() is None, told.read_text()
            return "to end all of it" in told.read_text()

        until(is_up, "all is up", LIMIT_S)
        shown = told.read_text()
        assert int(*re.findall(r"or kill (\d+)", shown)) == process.pid
        hits = "terrace_hit_tokens_total"
        until(lambda: value(ports.prometheus, hits) > 0, "tokens are hit", LIMIT_S)
        own = f"http://127.0.0.1:{ports.engine}/metrics"
        until(lambda: of_engine(get(own), hits) > 0, "the engine tells them, too", LIMIT_S)
        # A rate, so that what the graph link asks for is drawn.
        assert stack.GRAPH.count(hits) == 1
        assert value(ports.prometheus, "up") == 1
        assert "<html" in get(*re.findall(r"Prometheus +(\S+)", shown))
        assert '"smol"' in get(f"http://127.0.0.1:{ports.engine}/v1/models")
        page = re.findall(r"page +(http\S+)", shown)
        assert bool(page) == stack.has_page(ROOT / "build" / "release" / "bin" / "terrace")
        assert all("<html" in get(address) for address in page)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=LIMIT_S) == 0, told.read_text()
    finally:
        process.kill()
        process.wait()
        left = [pid for name in stack.LOGS for pid in writers(work / name)]
        for name in stack.LOGS:
            end_left_behind(work / name)
    assert left == []
    stack.check_free(ports)
