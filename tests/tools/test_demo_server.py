"""The demo's engine process: signs of life, its end, and the time to the first token."""

import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from demo.server import EngineError, Server, free_port


@pytest.fixture
def never_ready(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    """Starts Python programs where the demo expects an engine."""
    started: list[Server] = []

    def start(program: str) -> Server:
        command = [sys.executable, "-c", program]
        started.append(Server(command, {}, tmp_path / "engine.log", free_port()))
        return started[-1]

    yield start
    for server in started:
        server.kill()


def test_a_slow_start_shows_signs_of_life_and_ends_at_its_limit(
    never_ready: Callable[[str], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo.server.SIGN_EVERY_S", 0.0)
    monkeypatch.setattr("demo.server.READY_LIMIT_S", 0.3)
    told: list[str] = []
    with pytest.raises(EngineError, match="not ready"):
        never_ready("import signal; signal.pause()").wait_ready(told.append)
    assert told


def test_an_engine_that_ends_at_once_is_told_with_its_last_words(
    never_ready: Callable[[str], Server],
) -> None:
    with pytest.raises(EngineError, match=r"ended with 3(.|\n)*no such model"):
        never_ready("print('no such model', flush=True); raise SystemExit(3)").wait_ready(print)


class Counting(BaseHTTPRequestHandler):
    """An engine's API whose histogram counts a request `lag` looks later, `by` at once."""

    lag, by = 2, 1
    requests, looks = 0, 0

    def log_message(self, *_args: object) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        kind = type(self)
        counted = 7 + kind.by * (kind.requests - (kind.looks < kind.lag))
        kind.looks += 1
        name = "vllm:time_to_first_token_seconds"
        self._say(
            f"# TYPE {name} histogram\n"
            f'{name}_bucket{{engine="0",le="+Inf"}} {counted}.0\n'
            f'{name}_count{{engine="0"}} {counted}.0\n'
            f'{name}_sum{{engine="0"}} {1.5 + 0.25 * (counted - 7)}\n'
            f'{name}_created{{engine="0"}} 1.7e9\n'
        )

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).requests += 1
        type(self).looks = 0
        self._say('{"choices":[{"token_ids":[5,6]}]}')

    def _say(self, text: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Callable[[int, int], Server]]:
    """A server whose engine counts first tokens with that lag and by that many."""
    ends: list[Callable[[], None]] = []

    def start(lag: int, by: int) -> Server:
        handler = type("Kind", (Counting,), {"lag": lag, "by": by, "looks": 99})
        engine = HTTPServer(("127.0.0.1", 0), handler)
        thread = Thread(target=engine.serve_forever)
        thread.start()
        command = [sys.executable, "-c", "import signal; signal.pause()"]
        server = Server(command, {}, tmp_path / "engine.log", engine.server_port)
        ends.extend([engine.shutdown, thread.join, engine.server_close, server.kill])
        return server

    yield start
    for end in ends:
        end()


@pytest.mark.parametrize("lag", [0, 3])
def test_the_time_to_the_first_token_is_the_engines_own(
    lag: int, counting: Callable[[int, int], Server]
) -> None:
    server = counting(lag, 1)
    for _ in range(2):
        answer = server.complete([1, 2, 3], 2)
        assert answer.tokens == [5, 6]
        assert answer.ttft_s == 0.25


@pytest.mark.parametrize(("by", "words"), [(2, "grew by 2"), (0, "did not count")])
def test_a_time_that_is_not_one_requests_alone_ends_the_demo(
    by: int,
    words: str,
    counting: Callable[[int, int], Server],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("demo.server.COUNTED_LIMIT_S", 0.0)
    with pytest.raises(EngineError, match=words):
        counting(0, by).complete([1], 2)
