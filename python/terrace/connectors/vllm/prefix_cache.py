"""The engine's own prefix cache: what was promised and did not come has to leave it.

At its admission the engine gives a request's promised blocks, and those that it computes behind
them, the hashes of their tokens. When the load fails (policy `recompute`) it relies on the request
to compute them again; one that is aborted or preempted before that leaves them behind, for whoever
comes with the same prefix.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Set
from typing import Any

# A load fails in the step of its request's admission; the engine may be a step ahead by then.
_STEPS = 4


class PrefixCache:
    """Scheduler's side, in the scheduler's thread; nothing waits."""

    def __init__(self) -> None:
        self._manager: Any = None
        self._steps: deque[list[Any]] = deque([[]], maxlen=_STEPS)

    def bind(self, manager: Any) -> None:
        """`manager`: vLLM's KVCacheManager; without one nothing is dropped."""
        self._manager = manager

    def admit(self, request_id: str, blocks: Any) -> None:
        """`blocks`: the request's KVCacheBlocks. Their lists outlive the request."""
        self._steps[-1].append((request_id, blocks))

    def end_step(self) -> None:
        self._steps.append([])

    def drop(self, failed: Set[int]) -> None:
        """Blocks whose load failed, and all that any request has behind one of them.

        More than is needed costs a miss: blocks lose their hashes, not their owners."""
        if not failed or self._manager is None:
            return
        doomed = set(failed)
        for step in self._steps:
            for request_id, blocks in step:
                # A request that was preempted or ended has none any more.
                now = self._manager.get_block_ids(request_id)
                for table in (*blocks.get_block_ids(), *now):
                    doomed.update(_from_first(table, failed))
        self._manager.evict_blocks(doomed)


def _from_first(table: Iterable[int], failed: Set[int]) -> list[int]:
    blocks = list(table)
    first = next((i for i, block in enumerate(blocks) if block in failed), len(blocks))
    return blocks[first:]
