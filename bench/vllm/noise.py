"""`vllm-noise`: how far two computations of the same KV differ, and how far KV of other tokens is.

The check of hits compares a block that was stored with the same block computed again, in pieces of
another size or beside other requests.  What that changes of the numbers is noise; what a wrong
block changes must be far above it.  Both are measured here on the real model, in the check's own
unit: see `terrace/manager/difference_internal.h`.  Each line's `limit` is the floor that the
engine's status tells, so `ratio` says how much of the floor noise takes, or how many floors away
another block is.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[2] / "tools"),
]

from bench.vllm import conversations, lines  # noqa: E402
from bench.vllm.engine import make_empty  # noqa: E402

from engine_env import ROOT, engine_env, installed  # noqa: E402

# Of which model: one is kept in two types, and read as the third.
DTYPES = {"float32": "float32", "bfloat16": "bfloat16", "float16": "float32"}
BLOCK, BLOCKS, FEW = 32, 16, 4
WORK = ROOT / "build" / "bench" / "vllm-noise"
# Tokens of a step at most, 0 = all; the small ones of FEW blocks alone. Answers come one by one.
PIECES = {"whole": 0, "256": 256, "32": BLOCK, "41": 41, "24": 24, "8": 8, "2": 2, "1": 1}
SMALL = 8
TOGETHER = "whole, three prompts at once"
# Another machine: what the libraries would choose on one with AVX2 alone, and one thread.
ELSEWHERE = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}

PLACES: dict[str, dict[str, str]] = {"here": {}, "elsewhere": ELSEWHERE}

Kv = Any  # A numpy array [block, layer, half, element].
Pair = tuple[Kv, Kv]


def of_halves(bits: bytes, dtype: str, layers: int) -> Any:
    """One block's numbers, [layer, half, element]."""
    import numpy

    if dtype != "bfloat16":
        values = numpy.frombuffer(bits, dtype).astype(numpy.float32)
    else:
        wide = numpy.frombuffer(bits, numpy.uint16).astype(numpy.uint32) << 16
        values = wide.view(numpy.float32)
    return values.reshape(layers, 2, -1)


def distance(stored: Kv, computed: Kv) -> tuple[Any, Any]:
    """[block]: the largest `element` and the largest `rms` of each block, as the check has them."""
    import numpy

    squares = [numpy.square(one, dtype=numpy.float64).sum(-1) for one in (stored, computed)]
    most = numpy.maximum(*squares)
    size = numpy.sqrt(most / stored.shape[-1])[..., None]
    apart = numpy.abs(stored.astype(numpy.float64) - computed)
    least = numpy.minimum(numpy.abs(stored), numpy.abs(computed))
    element = (apart / (least + size)).max((1, 2, 3))
    rms = numpy.sqrt(numpy.square(apart).sum(-1) / most).max((1, 2))
    return element, rms


