"""The online server: three processes, each of which may die alone; and how users see hits."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.engine import TEXTS, until
from tests.integration.vllm.server import NAME, OnlineEngine

PROMPT = TEXTS[0] * 14  # Some 250 tokens.
OTHER = TEXTS[1] * 14


def held_on_disk(disk: Path) -> int:
    """Sealed blocks in all directories, as the command line shows them."""
    terrace = harness.ROOT / "build" / "release" / "bin" / "terrace"
    found = subprocess.run(
        [str(terrace), "inspect", "--json", str(disk)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    try:
        report = json.loads(found.stdout)
    except json.JSONDecodeError:
        return 0
    owners = [owner for directory in report for owner in directory["owners"]]
    return sum(int(space["sealed"]) for owner in owners for space in owner["namespaces"])


def documented() -> dict[str, Any]:
    """What the page for clients sends."""
    page = (harness.ROOT / "docs" / "hints.md").read_text()
    (block,) = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    words = shlex.split(block)
    body: dict[str, Any] = json.loads(words[words.index("-d") + 1])
    return body


# Four starts, of three processes each.
pytestmark = pytest.mark.timeout(3000)


class Story:
    """What one server after the other answered, over one disk."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.disk = work / "disk"
        self.disk.mkdir()
        model: dict[str, Any] = {
            "folder": str(work / "model"),
            "tokenizer": harness.model("float32"),
        }
        harness.run(work, "tiny.make", kind="talking", **model)
        self.found: dict[str, Any] = {}
        self.servers: list[OnlineEngine] = []

    def start(self, name: str) -> OnlineEngine:
        settings = {"disk.size": "256MiB", "disk.paths": [str(self.disk)]}
        server = OnlineEngine(self.work / name, str(self.work / "model"), settings)
        self.servers.append(server)
        server.wait_ready()
        return server

    def close(self) -> None:
        for server in self.servers:
            server.close()

    def tell(self) -> dict[str, Any]:
        self._answers(self.start("first"))
        self._beside_an_orphan(self.start("second"))
        return self.found

    def _answers(self, server: OnlineEngine) -> None:
        """Cold, hit, salted, streamed, given up; then SIGTERM."""
        found = self.found
        found["processes"] = [server.server.process.pid, server.core, server.worker]
        found["cold"], found["hit"] = server.complete(PROMPT), server.complete(PROMPT)
        found["salted"] = [server.complete(PROMPT, cache_salt="A") for _ in range(2)]
        found["streamed"] = "".join(server.stream(PROMPT))
        self._hints(server)
        with closing(server.stream(OTHER, 1500)) as pieces:
            next(pieces)
        server.wait_idle()
        found["generated"] = server.metric("vllm:generation_tokens_total")
        found["after"] = server.complete(PROMPT)
        count = found["cold"]["ledger"]["prompt_tokens"] // 32
        until("all is on disk", lambda: held_on_disk(self.disk) >= 2 * count)
        found["status"] = server.terminate()

    def _hints(self, server: OnlineEngine) -> None:
        """As docs/hints.md has them, by the engine's own header, and none at all."""
        self.found["documented"] = server.send(documented() | {"model": NAME})
        by_header = {"X-Session-ID": "user-17/chat-4"}
        self.found["by header"] = server.complete(PROMPT, headers=by_header)
        wrong = {"session_over": "yes", "return_s": -1, "unknown": {}}
        params = {"terrace": {"ledger": True, "hints": wrong}}
        self.found["malformed"] = server.complete(PROMPT, kv_transfer_params=params)

    def _beside_an_orphan(self, server: OnlineEngine) -> None:
        """The core outlives a killed API server, keeps its directory; a new one starts beside."""
        found = self.found
        found["restarted"] = server.complete(PROMPT)
        core = server.core
        os.kill(core, signal.SIGSTOP)  # Else it would notice and end.
        os.kill(server.server.process.pid, signal.SIGKILL)
        server.server.process.wait(timeout=30)
        beside = self.start("beside")
        found["orphan"] = core in server.processes()
        found["beside"] = [beside.complete(PROMPT) for _ in range(2)]
        found["folders"] = len([path for path in self.disk.iterdir() if path.is_dir()])
        server.close()
        self._without_worker(beside)

    def _without_worker(self, server: OnlineEngine) -> None:
        """The worker is killed alone: the server ends; the next one finds what was stored."""
        os.kill(server.worker, signal.SIGKILL)
        server.server.process.wait(timeout=120)
        server.close()
        self.found["last"] = self.start("last").complete(PROMPT)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    story = Story(tmp_path_factory.mktemp("server"))
    try:
        yield story.tell()
    finally:
        story.close()


