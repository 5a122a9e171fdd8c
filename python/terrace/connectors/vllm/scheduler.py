"""The connector's half beside the scheduler: requests in, orders out, reports in.

It keeps what the engine does not tell twice (how far a request was reported), and nothing else: all
knowledge of blocks is the core's.  Methods may raise; the connector turns that into misses.
"""

from __future__ import annotations

import json
import logging
import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from terrace import _native
from terrace._native import Code, Layout, Owner, TerraceError
from terrace.connectors.vllm import hints
from terrace.connectors.vllm.keys import KeyMaker, RequestKeys
from terrace.connectors.vllm.log import LOGGER, Drain
from terrace.connectors.vllm.stats import Teller

CLOSE_DEADLINE_NS = 3_600_000_000_000  # The setting shutdown.flush decides; this is its bound.
EVENTS_EVERY_S = 0.1
_FATAL = (Code.INTERNAL, Code.CLOSED)
_NO_TOKEN_IDS = "token ids outside 32 bits"
_MODES = {
    "on": 0,
    "readonly": _native.REQUEST_NO_STORE,
    "off": _native.REQUEST_NO_LOAD | _native.REQUEST_NO_STORE,
}
_DIGEST_S = 5.0  # After it a request whose items are still being digested is not cached.
_MOST_STRANGE_MODES = 16  # Remembered, to say each once: users send what they like.


@dataclass(slots=True)
class Live:
    """One request between arrival and end."""

    request: Any
    handle: int
    wants_ledger: bool
    given: int  # Token ids that the core has.
    keys: RequestKeys = field(default_factory=RequestKeys)
    reported: int = 0  # Full blocks that the core was told of.
    aliased: int = 0  # Blocks whose engine hash the core has.
    has_failed: bool = False  # A load failed: it is not offered again.
    is_arriving: bool = False  # Its load is under way, or has ended and the engine has not said so.
    # Without key, opted out, or refused by the core: no more stored or looked up.
    is_closed: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What a step's metadata carries to the workers."""

    orders: bytes = b""
    load_blocks: tuple[int, ...] = ()  # Device blocks that the orders load.
    failed_blocks: tuple[int, ...] = ()  # Promised to the engine, but nobody will load them.
    # The same for loads that the engine does not wait for, by request, with its device blocks.
    load_requests: tuple[tuple[str, tuple[int, ...]], ...] = ()
    failed_requests: tuple[str, ...] = ()

    @property
    def promises(self) -> bool:
        """Something was promised to the engine, whether it will come or not."""
        return bool(
            self.load_blocks or self.failed_blocks or self.load_requests or self.failed_requests
        )

    def request_blocks(self) -> tuple[int, ...]:
        """Device blocks of the loads that the engine does not wait for."""
        return tuple(block for _, blocks in self.load_requests for block in blocks)


@dataclass(slots=True)
class _Pending:
    """Collected between two calls of build_step."""

    is_due: bool = False  # The core has something to say.
    load_blocks: list[int] = field(default_factory=list)
    failed_blocks: list[int] = field(default_factory=list)
    load_requests: dict[str, tuple[int, ...]] = field(default_factory=dict)
    failed_requests: list[str] = field(default_factory=list)
    loading: list[tuple[Live, frozenset[int]]] = field(default_factory=list)


