"""A real owner that does some of everything, for those who watch it: stores, loads, faults."""

from __future__ import annotations

import http.client
import json
import socket
import time
from array import array
from contextlib import suppress
from pathlib import Path
from typing import Any

from terrace import _native
from terrace._native import TerraceError
from terrace.cli import damage
from tests.test_real_library import BLOCK_TOKENS, Pair, until

PROMPT_TOKENS = 3 * BLOCK_TOKENS + 1
SPARE = [9, 10, 11, 12]  # Blocks that loads go to.
COMPUTE_S = 0.02  # What a pretended step that computes takes: more than any load.


def tokens(prompt: int) -> array[int]:
    return array("I", range(prompt * 100, prompt * 100 + PROMPT_TOKENS))


class WatchedEngine(Pair):
    """Host for 64 blocks, so that older ones come from disk, and a store that engines share."""

    def __init__(self, folder: Path, **more: Any) -> None:
        """`more`: settings beside those below, with `__` for the dot."""
        self.disk, store, self.sockets = folder / "disk", folder / "store", folder / "run"
        for path in (self.disk, store):
            path.mkdir()
        self.sockets.mkdir(mode=0o700)
        self._computes = True
        super().__init__(
            {
                "host.size": "1MiB",
                "disk.size": "8MiB",
                "disk.paths": [str(self.disk)],
                "disk.direct": False,
                "disk.scrub_rate": "1GiB",
                "object.path": str(store),
                "object.pack_blocks": 2,
                "object.max_age": "1h",
                "attach.directory": str(self.sockets),
                "planner.enabled": True,
            }
            | {name.replace("__", "."): value for name, value in more.items()}
        )

    def step(self) -> set[int]:
        orders = self.owner.build_orders()
        if not orders:
            return set()
        self.worker.run_canary(orders)
        _, failed = self.worker.run_loads(orders)
        end = time.perf_counter() + (COMPUTE_S if self._computes else 0)
        while time.perf_counter() < end:
            pass
        self.worker.run_saves(orders)
        self.owner.take_report(self.worker.build_report())
        self.owner.take_events()
        return set(failed)

    def store(self, prompt: int) -> None:
        """Computes a prompt and gives its three blocks to the tiers."""
        request = self.owner.begin_request(tokens(prompt))
        self.owner.hint_request(request, _native.Hints(b"a session", ignored=1))
        self.poll(request, 0, PROMPT_TOKENS - 1)
        self.owner.accept_load(request, 0, 0, [[3, 4, 5, 6]])
        self.owner.advance_request(request, PROMPT_TOKENS, array("I"), [[3, 4, 5, 6]])
        self.step()
        self.owner.end_request(request, _native.ENDING_STOP, 1)

    def load(self, prompt: int) -> dict[str, Any]:
        """Asks for a prompt that was stored; its ledger."""
        request = self.owner.begin_request(tokens(prompt))
        found = self.poll(request, 0, PROMPT_TOKENS - 1)
        if found:
            self.owner.accept_load(request, 0, found, [SPARE])
            self._computes = False
            self.step()
            self._computes = True
        ledger: dict[str, Any] = json.loads(self.owner.end_request(request))
        return ledger

    def settle(self) -> None:
        """Until no queue holds anything, nor the disk has blocks under way."""

        def is_settled() -> bool:
            self.step()
            status = json.loads(self.owner.read_status())
            slots = status["tiers"][1].get("slots", {})
            return not any(queue["waiting"] for queue in status["queues"]) and not (
                slots.get("filling", 1) or slots["reserved"]
            )

        until(is_settled)

    def refuse_a_report(self) -> None:
        with suppress(TerraceError):
            self.owner.take_report(b"no report")

    def damage_on_disk(self, prompt: int) -> None:
        """One byte of each of its blocks that are there."""
        for key in _native.hash_sequence(BLOCK_TOKENS, tokens(prompt)):
            with suppress(LookupError):
                path, offset = damage.find_frame(self.disk, key)
                damage.flip_byte(path, offset + damage.PAGE)

    def ask(self, method: str, path: str, content: Any = None) -> Any:
        """Of its own admin socket."""
        connection = http.client.HTTPConnection("terrace", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(30)
        (own,) = self.sockets.glob("*-admin.sock")
        connection.sock.connect(str(own))
        connection.request(method, path, None if content is None else json.dumps(content))
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        assert answer.status == 200, text
        return json.loads(text)