def full(answer: dict[str, Any]) -> int:
    return int((answer["ledger"]["prompt_tokens"] - 1) // 32 * 32)


def test_the_ledger_in_the_answer_names_the_tier(found: dict[str, Any]) -> None:
    assert found["cold"]["ledger"]["hit_tokens"] == {}
    assert found["cold"]["ledger"]["first_miss"] == "never_stored"
    assert found["hit"]["ledger"]["hit_tokens"] == {"host": full(found["hit"])}
    assert found["hit"]["text"] == found["cold"]["text"]


def test_api_server_core_and_worker_are_processes_of_their_own(found: dict[str, Any]) -> None:
    assert len(set(found["processes"])) == 3


def test_a_salt_keeps_equal_prompts_apart(found: dict[str, Any]) -> None:
    first, second = found["salted"]
    assert first["ledger"]["hit_tokens"] == {}
    assert second["ledger"]["hit_tokens"] == {"host": full(second)}
    assert first["text"] == second["text"] == found["cold"]["text"]


def test_a_streamed_answer_is_the_same(found: dict[str, Any]) -> None:
    assert found["streamed"] == found["cold"]["text"]


def test_hints_arrive_as_the_page_for_clients_sends_them(found: dict[str, Any]) -> None:
    ledger = found["documented"]["ledger"]
    assert ledger["hints"] == ["session", "tool_call", "return", "priority"]
    assert ledger["ignored_hints"] == 0
    assert ledger["ending"] in ("stop", "length")
    by_header = found["by header"]["ledger"]
    assert by_header["hints"] == ["session"]
    assert found["by header"]["text"] == found["cold"]["text"]


def test_malformed_hints_change_no_answer(found: dict[str, Any]) -> None:
    ledger = found["malformed"]["ledger"]
    assert (ledger["hints"], ledger["ignored_hints"]) == ([], 3)
    assert ledger["hit_tokens"] == {"host": full(found["malformed"])}
    assert found["malformed"]["text"] == found["cold"]["text"]


def test_a_closed_connection_ends_its_request_and_nothing_else(found: dict[str, Any]) -> None:
    assert found["generated"] < 1500
    assert found["after"]["text"] == found["cold"]["text"]
    assert found["after"]["ledger"]["hit_tokens"] == {"host": full(found["after"])}


def test_after_sigterm_the_first_request_of_the_next_server_hits_on_disk(
    found: dict[str, Any],
) -> None:
    assert found["restarted"]["ledger"]["hit_tokens"] == {"disk": full(found["restarted"])}
    assert found["restarted"]["text"] == found["cold"]["text"]


def test_a_server_starts_beside_the_orphan_of_a_killed_one(found: dict[str, Any]) -> None:
    assert found["orphan"], "the core of the killed server was gone"
    miss, hit = found["beside"]
    assert miss["ledger"]["hit_tokens"] == {}
    assert hit["ledger"]["hit_tokens"] == {"host": full(hit)}
    assert miss["text"] == hit["text"] == found["cold"]["text"]
    assert found["folders"] == 2


def test_after_the_worker_was_killed_alone_the_next_server_hits_on_disk(
    found: dict[str, Any],
) -> None:
    assert found["last"]["ledger"]["hit_tokens"] == {"disk": full(found["last"])}
    assert found["last"]["text"] == found["cold"]["text"]
