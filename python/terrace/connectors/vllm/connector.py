"""vLLM's connector class: each hook calls one method of a half and survives whatever that does.

A hook never raises into the engine.  The first internal error makes its half fall: from then on
every look-up misses and every promised load is reported as failed, so the engine recomputes.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorTransferResults,
    KVConnectorWorkerMetadata,
    SupportsHMA,
)

from terrace import _native
from terrace.connectors.vllm import compat, environment, events, fingerprint, hints, layout
from terrace.connectors.vllm.keys import KeyMaker
from terrace.connectors.vllm.log import LOGGER
from terrace.connectors.vllm.prefix_cache import PrefixCache
from terrace.connectors.vllm.scheduler import SchedulerHalf, Step, wants_ledger
from terrace.connectors.vllm.stats import FrontEnd, payload
from terrace.connectors.vllm.worker import Arrivals, WorkerHalf, failed_without_worker

# vLLM keeps one worker connector per process: a second engine gets the first one's.
_SECOND_ENGINE = (
    "a second engine in this process was given the first one's connector; start each in a process "
    "of its own, or call ensure_kv_transfer_shutdown() between them"
)


@dataclass
class TerraceMetadata(KVConnectorMetadata):  # type: ignore[misc] # vLLM is Any to mypy
    """Scheduler to workers, once a step; the orders are opaque."""

    step: Step


@dataclass
class TerraceWorkerMetadata(KVConnectorWorkerMetadata):  # type: ignore[misc] # as above
    """Workers to scheduler: opaque reports, and why a worker stands aside."""

    reports: list[bytes]
    fallen: list[str]

    def aggregate(self, other: KVConnectorWorkerMetadata) -> KVConnectorWorkerMetadata:
        assert isinstance(other, TerraceWorkerMetadata)
        return TerraceWorkerMetadata(self.reports + other.reports, self.fallen + other.fallen)


def hook(fallback: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Guards a method: when it raises, its half falls and `fallback` answers in its place."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def guarded(self: TerraceConnector, *args: Any, **kwargs: Any) -> Any:
            try:
                return method(self, *args, **kwargs)
            except Exception as error:  # Whatever it is, the engine must not see it.
                self._fall(f"{method.__name__}: {type(error).__name__}: {error}")
            return fallback(self, *args, **kwargs)

        return guarded

    return decorate


def _nothing(_self: Any, *_args: Any, **_kwargs: Any) -> None:
    return None


def _miss(_self: Any, *_args: Any, **_kwargs: Any) -> tuple[int, bool]:
    return 0, False


class TerraceConnector(FrontEnd, KVConnectorBase_V1, SupportsHMA):  # type: ignore[misc] # as above
    """Several KV tiers below the engine's own cache."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self._is_worker = role == KVConnectorRole.WORKER
        self._has_fallen = False
        self._scheduler: SchedulerHalf | None = None
        self._worker: WorkerHalf | None = None
        self._fallen: list[str] = []  # Reasons not yet told to the scheduler's side.
        self._kept: list[Any] = []  # Halves that fell: their memory stays until shutdown.
        self._local: dict[str, int] = {}  # Request -> local tokens of its last look-up.
        self._prefix_cache = PrefixCache()
        self._owed: list[int] = []  # Promised blocks that nobody will load.
        self._owed_requests: list[str] = []  # The same of loads that the engine does not wait for.
        self._failed: set[int] = set()  # Worker: blocks of this step that must not be used.
        self._arrivals = Arrivals()
        self._refusal = ""
        try:
            self._refusal = self._refused()
            if role == KVConnectorRole.SCHEDULER:
                self._announce()
                if not self._refusal:
                    self._warn_of_hashes()
                    self._warn_of_bare_items()
                    self._scheduler = self._open_scheduler()
            elif not self._refusal:
                self._warn_of_policy()
        except _native.TerraceError as error:
            self._stand_aside(error)
        except Exception as error:  # The engine starts without us rather than not at all.
            self._refusal = f"{type(error).__name__}: {error}"
        if self._refusal:
            self._say_refusal()

    # ---- Start ----------------------------------------------------------------------------------

    def _refused(self) -> str:
        version = compat.engine_version()
        return (
            compat.contract_refusal(KVConnectorBase_V1, version)
            or compat.signature_refusal(TerraceConnector, UNKNOWN_MEMBERS, version)
            or compat.refusal(self._vllm_config, self._kv_cache_config)
        )

    def _say_refusal(self) -> None:
        LOGGER.error(
            "terrace: health=red: stands aside, the engine runs as without it: %s", self._refusal
        )
        self._fallen.append(self._refusal)

    def _stand_aside(self, error: _native.TerraceError) -> None:
        """A setting that is wrong stops the start, naming it; anything else only stops us."""
        if compat.is_wrong_setting(error):
            raise ValueError(f"terrace: {error.text}") from error
        self._refusal = str(error)

    def _announce(self) -> None:
        version = compat.engine_version()
        for line in compat.contract_report(KVConnectorBase_V1, version):
            LOGGER.info("terrace: %s", line)

    def _warn_of_policy(self) -> None:
        policy = compat.failure_policy(self._vllm_config)
        if policy != "recompute":
            LOGGER.warning(
                "terrace: kv_load_failure_policy is '%s': a load that fails ends its request with "
                "an error; set it to 'recompute' beside the outermost kv_connector",
                policy,
            )

    def _warn_of_hashes(self) -> None:
        if compat.has_kv_events(self._vllm_config) and compat.sends_whole_hashes():
            LOGGER.warning(
                "terrace: VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES=0: the engine's events name blocks "
                "by 32 bytes, Terrace's by the last 8 of them; unset it where both are to match"
            )

    def _warn_of_bare_items(self) -> None:
        if compat.accepts_bare_items(self._vllm_config):
            LOGGER.warning(
                "terrace: kv_role '%s' makes this vLLM accept multimodal items without their "
                "content (image_embeds and the like) from any client; a model that cannot do "
                "without it may end the engine: let no such request through your gateway",
                self._kv_transfer_config.kv_role,
            )

    def _settings_json(self) -> str:
        settings = dict(self._kv_transfer_config.kv_connector_extra_config or {})
        if compat.has_kv_events(self._vllm_config):
            settings.setdefault("events.enabled", True)
        for name, value in settings.items():
            try:
                json.dumps(value, default=os.fspath, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise _native.TerraceError(
                    "settings", _native.Code.INVALID, f"setting {name} (engine JSON): {error}"
                ) from error
        return json.dumps(settings, default=os.fspath)

    def _planned(self) -> _native.Layout:
        ranks = self._vllm_config.parallel_config.tensor_parallel_size
        return layout.planned(self._kv_cache_config, ranks)

    def _open_scheduler(self) -> SchedulerHalf:
        config, cache = self._vllm_config, self._kv_cache_config
        directory = compat.model_directory(config)
        if not directory:
            raise FileNotFoundError(f"no folder with the weights of {config.model_config.model}")
        isa = compat.attention_isa(config, cache)
        variables = environment.fields(os.environ, compat.declared_variables())
        planned = self._planned()
        owner = _native.Owner(
            planned,
            engine_id=str(self._kv_transfer_config.engine_id),
            settings_json=self._settings_json(),
            fingerprint=fingerprint.text(
                fingerprint.content_fields(config, compat.engine_version(), directory, variables),
                fingerprint.layout_fields(config, cache, isa),
            ),
            model_directory=directory,
            can_store=self._kv_transfer_config.is_kv_producer,
            can_load=self._kv_transfer_config.is_kv_consumer,
        )
        keys = KeyMaker(
            _native.digest_weights, compat.sees_items(config), fingerprint.adapter_settings(config)
        )
        return SchedulerHalf(
            owner,
            keys,
            planned,
            has_events=compat.has_kv_events(config),
            hash_tokens=compat.hash_tokens(config, cache, planned.block_tokens),
            call_ends=hints.tool_call_ends(directory),
        )

    def _fall(self, reason: str) -> None:
        """An internal error: this half only misses from now on."""
        if self._has_fallen:
            return  # A body that fails without its half, too: each step would tell it.
        self._has_fallen = True
        self._refusal = self._refusal or f"an internal error: {reason}"
        try:
            LOGGER.error("terrace: health=red: stands aside after an internal error: %s", reason)
            if self._scheduler is not None:
                self._owed += self._scheduler.promised_blocks()
                self._owed_requests += self._scheduler.promised_requests()
                self._kept.append(self._scheduler)
            if self._worker is not None:
                self._kept.append(self._worker)
            if self._is_worker:
                self._fallen.append(reason)
        finally:
            self._scheduler = self._worker = None

    # ---- Class and properties -------------------------------------------------------------------

    @property
    def requires_kv_delivery(self) -> bool:
        return False  # A cache: what is not stored is a later miss.

    # ---- Scheduler's side -----------------------------------------------------------------------

    @hook(_nothing)
    def bind_kv_cache_manager(self, kv_cache_manager: Any) -> None:
        self._prefix_cache.bind(kv_cache_manager)

    @hook(_nothing)
    def on_new_request(self, request: Any) -> None:
        if self._scheduler is not None:
            self._scheduler.begin(request)

    @hook(_miss)
    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        if self._scheduler is None:
            return 0, False
        self._local[request.request_id] = num_computed_tokens
        found = self._scheduler.match(request, num_computed_tokens)
        return found, bool(found) and self._scheduler.is_async

    def _owe(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Tokens were promised and will not come: their blocks will be reported as failed."""
        if num_external_tokens <= 0:
            return
        if not self._planned().is_plain:
            self._owed_requests.append(request.request_id)
            return
        size = self._planned().block_tokens
        local = self._local.get(request.request_id, 0)
        last = -(-(local + num_external_tokens) // size)
        self._owed += blocks.get_block_ids()[0][local // size : last]

    def _no_tables(self) -> tuple[tuple[int, ...], ...]:
        return ((),) * len(self._kv_cache_config.kv_cache_groups)

    @hook(_owe)
    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        self._prefix_cache.admit(request.request_id, blocks)
        if self._scheduler is None:
            self._owe(request, blocks, num_external_tokens)
            return
        local = self._local.get(request.request_id, 0)
        tables = blocks.get_block_ids() if num_external_tokens else self._no_tables()
        self._scheduler.accept(request, local, num_external_tokens, tables)

    def _bare_metadata(self, _output: Any) -> TerraceMetadata:
        owed, self._owed = self._owed, []
        requests, self._owed_requests = self._owed_requests, []
        return TerraceMetadata(Step(failed_blocks=tuple(owed), failed_requests=tuple(requests)))

    @hook(_bare_metadata)
    def build_connector_meta(self, scheduler_output: Any) -> TerraceMetadata:
        self._prefix_cache.end_step()
        if self._scheduler is None:
            return self._bare_metadata(scheduler_output)
        return TerraceMetadata(self._scheduler.build_step(scheduler_output))

    @hook(_nothing)
    def update_connector_output(self, connector_output: Any) -> None:
        self._prefix_cache.drop(connector_output.invalid_block_ids or frozenset())
        if self._scheduler is None:
            return
        meta = connector_output.kv_connector_worker_meta
        reports: list[bytes] = []
        if isinstance(meta, TerraceWorkerMetadata):
            reports = meta.reports
            self._scheduler.stats.note()
            if meta.fallen:
                self._fall(f"a worker stands aside: {meta.fallen[0]}")
                return
        self._scheduler.take_output(
            reports,
            connector_output.invalid_block_ids or (),
            connector_output.failed_recving or (),
        )

    def _unfinished(self, *_args: Any) -> tuple[bool, dict[str, Any] | None]:
        return False, None

    @hook(_unfinished)
    def request_finished(
        self, request: Any, block_ids: list[int]
    ) -> tuple[bool, dict[str, Any] | None]:
        found: tuple[bool, dict[str, Any] | None]
        found = self.request_finished_all_groups(request, (block_ids,))
        return found

    def _answer_without_half(self, request: Any) -> dict[str, Any] | None:
        """Who asks for the ledger hears why there is none: the log is not all that people see."""
        if not wants_ledger(request.kv_transfer_params):
            return None
        return {"terrace": {"ledger": None, "health": "red", "problem": self._refusal}}

    @hook(_unfinished)
    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        del block_ids  # Everything that is kept was copied out before its step ended.
        self._local.pop(request.request_id, None)
        if self._scheduler is None:
            return False, self._answer_without_half(request)
        self._scheduler.stats.note()
        return False, self._scheduler.end(request)

    @hook(lambda _self: ())
    def take_events(self) -> Iterable[Any]:
        text = self._scheduler.events() if self._scheduler is not None else ""
        if not text:
            return ()
        from vllm.distributed.kv_events import AllBlocksCleared, BlockRemoved, BlockStored

        return list(events.translate(text, BlockStored, BlockRemoved, AllBlocksCleared))

    @hook(lambda _self: False)
    def reset_cache(self) -> bool | None:
        # What a half that fell has stored matches no more here, but would after a restart.
        kept = [] if self._is_worker else self._kept
        return all(half.reset() for half in (self._scheduler, *kept) if half is not None)

    # ---- The engine's /metrics ------------------------------------------------------------------

    @hook(_nothing)
    def get_kv_connector_stats(self) -> Any:
        return None if self._scheduler is None else payload(self._scheduler.stats.take())

    # ---- Worker's side --------------------------------------------------------------------------

    @hook(_nothing)
    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        if self._refusal:
            return
        if self._worker is not None:
            # Whose memory a step's orders mean could not be told any more.
            self._refusal = _SECOND_ENGINE
            self._kept.append(self._worker)
            self._worker = None
            self._say_refusal()
            return
        try:
            self._worker = self._open_worker(kv_caches)
        # Not even for a setting that is wrong: the owner, opened with the same ones, names it.
        except Exception as error:
            self._refusal = f"{type(error).__name__}: {error}"
        if self._refusal:
            self._say_refusal()

    def _open_worker(self, kv_caches: dict[str, Any]) -> WorkerHalf:
        groups = layout.registered(self._kv_cache_config, kv_caches)
        worker = _native.Worker(
            self._planned(),
            compat.tensor_rank(),
            groups,
            engine_id=str(self._kv_transfer_config.engine_id),
            settings_json=self._settings_json(),
        )
        return WorkerHalf(worker)

    def _step(self) -> Step:
        metadata = self._connector_metadata
        return metadata.step if isinstance(metadata, TerraceMetadata) else Step()

    @hook(_nothing)
    def handle_preemptions(self, kv_connector_metadata: Any) -> None:
        if self._worker is not None and isinstance(kv_connector_metadata, TerraceMetadata):
            self._worker.before_step(kv_connector_metadata.step.orders)

    def _fail_loads(self, *_args: Any, **_kwargs: Any) -> None:
        self._failed |= failed_without_worker(self._step())
        self._arrivals.note_all_failed(self._step())

    @hook(_fail_loads)
    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        del forward_context, kwargs
        step = self._step()
        if not step.promises:
            return
        if self._worker is None:
            self._fail_loads()
            return
        failed = self._worker.load(step.orders, step.load_blocks or step.request_blocks())
        self._arrivals.note(step, failed)
        if not step.load_requests:
            self._failed |= failed | set(step.failed_blocks)

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Loads are complete before the forward pass begins."""

    def save_kv_layer(
        self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any
    ) -> None:
        """Blocks are copied out whole, at the end of the step."""

    @hook(_nothing)
    def wait_for_save(self) -> None:
        if self._worker is not None:
            self._worker.save(self._step().orders)

    def _all_failed(self) -> set[int]:
        failed, self._failed = self._failed, set()
        return failed

    @hook(_all_failed)
    def get_block_ids_with_load_errors(self) -> set[int]:
        return self._all_failed()

    def _arrived(self, *_args: Any) -> KVConnectorTransferResults:
        finished, failed = self._arrivals.take()
        return KVConnectorTransferResults(finished_recving=finished, failed_recving=failed)

    @hook(_arrived)
    def get_transfer_results(self, finished_req_ids: set[str]) -> KVConnectorTransferResults:
        del finished_req_ids  # Nothing is held for them.
        return self._arrived()

    def _fallen_metadata(self) -> TerraceWorkerMetadata | None:
        fallen, self._fallen = self._fallen, []
        return TerraceWorkerMetadata([], fallen) if fallen else None

    @hook(_fallen_metadata)
    def build_connector_worker_meta(self) -> TerraceWorkerMetadata | None:
        if self._worker is None:
            return self._fallen_metadata()
        report = self._worker.report()
        return TerraceWorkerMetadata([report], []) if report else None

    def _close_halves(self) -> None:
        halves = [self._scheduler, self._worker, *self._kept]
        self._scheduler = self._worker = None
        self._kept = []
        for half in halves:
            try:
                if half is not None:
                    half.close()
            except Exception as error:  # The others are closed all the same.
                LOGGER.error("terrace: shutdown: %s: %s", type(error).__name__, error)

    @hook(_close_halves)
    def shutdown(self) -> None:
        self._close_halves()


# A later vLLM may leave more to its connectors: its own bodies answer then.  The engine starts, and
# the probe stands aside.
UNKNOWN_MEMBERS: frozenset[str] = getattr(TerraceConnector, "__abstractmethods__", frozenset())
TerraceConnector.__abstractmethods__ = frozenset()
