"""A connector beside Terrace below vLLM's MultiConnector, as the sender of a prefill engine is.

It finds nothing and loads nothing.  With each step it sends its worker a number, which the worker
sends back, and it keeps the blocks of a finished request until its worker says that they were sent.
Imported by vLLM alone, in the engine's process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorWorkerMetadata,
    SupportsHMA,
)


@dataclass
class Letter(KVConnectorMetadata):  # type: ignore[misc] # vLLM is Any to mypy
    number: int


@dataclass
class Receipt(KVConnectorWorkerMetadata):  # type: ignore[misc] # as above
    number: int

    def aggregate(self, other: KVConnectorWorkerMetadata) -> KVConnectorWorkerMetadata:
        raise AssertionError(f"one rank has one receipt, and {other}")


class Sender(KVConnectorBase_V1, SupportsHMA):  # type: ignore[misc] # as above
    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self.sent = 0
        self.receipts: list[int] = []
        self.allocated: list[int] = []  # External tokens, as the engine names them to it.
        self.delivered: set[str] = set()

    # ---- Scheduler's side -----------------------------------------------------------------------

    def get_num_new_matched_tokens(self, _request: Any, _computed: int) -> tuple[int, bool]:
        return 0, False

    def update_state_after_alloc(self, _request: Any, _blocks: Any, external: int) -> None:
        self.allocated.append(external)

    def build_connector_meta(self, _output: Any) -> Letter:
        self.sent += 1
        return Letter(self.sent)

    def update_connector_output(self, output: Any) -> None:
        self.receipts.append(output.kv_connector_worker_meta.number)
        self.delivered |= output.finished_sending or set()

    def request_finished(self, _request: Any, blocks: list[int]) -> tuple[bool, dict[str, Any]]:
        return True, {"sender": {"blocks": len(blocks)}}

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any]]:
        return self.request_finished(request, block_ids[0])

    # ---- Worker's side --------------------------------------------------------------------------

    def start_load_kv(self, _context: Any, **_more: Any) -> None:
        self.sent = self._get_connector_metadata().number

    def wait_for_layer_load(self, layer_name: str) -> None:
        pass

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **_: Any) -> None:
        pass

    def wait_for_save(self) -> None:
        pass

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, None]:
        return finished_req_ids or None, None

    def build_connector_worker_meta(self) -> Receipt:
        return Receipt(self.sent)
