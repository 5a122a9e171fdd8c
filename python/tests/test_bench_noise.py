"""`vllm-noise`: how it reads KV, and how far two versions are apart; no engine runs here."""

from __future__ import annotations

import json
from typing import Any

import numpy
import pytest
from bench.vllm import noise

FLOOR = {"element": 0.5, "rms": 0.1}


def kv(*halves: list[float]) -> Any:
    """One block of one layer."""
    return numpy.array([[halves]], dtype=numpy.float32)


def test_numbers_are_read_as_the_engine_wrote_them() -> None:
    values = [[[1.5, -2.0], [0.25, 4.0]], [[3.0, 0.0], [-8.0, 0.5]]]
    bits = numpy.array(values, dtype=numpy.float32).tobytes()
    assert noise.of_halves(bits, "float32", 2).tolist() == values
    upper = numpy.frombuffer(bits, dtype=numpy.uint16)[1::2].tobytes()
    assert noise.of_halves(upper, "bfloat16", 2).tolist() == values


def test_equal_versions_are_not_apart() -> None:
    one = kv([1, 2], [3, 4])
    element, rms = noise.distance(one, one)
    assert (element.tolist(), rms.tolist()) == ([0], [0])


def test_each_half_has_a_size_of_its_own() -> None:
    """The unit of the check: DifferenceTest.TheUnitIsTheSizeOfTheHalf has the same numbers."""
    element, rms = noise.distance(kv([3, 4], [0.3, 0.4]), kv([3, 4], [0.3, 0.8]))
    size = ((0.3**2 + 0.8**2) / 2) ** 0.5
    assert element[0] == pytest.approx(0.4 / (0.4 + size))
    assert rms[0] == pytest.approx((0.4**2 / 2) ** 0.5 / size)


def test_of_noise_the_largest_is_told_and_of_other_blocks_the_least(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pairs = [(kv([1, 1], [1, 1]), kv([1, 1], [1, 1])), (kv([1, 1], [1, 1]), kv([1, 1], [1, 2]))]
    for name in ("vllm-noise.noise", "vllm-noise.other"):
        noise.emit_pairs(name, {}, iter(pairs), FLOOR)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["better"] for row in rows] == ["lower", "lower", "higher", "higher"]
    assert [row["value"] > 0 for row in rows] == [True, True, False, False]
    assert [row["limit"] for row in rows] == [0.5, 0.1, 0.5, 0.1]
    assert rows[0]["ratio"] == pytest.approx(rows[0]["value"] / 0.5)
    assert {row["runs"] for row in rows} == {2}
