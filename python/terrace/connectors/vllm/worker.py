"""The connector's half in each rank: hands orders to the core and reports back.

Methods may raise; the connector turns that into failed loads.
"""

from __future__ import annotations

from typing import Any

from terrace._native import Code, TerraceError, Worker
from terrace.connectors.vllm.log import LOGGER, Drain

CLOSE_DEADLINE_NS = 2_000_000_000
_FATAL = (Code.INTERNAL, Code.CLOSED)


class WorkerHalf:
    """Invariant: a report is built only once no saves of the orders that it covers are to run.

    The core ends a step with its report and drops what is not saved by then.  An engine with drafts
    asks for the report before it lets the step's saves run: what it is given then covers earlier
    steps alone, and the step's own report goes with the next step, whatever that one does.  The
    start of the next step settles it: no saves of an earlier one run after that, also where the
    engine never let them run.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._is_due = False  # The library knows of orders that are in no report yet.
        self._has_saves = False  # Those of the orders before us may still be let run.
        self._held = b""  # Reports of earlier steps that nobody has asked for since.
        self._drain = Drain(worker.read_log)

    def before_step(self, orders: bytes) -> None:
        self._has_saves = False
        if self._is_due:
            self._held += self._build()
        if orders:
            self._is_due = self._has_saves = True
            try:
                self.worker.run_canary(orders)
            except TerraceError as error:
                self._tolerate(error)

    def load(self, orders: bytes, load_blocks: tuple[int, ...]) -> set[int]:
        """Device blocks that must not be used."""
        if not orders or not load_blocks:
            return set()
        code, failed = self.worker.run_loads(orders)
        if code == Code.OK:
            return set(failed)
        LOGGER.info("terrace: loads of a step failed: %s", code.name)
        # Unreadable orders name no blocks: then everything that they should have loaded failed.
        return set(failed) | set(load_blocks)

    def save(self, orders: bytes) -> None:
        if orders:
            self._has_saves = False  # Also where they fail: they do not run again.
            try:
                self.worker.run_saves(orders)
            except TerraceError as error:
                self._tolerate(error)

    def report(self) -> bytes:
        """Of all steps that are over for this rank; the rest comes with the next step's."""
        if self._is_due and not self._has_saves:
            self._held += self._build()
        told, self._held = self._held, b""
        return told

    def _build(self) -> bytes:
        self._drain.due()
        try:
            report = self.worker.build_report()
        except TerraceError as error:
            self._tolerate(error)  # It comes with the next step's.
            return b""
        self._is_due = False
        return report

    def close(self) -> None:
        self._drain.now()
        self.worker.close(CLOSE_DEADLINE_NS)

    def _tolerate(self, error: TerraceError) -> None:
        """What was not saved is not reported, so it is never offered: nothing else to do."""
        if error.code in _FATAL:
            raise error
        LOGGER.debug("terrace: %s", error)


def failed_without_worker(step: Any) -> set[int]:
    """With no worker at all, whatever the step promised has failed."""
    return set(step.load_blocks) | set(step.failed_blocks)


class Arrivals:
    """Requests whose loads have ended in this rank, until the engine asks: each is told once.

    For loads that the engine does not wait for: there a failure names the request, not blocks.
    """

    def __init__(self) -> None:
        self._finished: set[str] = set()
        self._failed: set[str] = set()

    def note(self, step: Any, failed_blocks: set[int]) -> None:
        """The step's loads were run; `failed_blocks` must not be used."""
        for request_id, blocks in step.load_requests:
            self._finished.add(request_id)
            if not failed_blocks.isdisjoint(blocks):
                self._failed.add(request_id)
        self._finished.update(step.failed_requests)
        self._failed.update(step.failed_requests)

    def note_all_failed(self, step: Any) -> None:
        """None of the step's loads was run."""
        ids = {request_id for request_id, _ in step.load_requests} | set(step.failed_requests)
        self._finished |= ids
        self._failed |= ids

    def take(self) -> tuple[set[str], set[str]]:
        """Those that have ended, and those among them that have failed."""
        told = self._finished, self._failed
        self._finished, self._failed = set(), set()
        return told
