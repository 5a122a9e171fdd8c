"""The core's events become vLLM's, field by field."""

from __future__ import annotations

import json
from typing import Any

from terrace.connectors.vllm import events

HASH = "0" * 16 + "00000000000000ff"


def translate(*found: dict[str, Any]) -> list[Any]:
    def make(kind: str) -> Any:
        return lambda **fields: (kind, fields)

    text = json.dumps(list(found))
    return list(events.translate(text, make("stored"), make("removed"), make("cleared")))


def stored(**other: Any) -> dict[str, Any]:
    event = {"op": "stored", "tier": "host", "hash": HASH, "alias": 7, "parent": None}
    event |= {"parent_alias": None, "tokens": [1, 2], "block_tokens": 2, "group": 0}
    return event | {"locality": "local"} | other


def test_a_stored_block_names_tokens_parent_medium_and_locality() -> None:
    ((kind, fields),) = translate(stored(parent=HASH, parent_alias=6))
    assert kind == "stored"
    assert fields["block_hashes"] == [7]
    assert fields["parent_block_hash"] == 6
    assert fields["token_ids"] == [1, 2]
    assert fields["block_size"] == 2
    assert fields["medium"] == "CPU"
    assert fields["locality"] == "LOCAL"
    assert fields["group_idx"] == 0


def test_tiers_become_vllms_media() -> None:
    tiers = ["host", "disk", "object", "peer"]
    media = [fields["medium"] for _, fields in translate(*(stored(tier=tier) for tier in tiers))]
    assert media == ["CPU", "STORAGE", "EXTERNAL", "EXTERNAL"]


def test_without_alias_the_sequence_hashs_low_bits_stand_in() -> None:
    ((_, fields),) = translate(stored(alias=None, parent=HASH))
    assert fields["block_hashes"] == [255]
    assert fields["parent_block_hash"] == 255


def test_extra_keys_take_vllms_published_form() -> None:
    keys = [
        {"kind": 1, "identity": b"tenant".hex()},
        {"kind": 2, "identity": b"adapter\0digest".hex()},
        {"kind": 3, "identity": b"image".hex(), "offset": -3},
    ]
    ((_, fields),) = translate(stored(extra_keys=keys))
    assert fields["lora_name"] == "adapter"
    assert fields["extra_keys"] == [("tenant", "adapter", ("image", -3))]


def test_removed_cleared_and_unknown_events() -> None:
    removed = {"op": "removed", "tier": "disk", "hash": HASH, "alias": 9, "group": 0}
    found = translate(removed, {"op": "of tomorrow"}, {"op": "cleared"})
    assert [kind for kind, _ in found] == ["removed", "cleared"]
    assert found[0][1]["block_hashes"] == [9]
    assert found[0][1]["medium"] == "STORAGE"


def test_nothing_is_no_event() -> None:
    assert list(events.translate("", dict, dict, dict)) == []
