"""What did not come leaves the engine's own cache, with all that was computed behind it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from terrace.connectors.vllm.prefix_cache import PrefixCache


class Manager:
    """vLLM's KVCacheManager, as far as it is asked."""

    def __init__(self, tables: dict[str, list[int]]) -> None:
        self.tables = tables
        self.evicted: list[set[int]] = []

    def get_block_ids(self, request_id: str) -> tuple[list[int], ...]:
        return (self.tables.get(request_id, []),)

    def evict_blocks(self, block_ids: set[int]) -> None:
        self.evicted.append(set(block_ids))


def blocks(*ids: int) -> Any:
    return SimpleNamespace(get_block_ids=lambda: (list(ids),))


def bound(tables: dict[str, list[int]]) -> tuple[PrefixCache, Manager]:
    cache, manager = PrefixCache(), Manager(tables)
    cache.bind(manager)
    return cache, manager


def test_the_bad_block_goes_and_all_behind_it_in_every_request() -> None:
    cache, manager = bound({"a": [1, 2, 3, 4], "b": [1, 2, 5], "c": [7, 8]})
    cache.admit("a", blocks(1, 2, 3, 4))
    cache.admit("b", blocks(1, 2, 5))
    cache.admit("c", blocks(7, 8))
    cache.end_step()
    cache.drop({2})
    assert manager.evicted == [{2, 3, 4, 5}]


def test_what_was_computed_since_goes_too() -> None:
    cache, manager = bound({"a": [1, 2, 3]})
    cache.admit("a", blocks(1, 2))
    cache.end_step()
    cache.end_step()
    cache.drop({1})
    assert manager.evicted == [{1, 2, 3}]


def test_a_request_that_has_ended_is_remembered() -> None:
    cache, manager = bound({})
    cache.admit("a", blocks(1, 2, 3))
    cache.end_step()
    cache.drop({2})
    assert manager.evicted == [{2, 3}]


def test_older_steps_are_forgotten() -> None:
    cache, manager = bound({})
    cache.admit("a", blocks(1, 2))
    for _ in range(8):
        cache.end_step()
    cache.drop({1})
    assert manager.evicted == [{1}]


def test_without_a_failure_nobody_is_asked() -> None:
    cache, manager = bound({"a": [1]})
    cache.admit("a", blocks(1))
    cache.drop(set())
    assert manager.evicted == []
    PrefixCache().drop({1})


def test_a_half_that_fell_drops_what_it_had_promised(connector: Any) -> None:
    one = object.__new__(connector.TerraceConnector)
    one._scheduler, one._prefix_cache = None, PrefixCache()
    manager = Manager({"a": [1, 2]})
    one.bind_kv_cache_manager(manager)
    one._prefix_cache.admit("a", blocks(1, 2))
    one.update_connector_output(SimpleNamespace(invalid_block_ids={1}))
    assert manager.evicted == [{1, 2}]