class Engine:
    """One in-process engine that stores and never loads, so that all is computed."""

    def __init__(self, dtype: str) -> None:
        from tests.integration.vllm.engine import Engine as Whole

        self.dtype = dtype
        self.own = Whole(
            str(installed()[f"model_{DTYPES[dtype]}"]),
            dtype=dtype,
            block_size=BLOCK,
            settings={"host.size": "512MiB"},
            role="kv_producer",
        )
        self.whole = self.own.scheduler.max_num_scheduled_tokens
        self._steps = 0
        schedule = self.own.scheduler.schedule

        def count(*given: Any, **named: Any) -> Any:
            self._steps += 1
            return schedule(*given, **named)

        self.own.scheduler.schedule = count

    def floor(self) -> dict[str, float]:
        found: dict[str, float] = self.own.status()["shadow"]["floor"]
        return found

    def prompts(self) -> list[list[int]]:
        """Two texts of users, and one of numbers that no text has."""
        tokenizer = self.own.llm.get_tokenizer()
        length = BLOCK * BLOCKS + 1
        texts = [
            [token for turn in turns for token in turn.tokens]
            for turns in conversations.read(tokenizer.encode)
        ]
        long = [text[:length] for text in texts if len(text) >= length][:2]
        assert len(long) == 2, "the sessions are too short"
        return [*long, [(7919 * (at + 1)) % 48_000 + 100 for at in range(length)]]

    def compute(self, prompts: list[list[int]], pieces: int) -> list[Kv]:
        import numpy

        self.own.scheduler.max_num_scheduled_tokens = pieces or self.whole
        self.own.forget_local()
        self.own.requests.clear()
        steps = self._steps
        self.own.generate(prompts, max_tokens=1)
        tokens = sum(len(prompt) for prompt in prompts)
        assert self._steps - steps >= tokens / (pieces or self.whole), "not computed in pieces"
        found = []
        for request, prompt in zip(self.own.requests, prompts, strict=True):
            hashes = request.block_hashes[: len(prompt) // BLOCK]
            found.append(numpy.stack([self._block(one) for one in hashes]))
        return found

    def _block(self, block_hash: bytes) -> Any:
        block = self.own.cached_block(block_hash)
        assert block is not None, "a block left the engine's cache"
        regions = self.own._regions
        bits = b"".join(
            ctypes.string_at(one.address + block * one.block_stride, one.piece_bytes)
            for one in regions
        )
        return of_halves(bits, self.dtype, len(regions))


def emit(name: str, params: dict[str, Any], values: list[float], floor: float) -> None:
    """`value`: of noise the largest of all blocks, of other blocks the least."""
    ordered = sorted(values)
    is_noise = name == "vllm-noise.noise"
    quarter = len(ordered) // 4
    line = {
        "name": name,
        "params": params,
        "unit": "of the size",
        "better": "lower" if is_noise else "higher",
        "value": ordered[-1] if is_noise else ordered[0],
        "p25": ordered[quarter],
        "p75": ordered[-quarter - 1],
        "runs": len(ordered),
        "limit_name": "noise floor",
        "limit": floor,
        "ratio": (ordered[-1] if is_noise else ordered[0]) / floor,
        "machine": lines.machine(),
        "commit": lines.commit(),
    }
    print(json.dumps(line), flush=True)


def emit_pairs(
    name: str, params: dict[str, Any], pairs: Iterator[Pair], floor: dict[str, float]
) -> None:
    element: list[float] = []
    rms: list[float] = []
    for stored, computed in pairs:
        one, other = distance(stored, computed)
        element += one.tolist()
        rms += other.tolist()
    emit(name, params | {"of": "element"}, element, floor["element"])
    emit(name, params | {"of": "rms"}, rms, floor["rms"])


def noise(engine: Engine, prompts: list[list[int]]) -> list[Kv]:
    """The same prompts in pieces of each size, each against each; returns them computed whole."""
    few = [prompt[: BLOCK * FEW + 1] for prompt in prompts]
    found = {}
    for name, pieces in PIECES.items():
        asked = few if 0 < pieces <= SMALL else prompts
        found[name] = [engine.compute([one], pieces)[0] for one in asked]
    found[TOGETHER] = engine.compute(prompts, 0)
    found["whole again"] = [engine.compute([one], 0)[0] for one in prompts]
    for one, other in itertools.combinations(found, 2):
        if "whole" in (one, other) or "1" in (one, other):
            params = {"dtype": engine.dtype, "pieces": f"{one} and {other}"}
            pairs = alike(found[one], found[other])
            emit_pairs("vllm-noise.noise", params, pairs, engine.floor())
    return found["whole"]


def alike(computed: list[Kv], other: list[Kv]) -> Iterator[Pair]:
    """As many blocks of each prompt as both have."""
    for left, right in zip(computed, other, strict=True):
        yield left[: len(right)], right[: len(left)]


def keep(dtype: str, computed: list[Kv]) -> None:
    import numpy

    numpy.savez(WORK / f"{dtype}.npz", *computed)


def elsewhere(engine: Engine, prompts: list[list[int]]) -> None:
    """The same as another process has kept it, which computed with all that this machine has."""
    import numpy

    with numpy.load(WORK / f"{engine.dtype}.npz") as kept:
        computed = [kept[name] for name in kept.files]
    for name in ("whole", "24"):
        own = [engine.compute([one], PIECES[name])[0] for one in prompts]
        params = {"dtype": engine.dtype, "pieces": f"whole, and {name} with AVX2 and one thread"}
        emit_pairs("vllm-noise.noise", params, alike(computed, own), engine.floor())


def others(engine: Engine, prompts: list[list[int]], computed: list[Kv]) -> None:
    """Blocks that are not those asked for, from the farthest to the nearest we could think of."""

    def tell(block: str, pairs: list[Pair]) -> None:
        params = {"dtype": engine.dtype, "block": block}
        emit_pairs("vllm-noise.other", params, iter(pairs), engine.floor())

    tell("of another prompt", list(itertools.permutations(computed, 2)))
    tell("the next of the same prompt", [(one[:-1], one[1:]) for one in computed])
    # The same tokens at the same places, behind other ones.
    for name, changed in (("block", BLOCK), ("token", 1)):
        altered = [
            prompts[(at + 1) % len(prompts)][:changed] + prompt[changed:]
            for at, prompt in enumerate(prompts)
        ]
        # Two prompts may begin alike.
        altered = [
            [
                (token + 1) % 1000 if own[at] == token and at < changed else token
                for at, token in enumerate(one)
            ]
            for one, own in zip(altered, prompts, strict=True)
        ]
        made = [engine.compute([one], 0)[0] for one in altered]
        for label, first, last in (("next", 1, 2), ("eighth", 8, 9), ("last", BLOCKS - 1, BLOCKS)):
            tell(
                f"same tokens, first {name} of the prompt another: {label} block",
                [
                    (one[first:last], other[first:last])
                    for one, other in zip(computed, made, strict=True)
                ],
            )


def main() -> int:
    if sys.argv[1:2] == ["--in-process"]:
        engine = Engine(sys.argv[2])
        prompts = engine.prompts()
        if sys.argv[3] == "elsewhere":
            elsewhere(engine, prompts)
            return 0
        computed = noise(engine, prompts)
        keep(engine.dtype, computed)
        others(engine, prompts, computed)
        return 0
    code = 0
    make_empty(WORK)
    for dtype, (place, more) in itertools.product(DTYPES, PLACES.items()):
        words = [sys.executable, __file__, "--in-process", dtype, place]
        env = engine_env(WORK / "engine") | more
        code |= subprocess.run(words, env=env, check=False).returncode
    return code


if __name__ == "__main__":
    raise SystemExit(main())
