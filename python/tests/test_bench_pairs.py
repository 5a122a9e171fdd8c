"""What `vllm-ttft` compares was measured one after the other, as often as it says."""

from __future__ import annotations

from typing import Any

import pytest
from bench.vllm import ttft

FULL = 896


@pytest.fixture(autouse=True)
def _fifteen_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ttft, "PAIRS", 15)


class Engine:
    """Answers in as many seconds as it was asked before; every `odd`-th hit is none."""

    def __init__(self, odd: int) -> None:
        self.odd = odd
        self.asked = 0
        self.forgotten = 0

    def forget(self) -> None:
        self.forgotten += 1

    def ask(self, _tokens: list[int]) -> ttft.Answer:
        self.asked += 1
        hit: dict[str, Any] = {"host": FULL} if self.forgotten % self.odd else {}
        return ttft.Answer(float(self.asked), 0.0, {"hit_tokens": hit})


def test_a_sample_that_was_no_full_hit_takes_its_other_half_along() -> None:
    engine: Any = Engine(odd=3)
    rates = iter(range(1, 10))
    ours, own, found, wrong = ttft.alternate(engine, [[1]], "host", FULL, lambda: next(rates))
    assert len(ours.wall) == len(own.wall) == 15
    assert wrong == 7
    # Before, after each fourth pair, at the end.
    assert found == [1, 2, 3, 4, 5]
    assert {b - a for a, b in zip(ours.wall, own.wall, strict=True)} == {1.0}


def test_an_engine_that_never_hits_gives_no_pair_and_comes_to_an_end() -> None:
    engine: Any = Engine(odd=1)
    ours, own, _, wrong = ttft.alternate(engine, [[1]], "host", FULL, lambda: 1.0)
    assert not ours.wall
    assert not own.wall
    assert wrong == 30