class SchedulerHalf:
    def __init__(
        self,
        owner: Owner,
        keys: KeyMaker,
        layout: Layout,
        *,
        has_events: bool,
        hash_tokens: int | None = None,
        call_ends: frozenset[int] = frozenset(),
    ) -> None:
        """`hash_tokens`: from one of a request's block hashes to the next; None = a block's."""
        self.owner = owner
        self._hints = hints.HintReader()
        self._call_ends = call_ends  # Tokens by which the model ends a tool call.
        self._keys = keys
        self._block_tokens = layout.block_tokens
        self._hashes_per_block = layout.block_tokens // (hash_tokens or layout.block_tokens)
        # Loads of several groups, or of a window, end at once or not at all, and the engine takes
        # their failures only by request: it does not wait for them.
        self.is_async = not layout.is_plain
        self._has_events = has_events
        self._live: dict[str, Live] = {}
        self._arriving: dict[str, float] = {}  # Without key as yet; when that is given up.
        self._unkeyed: dict[str, str] = {}  # Ledgers of unkeyable requests that asked for them.
        self._pending = _Pending()
        self._loading: list[tuple[Live, frozenset[int]]] = []
        self._step = Step()  # The last one.
        self._owes_taint = False  # The core has yet to hear of a step that must not be stored.
        self._has_ordered = False
        self._next_events = 0.0
        self._drain = Drain(owner.read_log)
        self.stats = Teller(owner.read_metrics, lambda: not self._live)
        self.unkeyable: dict[str, int] = {}
        self._strange_modes: set[str] = set()

    # ---- One request ----------------------------------------------------------------------------

    def begin(self, request: Any) -> None:
        if self._keys.is_ready(request):
            self._open(request)
        else:
            self._arriving[request.request_id] = time.monotonic() + _DIGEST_S

    def _has_key(self, request: Any) -> bool:
        """Or it is certain that it gets none."""
        until = self._arriving.get(request.request_id)
        if until is None:
            return True
        if not self._keys.is_ready(request) and time.monotonic() < until:
            return False
        del self._arriving[request.request_id]
        self._open(request)
        return True

    def _open(self, request: Any) -> None:
        found = self._keys.read(request)
        flags = 0
        tokens = None if found.unkeyable else _token_ids(request.prompt_token_ids)
        if tokens is None:
            found = RequestKeys(unkeyable=found.unkeyable or _NO_TOKEN_IDS)
            flags, tokens = _native.REQUEST_UNKEYABLE, array("I")
            self._count_unkeyable(found.unkeyable)
        if request.skip_reading_prefix_cache:
            flags |= _native.REQUEST_NO_LOAD
        flags |= self._mode_flags(request.kv_transfer_params)
        try:
            handle = self.owner.begin_request(
                tokens,
                flags,
                found.extra_keys,
                name=request.request_id,
                unkeyable=found.unkeyable,
                prompt_tokens=_prompt_tokens(request) if found.unkeyable else 0,
            )
        except TerraceError as error:
            _tolerate("request not cached", error)
            return
        is_asked = wants_ledger(request.kv_transfer_params)
        self._hint(request, handle)
        if found.unkeyable:
            try:
                text = self.owner.end_request(handle, wants_ledger=is_asked)
            except TerraceError as error:
                _tolerate("ledger lost", error)
                return
            if is_asked:
                self._unkeyed[request.request_id] = text
            return
        # What neither loads nor stores needs no more calls until its end.
        is_off = flags & _MODES["off"] == _MODES["off"]
        self._live[request.request_id] = Live(
            request, handle, is_asked, len(tokens), found, is_closed=is_off
        )
        self._pending.is_due = True

    def _hint(self, request: Any, handle: int) -> None:
        said = self._hints.read(request.kv_transfer_params, getattr(request, "session_id", None))
        if not said:
            return
        try:
            self.owner.hint_request(handle, said)
        except TerraceError as error:
            _tolerate("hints lost", error)

    def _mode_flags(self, params: Any) -> int:
        """A request opts out by kv_transfer_params {"terrace": {"mode": "off" | "readonly"}}."""
        own = params.get("terrace") if isinstance(params, dict) else None
        if not isinstance(own, dict) or "mode" not in own:
            return 0
        mode = own["mode"]
        if isinstance(mode, str) and mode in _MODES:
            return _MODES[mode]
        text = repr(mode)[:64]
        if text not in self._strange_modes and len(self._strange_modes) < _MOST_STRANGE_MODES:
            self._strange_modes.add(text)
            LOGGER.warning(
                "terrace: a request asks for mode %s, taken for off: modes are on, readonly, off",
                text,
            )
        return _MODES["off"]

    def _count_unkeyable(self, reason: str) -> None:
        count = self.unkeyable.get(reason, 0)
        self.unkeyable[reason] = count + 1
        if count == 0:
            LOGGER.warning("terrace: requests with %s are not cached", reason)

    def match(self, request: Any, local_tokens: int) -> int | None:
        """External tokens beyond the local ones; None = ask again."""
        if self._arriving and not self._has_key(request):
            return None
        live = self._live.get(request.request_id)
        if live is None or live.has_failed or live.is_closed or request.skip_reading_prefix_cache:
            return 0
        live.is_arriving = False
        # A hit must leave one token to compute.
        limit = request.num_tokens - 1
        try:
            found = self.owner.poll_request(live.handle, local_tokens, limit)
        except TerraceError as error:
            _close(live, error)
            return 0
        self._pending.is_due = True
        return found

    def accept(self, request: Any, local_tokens: int, external: int, tables: Any) -> None:
        """The request was admitted; with 0 external tokens only its ledger is settled."""
        live = self._live.get(request.request_id)
        if live is not None and not external and live.is_arriving:
            live.is_arriving = False  # What was accepted earlier has come: nothing new.
            return
        blocks = self.covered(tables, local_tokens, external)
        if live is None:
            self._fail(request.request_id, blocks, external)
            return
        try:
            self.owner.accept_load(live.handle, local_tokens, external, tables)
        except TerraceError as error:
            _tolerate("load not accepted", error)
            live.has_failed = True
            self._fail(request.request_id, blocks, external)
            return
        self._pending.is_due = True
        if external and self.is_async:
            live.is_arriving = True
            self._pending.load_requests[request.request_id] = tuple(blocks)
        elif external:
            self._pending.load_blocks += blocks
            self._pending.loading.append((live, frozenset(blocks)))

    def _fail(self, request_id: str, blocks: list[int], external: int) -> None:
        """The engine was promised what nobody will load."""
        if not external:
            return
        if self.is_async:
            self._pending.failed_requests.append(request_id)
        else:
            self._pending.failed_blocks += blocks

    def covered(
        self, tables: Sequence[Sequence[int]], local_tokens: int, external: int
    ) -> list[int]:
        """Device blocks that hold the external tokens, of all groups."""
        first = local_tokens // self._block_tokens
        last = -(-(local_tokens + external) // self._block_tokens)
        return [block for table in tables for block in table[first:last]]

    def end(self, request: Any) -> dict[str, Any] | None:
        """The ledger, if the request asked for it."""
        self._arriving.pop(request.request_id, None)
        live = self._live.pop(request.request_id, None)
        if live is None:
            text = self._unkeyed.pop(request.request_id, "")
            return _answer(text) if text else None
        is_logged = LOGGER.isEnabledFor(logging.DEBUG)
        try:
            how = hints.ending(request, self._call_ends)
            wants = is_logged or live.wants_ledger
            text = self.owner.end_request(live.handle, *how, wants_ledger=wants)
        except TerraceError as error:
            _tolerate("ledger lost", error)
            return None
        if is_logged:
            LOGGER.debug("terrace: request %s %s", request.request_id, text)
        return _answer(text) if live.wants_ledger else None

    # ---- One step -------------------------------------------------------------------------------

    def build_step(self, output: Any) -> Step:
        pending = self._pending
        bad = frozenset(pending.failed_blocks)
        for scheduled in output.scheduled_new_reqs:
            self._advance(output, scheduled.req_id, scheduled.num_computed_tokens, bad)
        cached = output.scheduled_cached_reqs
        for request_id, computed in zip(cached.req_ids, cached.num_computed_tokens, strict=True):
            self._advance(output, request_id, computed, bad)
        orders = b""
        if pending.is_due or not self._has_ordered:
            orders = self._orders(pending)
        step = Step(
            orders,
            tuple(pending.load_blocks),
            tuple(pending.failed_blocks),
            tuple(pending.load_requests.items()),
            tuple(pending.failed_requests),
        )
        self._loading = pending.loading
        self._pending = _Pending()
        self._step = step
        return step

    def _orders(self, pending: _Pending) -> bytes:
        try:
            orders = self.owner.build_orders()
        except TerraceError as error:
            _tolerate("step without orders", error)
            orders = b""
        if not orders:
            pending.failed_blocks += pending.load_blocks
            pending.load_blocks = []
            pending.failed_requests += pending.load_requests
            pending.load_requests = {}
        self._has_ordered = self._has_ordered or bool(orders)
        return orders

    def promised_blocks(self) -> list[int]:
        """Blocks that the engine was promised in this step, for when no orders can be built."""
        return self._pending.load_blocks + self._pending.failed_blocks

    def promised_requests(self) -> list[str]:
        """The same of loads that it does not wait for."""
        return [*self._pending.load_requests, *self._pending.failed_requests]

    def _advance(self, output: Any, request_id: str, computed: int, bad: frozenset[int]) -> None:
        live = self._live.get(request_id)
        if live is None or live.is_closed:
            return
        if live.keys.can_lapse and (why := self._keys.lapsed(live.keys)):
            live.is_closed = True
            self._count_unkeyable(why)
            return
        # Fewer than before: a load failed, or the request was preempted.
        live.reported = min(live.reported, computed // self._block_tokens)
        known = live.request.num_tokens
        total = min(computed + output.num_scheduled_tokens[request_id], known)
        full = total // self._block_tokens
        # After a failed load the core may still be checking its own copies of blocks that were
        # computed anew: it is asked again with each step.
        if full <= live.reported and not live.has_failed:
            return
        tables = output.kv_connector_block_state.get_block_ids(request_id)
        if tables is None or (bad and any(not bad.isdisjoint(table) for table in tables)):
            return  # This step computes on blocks that nobody filled: nothing of it is kept.
        tokens = _token_ids(live.request.all_token_ids[live.given : known])
        if tokens is None:
            # The core keeps it until its end: loads that it accepted for this step go on.
            live.is_closed = True
            self._count_unkeyable(_NO_TOKEN_IDS)
            return
        aliases = self._aliases(live, full)
        try:
            self.owner.advance_request(live.handle, total, tokens, tables, aliases, live.aliased)
        except TerraceError as error:
            _close(live, error)
            return
        live.given, live.reported = known, full
        live.aliased += len(aliases) if aliases else 0
        self._pending.is_due = True

    def _aliases(self, live: Live, full: int) -> array[int] | None:
        """The engine's own hashes, low 64 bits, of blocks that the core has none for."""
        if not self._has_events:
            return None
        # Each hash is chained: the last one within a block is the block's.
        each = self._hashes_per_block
        hashes = live.request.block_hashes[(live.aliased + 1) * each - 1 : full * each : each]
        return array("Q", [int.from_bytes(value[-8:], "big") for value in hashes])

    def take_output(
        self,
        reports: Iterable[bytes],
        failed_blocks: Iterable[int],
        failed_requests: Iterable[str] = (),
    ) -> None:
        failed = set(failed_blocks)
        joined = b"".join(reports)
        self._owes_taint = self._owes_taint or not self._are_ours(failed)
        if self._owes_taint and not self._taint():
            joined = b""
        if joined:
            self._next_events = 0.0
            try:
                self.owner.take_report(joined)
            except TerraceError as error:
                _tolerate("report refused", error)
        for request_id in failed_requests:
            live = self._live.get(request_id)
            if live is not None:
                live.has_failed, live.is_arriving = True, False
        if failed:
            for live, blocks in self._loading:
                if not failed.isdisjoint(blocks):
                    live.has_failed = True
        self._drain.due()

    def _are_ours(self, failed: set[int]) -> bool:
        """Loads of ours that failed: the core hears of those in the reports."""
        return failed <= {*self._step.load_blocks, *self._step.failed_blocks}

    def _taint(self) -> bool:
        """Another connector failed to load what a step computed on: none of it may be stored.

        False: the core could not be told.  Until it is, it gets no report, and so stores nothing.
        """
        LOGGER.info("terrace: another connector's loads failed: the step is not stored")
        try:
            self.owner.taint_steps()
        except TerraceError as error:
            _tolerate("reports dropped", error)
            return False
        self._owes_taint = False
        return True

    def events(self) -> str:
        """The core's events since the last call, as JSON; asked after reports or now and then."""
        if not self._has_events:
            return ""
        now = time.monotonic()
        if now < self._next_events:
            return ""
        self._next_events = now + EVENTS_EVERY_S
        try:
            return self.owner.take_events()
        except TerraceError as error:
            _tolerate("events lost", error)  # The next ones begin with `cleared`.
            return ""

    def reset(self) -> bool:
        """False when a later engine could still find on disk what was stored before."""
        try:
            self.owner.reset()
        except TerraceError as error:
            _tolerate("reset", error)
            LOGGER.warning("terrace: the cache is not reset on disk: %s", error)
            return False
        return True

    def close(self) -> None:
        self._keys.close()
        self._drain.now()
        self.owner.close(CLOSE_DEADLINE_NS)


def _tolerate(what: str, error: TerraceError) -> None:
    """Of a call that failed alone: a miss. A core that is poisoned or closed ends this half."""
    if error.code in _FATAL:
        raise error
    LOGGER.info("terrace: %s: %s", what, error)


def _close(live: Live, error: TerraceError) -> None:
    """The request goes on without us; the core keeps it until its end, as loads may be under way.

    To end it here would take back what the engine was promised for this very step.
    """
    _tolerate("request dropped", error)
    live.is_closed = True


def _answer(text: str) -> dict[str, Any]:
    return {"terrace": {"ledger": json.loads(text) if text else None}}


def _token_ids(numbers: Iterable[int]) -> array[int] | None:
    """As the core takes them; None when one of them is no such number."""
    try:
        return array("I", numbers)
    except (OverflowError, TypeError):
        return None


def _prompt_tokens(request: Any) -> int:
    """Also of a prompt without token ids."""
    count = getattr(request, "num_prompt_tokens", 0)
    return count if isinstance(count, int) else 0


def wants_ledger(params: Any) -> bool:
    """A request asks by kv_transfer_params {"terrace": {"ledger": true}}."""
    own = params.get("terrace") if isinstance(params, dict) else None
    return isinstance(own, dict) and bool(own.get("ledger"))
