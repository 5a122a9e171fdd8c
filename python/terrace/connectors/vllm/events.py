"""From the core's events (docs/formats/events.md) to vLLM's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

_MEDIUM = {"host": "CPU", "disk": "STORAGE"}
_ELSEWHERE = "EXTERNAL"
_LOCALITY = {"local": "LOCAL", "remote": "REMOTE"}
_SALT, _LORA = 1, 2


def _alias(event: dict[str, Any], name: str, hash_name: str) -> int | None:
    """The engine's own hash; without it the sequence hash's low 64 bits; None = no such block."""
    alias = event.get(name)
    if alias is not None:
        return int(alias)
    digits = event.get(hash_name)
    return None if digits is None else int(digits[16:], 16)


def _extra(keys: list[dict[str, Any]]) -> tuple[str | None, tuple[Any, ...] | None]:
    """LoRA name, and the keys in the form of vLLM's events."""
    name: str | None = None
    found: list[Any] = []
    for key in keys:
        identity = bytes.fromhex(key["identity"])
        if key["kind"] == _LORA:
            name = identity.split(b"\0")[0].decode(errors="replace")
            found.append(name)
        elif key["kind"] == _SALT:
            found.append(identity.decode(errors="replace"))
        else:
            found.append((identity.decode(errors="replace"), int(key.get("offset", 0))))
    return name, tuple(found) or None


def _stored(event: dict[str, Any], make: Callable[..., Any]) -> Any:
    lora, extra = _extra(event.get("extra_keys", []))
    return make(
        block_hashes=[_alias(event, "alias", "hash")],
        parent_block_hash=_alias(event, "parent_alias", "parent"),
        token_ids=list(event.get("tokens", [])),
        block_size=int(event.get("block_tokens", len(event.get("tokens", [])))),
        lora_id=None,
        medium=_MEDIUM.get(event["tier"], _ELSEWHERE),
        lora_name=lora,
        extra_keys=[extra],
        group_idx=int(event.get("group", 0)),
        locality=_LOCALITY.get(event.get("locality", "local")),
    )


def _removed(event: dict[str, Any], make: Callable[..., Any]) -> Any:
    return make(
        block_hashes=[_alias(event, "alias", "hash")],
        medium=_MEDIUM.get(event["tier"], _ELSEWHERE),
        group_idx=int(event.get("group", 0)),
        locality=_LOCALITY.get(event.get("locality", "local")),
    )


def translate(
    events_json: str,
    stored: Callable[..., Any],
    removed: Callable[..., Any],
    cleared: Callable[[], Any],
) -> Iterator[Any]:
    """vLLM's events, made by the given classes; events of unknown kind are skipped."""
    for event in json.loads(events_json) if events_json else ():
        kind = event.get("op")
        if kind == "stored":
            yield _stored(event, stored)
        elif kind == "removed":
            yield _removed(event, removed)
        elif kind == "cleared":
            yield cleared()
