"""A process of the online server stands still while requests run, and goes on: nothing is lost."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.engine import TEXTS, until
from tests.integration.vllm.server import OnlineEngine
from tests.soak import admin

PROCESSES = ("server", "core", "worker")
PROMPT, OTHER = TEXTS[0] * 14, TEXTS[1] * 14  # Some 250 tokens each.
LONG = 400  # Tokens of an answer that is under way for a while.
# A rank that owes a report for longer counts as one that may write at any time.
STEP_S = 1.0
SLOTS = 'terrace_pool_slots{{tier="host",state="{}"}}'
LOST = "terrace_lost_steps_total"
FAILED = 'terrace_loads_total{result="failed"}'
TRIES = 10

pytestmark = pytest.mark.timeout(1500)


class Asked:
    """A request in a thread of its own."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._found: list[Any] = []
        self._thread = threading.Thread(target=lambda: self._found.append(ask()))
        self._thread.start()

    def answer(self) -> Any:
        self._thread.join(timeout=300)
        assert self._found, "a request did not end"
        return self._found[0]


class Story:
    def __init__(self, work: Path) -> None:
        self.work = work
        self.found: dict[str, Any] = {"stops": {}}
        sockets = Path(f"/tmp/terrace-stops-{os.getpid()}")  # Where a path is short enough.
        disk = work / "disk"
        disk.mkdir()
        model = str(work / "model")
        made: dict[str, Any] = {
            "folder": model,
            "tokenizer": harness.model("float32"),
            "kind": "talking",
        }
        harness.run(work, "tiny.make", **made)
        settings: dict[str, Any] = {"host.size": "32MiB", "attach.step_timeout": f"{STEP_S:.0f}s"}
        settings |= {"disk.size": "256MiB", "disk.paths": [str(disk)]}
        settings |= {"attach.directory": str(sockets), "lookup.deadline": "500ms"}
        self.engine = OnlineEngine(work / "server", model, settings)
        self.engine.wait_ready()
        self.pids = {"server": self.engine.server.process.pid, "core": self.engine.core}
        self.pids["worker"] = self.engine.worker
        until("the owner answers", lambda: admin.find(sockets, self.pids["core"]) is not None)
        socket = admin.find(sockets, self.pids["core"])
        assert socket is not None
        self.socket = socket

    def metric(self, name: str) -> float:
        return admin.metrics(self.socket).get(name, 0.0)

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        pid = self.pids[name]
        os.kill(pid, signal.SIGSTOP)
        try:
            until(f"{name} stands still", lambda: _state(pid) == "T")
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def tell(self) -> dict[str, Any]:
        complete = self.engine.complete
        self.found["control"] = [complete(PROMPT), complete(OTHER)]
        self.found["long"] = complete(PROMPT, LONG)["text"]
        for name in PROCESSES:
            self.found["stops"][name] = self._stop_under_way(name)
        store = self._overdue(
            "quarantined", lambda: None, lambda n: complete(PROMPT, cache_salt=f"fresh {n}")
        )
        fresh = f"fresh {store['number']}"
        self.found["store"] = store
        self.found["stored"] = [complete(PROMPT, cache_salt=fresh) for _ in range(2)]
        self.found["host load"] = self._overdue(
            "pinned", lambda: complete(PROMPT), lambda _: complete(PROMPT)
        )
        self.found["last"] = [complete(PROMPT), complete(OTHER)]
        self.engine.wait_idle()
        until("nothing is in flight", lambda: self.metric("terrace_steps_in_flight") == 0)
        self.found |= {"metrics": admin.metrics(self.socket), "status": admin.status(self.socket)}
        self.found["running"] = self.engine.metric("vllm:num_requests_running")
        self.found["lives"] = set(self.pids.values()) <= set(self.engine.processes())
        return self.found

    def _stop_under_way(self, name: str) -> dict[str, Any]:
        """Answers under way and new ones; a process stands still for longer than a step may."""
        pieces = self.engine.stream(PROMPT, LONG)
        begun = next(pieces)
        streamed = Asked(lambda: begun + "".join(pieces))
        with self.stopped(name):
            since = time.monotonic()
            others = [
                Asked(lambda text=text: self.engine.complete(text))  # type: ignore[misc]
                for text in (PROMPT, OTHER)
            ]
            until("the deadlines are over", lambda: time.monotonic() > since + 1.5 * STEP_S)
        return {"streamed": streamed.answer(), "answers": [other.answer() for other in others]}

    def _overdue(
        self, state: str, prepare: Callable[[], Any], ask: Callable[[int], Any]
    ) -> dict[str, Any]:
        """The worker stands still before the step, until the owner gives its report up."""
        for number in range(TRIES):
            prepare()
            self.engine.wait_idle()
            before = admin.metrics(self.socket)
            with self.stopped("worker"):
                asked = Asked(partial(ask, number))
                is_given_up = self._is_given_up(state)
                held = self.metric("terrace_steps_in_flight")
                health = admin.status(self.socket)["health"]
            answer = asked.answer()
            if is_given_up:
                until("the report came", lambda: not self.metric("terrace_steps_in_flight"))
                now = admin.metrics(self.socket)
                grown = {name: value - before.get(name, 0) for name, value in now.items()}
                found = {"answer": answer, "held": held, "health": health, "grown": grown}
                return found | {"number": number}
        raise AssertionError(f"no step was under way {TRIES} times")

    def _is_given_up(self, state: str) -> bool:
        """False if the engine was still in the step that follows the end of the last request.

        A worker that stops there keeps the next request from being scheduled at all.
        """
        try:
            until(f"a step with {state} slots", lambda: self._is_owed(state), 5 * STEP_S)
        except AssertionError:
            return False
        if state == "pinned":  # Of a load: the owner holds its blocks no longer than that.
            until("the load is given up", lambda: not self._slots(state))
        return True

    def _is_owed(self, state: str) -> bool:
        found = admin.metrics(self.socket)
        return found["terrace_steps_in_flight"] > 0 and found[SLOTS.format(state)] > 0

    def _slots(self, state: str) -> float:
        return self.metric(SLOTS.format(state))


