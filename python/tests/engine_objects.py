"""Small stand-ins for what vLLM hands to a connector: only the attributes that are read."""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

SETTINGS: dict[str, Any] = {}  # Of every start; a test that changes them changes them back.


class Base:
    """As much of vLLM's base class as a start needs."""

    def __init__(self, vllm_config: Any, _role: Any, kv_cache_config: Any) -> None:
        self._vllm_config, self._kv_cache_config = vllm_config, kv_cache_config
        self._kv_transfer_config = SimpleNamespace(
            engine_id="an engine",
            kv_role="kv_both",
            kv_connector_extra_config=SETTINGS,
            kv_load_failure_policy="recompute",
        )


class Request:
    """Like vLLM's: attributes in __dict__, token counts as properties."""

    def __init__(self, request_id: str, prompt: list[int], **other: Any) -> None:
        self.request_id = request_id
        self.prompt_token_ids: list[int] | None = prompt
        self.all_token_ids = list(prompt)
        self.prompt_embeds: Any = None
        self.prompt_is_token_ids: Any = None
        self.resumable = False
        self.cache_salt: str | None = None
        self.lora_request: Any = None
        self.mm_features: list[Any] = []
        self.kv_transfer_params: Any = None
        self.skip_reading_prefix_cache = False
        self.block_hashes: list[bytes] = []
        for name, value in other.items():
            setattr(self, name, value)

    @property
    def num_tokens(self) -> int:
        return len(self.all_token_ids)


class Item(UserDict[Any, Any]):
    """A multimodal item as the model gets it: fields, each in an element of its own."""

    def __init__(self, fields: dict[Any, Any]) -> None:
        super().__init__({name: SimpleNamespace(data=value) for name, value in fields.items()})


def feature(identifier: str | None, offset: Any, length: int, data: Any, **other: Any) -> Any:
    position = {"offset": offset, "length": length, "is_embed": other.pop("is_embed", None)}
    return SimpleNamespace(
        identifier=identifier,
        mm_position=SimpleNamespace(**position),
        data=data,
        **({"modality": "image"} | other),
    )


@dataclass
class Scheduled:
    """One request's part of a step."""

    request: Request
    computed: int
    count: int
    table: list[int]
    is_new: bool = True
    is_resumed: bool = False


@dataclass
class Output:
    parts: list[Scheduled] = field(default_factory=list)

    @property
    def scheduled_new_reqs(self) -> list[Any]:
        return [
            SimpleNamespace(req_id=part.request.request_id, num_computed_tokens=part.computed)
            for part in self.parts
            if part.is_new
        ]

    @property
    def scheduled_cached_reqs(self) -> Any:
        old = [part for part in self.parts if not part.is_new]
        return SimpleNamespace(
            req_ids=[part.request.request_id for part in old],
            num_computed_tokens=[part.computed for part in old],
            resumed_req_ids={part.request.request_id for part in old if part.is_resumed},
        )

    @property
    def num_scheduled_tokens(self) -> dict[str, int]:
        return {part.request.request_id: part.count for part in self.parts}

    @property
    def kv_connector_block_state(self) -> Any:
        tables = {part.request.request_id: (part.table,) for part in self.parts}
        return SimpleNamespace(get_block_ids=tables.get)
