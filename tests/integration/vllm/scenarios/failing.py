"""A connector beside Terrace below vLLM's MultiConnector, whose loads fail.

While `claims` is set it promises so many tokens of each request, for the step in which they are
asked for; its worker fills their blocks with nonsense and names them as failed.
Imported by vLLM alone, in the engine's process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    SupportsHMA,
)


@dataclass
class Promised(KVConnectorMetadata):  # type: ignore[misc] # vLLM is Any to mypy
    blocks: list[int]


class Failing(KVConnectorBase_V1, SupportsHMA):  # type: ignore[misc] # as above
    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self.claims = 0
        self.failures = 0
        self._block_tokens = kv_cache_config.kv_cache_groups[0].kv_cache_spec.block_size
        self._promised: list[int] = []
        self._caches: list[Any] = []

    # ---- Scheduler's side -----------------------------------------------------------------------

    def get_num_new_matched_tokens(self, _request: Any, computed: int) -> tuple[int, bool]:
        return max(0, self.claims - computed), False

    def update_state_after_alloc(self, _request: Any, blocks: Any, external: int) -> None:
        if external:
            self.failures += 1
            self._promised += blocks.get_block_ids()[0][: self.claims // self._block_tokens]

    def build_connector_meta(self, _output: Any) -> Promised:
        promised, self._promised = self._promised, []
        return Promised(promised)

    def request_finished_all_groups(
        self, _request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, None]:
        del block_ids
        return False, None

    # ---- Worker's side --------------------------------------------------------------------------

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        self._caches = list(kv_caches.values())

    def start_load_kv(self, _context: Any, **_more: Any) -> None:
        for cache in self._caches:
            for block in self._get_connector_metadata().blocks:
                cache[block].fill_(0.5)

    def wait_for_layer_load(self, layer_name: str) -> None:
        pass

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **_: Any) -> None:
        pass

    def wait_for_save(self) -> None:
        pass

    def get_block_ids_with_load_errors(self) -> set[int]:
        return set(self._get_connector_metadata().blocks)