def _state(pid: int) -> str:
    text = Path(f"/proc/{pid}/stat").read_text()
    match = re.search(r"\) (\S) ", text)
    assert match is not None, text
    return match.group(1)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    story = Story(tmp_path_factory.mktemp("stops"))
    try:
        yield story.tell()
    finally:
        story.engine.close()


def full(answer: dict[str, Any]) -> int:
    return int((answer["ledger"]["prompt_tokens"] - 1) // 32 * 32)


@pytest.mark.parametrize("name", PROCESSES)
def test_whoever_stood_still_every_request_ends_with_the_right_answer(
    found: dict[str, Any], name: str
) -> None:
    stop = found["stops"][name]
    assert stop["streamed"] == found["long"]
    assert [one["text"] for one in stop["answers"]] == [one["text"] for one in found["control"]]


@pytest.mark.parametrize("name", ["store", "host load"])
def test_a_step_that_a_stopped_worker_owes_is_given_up_and_its_answer_right(
    found: dict[str, Any], name: str
) -> None:
    case = found[name]
    assert case["held"] == 1
    assert case["health"] == "green"
    assert case["answer"]["text"] == found["control"][0]["text"]
    assert case["grown"][LOST] == 1


def test_what_a_given_up_step_was_to_store_is_stored_by_the_next_request(
    found: dict[str, Any],
) -> None:
    # A block that the answer itself filled came with a later step.
    first, second = found["stored"]
    assert first["ledger"]["hit_tokens"] == {}
    assert second["ledger"]["hit_tokens"] == {"host": full(second)}
    assert first["text"] == second["text"] == found["control"][0]["text"]


def test_a_load_that_came_too_late_to_be_believed_is_counted_as_one(found: dict[str, Any]) -> None:
    case = found["host load"]
    assert case["grown"][FAILED] == 1
    assert case["answer"]["ledger"]["first_miss"] == "late"


def test_afterwards_all_is_as_before(found: dict[str, Any]) -> None:
    assert found["lives"]
    assert found["running"] == 0
    assert found["status"]["health"] == "green"
    for state in ("pinned", "filling", "reserved", "quarantined"):
        assert found["metrics"][SLOTS.format(state)] == 0
    for answer, control in zip(found["last"], found["control"], strict=True):
        assert answer["text"] == control["text"]
        assert sum(answer["ledger"]["hit_tokens"].values()) == full(answer)
