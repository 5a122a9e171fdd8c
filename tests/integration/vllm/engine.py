"""What a scenario sees of a vLLM engine in its own process: generate, count, look inside."""

from __future__ import annotations

import ctypes
import hashlib
import json
import random
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

SETTINGS = {
    "host.size": "512MiB",
    "planner.enabled": False,
    "lookup.deadline": "30s",
    "attach.lookup_wait": "60s",
}
DEADLINE_S = 60.0

TEXTS = (
    "The lighthouse keeper wrote down the weather every evening, and the ships that passed. ",
    "To bake bread you need flour, water, salt and time; of these, time matters most of all. ",
    "Trains left the old station at noon. Nobody knew where the last one went, or who took it. ",
)


def transfer_config(
    settings: dict[str, Any],
    role: str,
    engine_id: str | None,
    policy: str = "recompute",
    module: str = "terrace.connectors.vllm",
) -> dict[str, Any]:
    config = {
        "kv_connector": "TerraceConnector",
        "kv_connector_module_path": module,
        "kv_role": role,
        "kv_load_failure_policy": policy,
        "kv_connector_extra_config": settings,
    }
    return config | ({"engine_id": engine_id} if engine_id else {})


def among(config: dict[str, Any], before: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """MultiConnector with Terrace behind others; a child may have no engine id of its own.

    The engine goes by the outer failure policy alone.
    """
    outers = ("engine_id", "kv_load_failure_policy")
    own = {name: value for name, value in config.items() if name not in outers}
    outer = {name: config[name] for name in config.keys() - {"kv_connector_module_path"}}
    outer |= {"kv_connector": "MultiConnector"}
    return outer | {"kv_connector_extra_config": {"connectors": [*before, own]}}


def until(what: str, is_so: Callable[[], bool], limit_s: float = DEADLINE_S) -> None:
    """Waits for an event; fails when it does not come."""
    deadline = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {limit_s} s: {what}")
        time.sleep(0.01)


def _digest(group: Any, block: int) -> str:
    """Of one block's bytes over all layers of its group, as they lie in the engine's memory."""
    digest = hashlib.sha256()
    for region in group.regions:
        address = region.address + block * region.block_stride
        digest.update(ctypes.string_at(address, region.piece_bytes))
    return digest.hexdigest()


class Engine:
    """One LLM, greedy, deterministic; with Terrace unless `settings` is None."""

    opened: ClassVar[list[Engine]] = []

    def __init__(
        self,
        model: str,
        *,
        dtype: str = "float32",
        block_size: int = 32,
        settings: dict[str, Any] | None,
        role: str = "kv_both",
        engine_id: str | None = None,
        failure_policy: str = "recompute",
        memory: int = 300 << 20,
        beside: Sequence[dict[str, Any]] = (),
        module: str = "terrace.connectors.vllm",
        **more: Any,
    ) -> None:
        from vllm import LLM

        self.settings = settings
        self._regions: list[Any] = []  # Of the first group.
        self._groups: list[Any] = []
        self.requests: list[Any] = []
        if settings is not None:
            self._look_inside()
            merged = SETTINGS | settings
            config = transfer_config(merged, role, engine_id, failure_policy, module)
            more["kv_transfer_config"] = among(config, beside) if beside else config
        options: dict[str, Any] = {
            "dtype": dtype,
            "block_size": block_size,
            "enforce_eager": True,
            "max_model_len": 2048,
            "max_num_seqs": 4,
            "seed": 0,
            "kv_cache_memory_bytes": memory,
            "disable_log_stats": True,
        }
        self.llm = LLM(model=model, **(options | more))
        self.block_size = block_size
        self.is_bare = bool(more.get("skip_tokenizer_init"))
        self.opened.append(self)

    def _look_inside(self) -> None:
        """Keeps the addresses of the KV memory and every request object."""
        from terrace.connectors.vllm import layout, scheduler

        # The originals, also when an earlier engine of this process looked inside.
        registered = vars(layout).setdefault("_registered", layout.registered)
        begin = vars(scheduler).setdefault("_begin", scheduler.SchedulerHalf.begin)

        def keep_regions(plan: Any, caches: Any) -> Any:
            groups = registered(plan, caches)
            self._groups, self._regions = list(groups), list(groups[0].regions)
            return groups

        def keep_request(half: Any, request: Any) -> None:
            self.requests.append(request)
            begin(half, request)

        setattr(layout, "registered", keep_regions)  # noqa: B010 (mypy refuses the assignment)
        setattr(scheduler.SchedulerHalf, "begin", keep_request)  # noqa: B010 (the same)

    @classmethod
    def close_all(cls) -> None:
        while cls.opened:
            cls.opened.pop().close()

    def close(self) -> None:
        """Ends the engine, so that this process can start another one."""
        from vllm.distributed import cleanup_dist_env_and_memory
        from vllm.distributed.kv_transfer import ensure_kv_transfer_shutdown

        if self.settings is not None:
            self.connector.shutdown()
        self.llm.llm_engine.engine_core.shutdown()
        ensure_kv_transfer_shutdown()
        del self.llm
        self._regions.clear()
        self.requests.clear()
        cleanup_dist_env_and_memory()

    # ---- Parts ----------------------------------------------------------------------------------

    @property
    def scheduler(self) -> Any:
        return self.llm.llm_engine.engine_core.engine_core.scheduler

    @property
    def connector(self) -> Any:
        """Terrace's, also among others."""
        found = self.scheduler.connector
        children = getattr(found, "sub_connectors", [found])
        return next(one for one in children if type(one).__name__ == "TerraceConnector")

    @property
    def half(self) -> Any:
        return self.connector._scheduler

    @property
    def worker_connector(self) -> Any:
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        return get_kv_transfer_group()

    # ---- Work -----------------------------------------------------------------------------------

    def tokens(self, length: int, text: int = 0) -> list[int]:
        """A prompt of exactly this many tokens; longer ones of one text begin with shorter ones."""
        if self.is_bare:
            rng = random.Random(text)
            return [rng.randrange(3, 1000) for _ in range(length)]
        encoded = self.llm.get_tokenizer().encode(TEXTS[text] * (length // 8 + 1))
        assert len(encoded) >= length
        found: list[int] = encoded[:length]
        return found

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int = 8,
        salts: Sequence[str | None] | None = None,
        adapter: Any = None,
        more: Sequence[dict[str, Any]] = (),
        **sampling: Any,
    ) -> list[dict[str, Any]]:
        """`more`: what each prompt has besides its tokens, such as pictures."""
        from vllm import SamplingParams

        asked = []
        for number, prompt in enumerate(prompts):
            one: dict[str, Any] = {"prompt_token_ids": list(prompt)}
            if salts is not None and salts[number] is not None:
                one["cache_salt"] = salts[number]
            asked.append(one | (more[number] if more else {}))
        chosen: dict[str, Any] = {"temperature": 0, "max_tokens": max_tokens, "logprobs": 3}
        chosen |= {"detokenize": not self.is_bare}
        chosen |= {"extra_args": {"kv_transfer_params": {"terrace": {"ledger": True}}}}
        params = SamplingParams(**(chosen | {"ignore_eos": True} | sampling))
        outputs = self.llm.generate(asked, params, use_tqdm=False, lora_request=adapter)
        return [self._answer(output) for output in outputs]

    def _answer(self, output: Any) -> dict[str, Any]:
        params = output.kv_transfer_params or {}
        return {
            "prompt": list(output.prompt_token_ids or ()),
            "tokens": [list(one.token_ids) for one in output.outputs],
            "logprobs": [
                [sorted((token, found.logprob) for token, found in step.items()) for step in steps]
                for one in output.outputs
                if (steps := one.logprobs) is not None
            ],
            "cached": output.num_cached_tokens,
            "ledger": params.get("terrace", {}).get("ledger"),
            "reason": [one.finish_reason for one in output.outputs],
        }

    def one(self, prompt: Sequence[int], **sampling: Any) -> dict[str, Any]:
        return self.generate([prompt], **sampling)[0]

    def forget_local(self) -> None:
        """Empties the engine's own cache; Terrace keeps its tiers."""
        assert self.llm.reset_prefix_cache()

    # ---- Looking --------------------------------------------------------------------------------

    def metrics(self) -> dict[str, float]:
        found = {}
        for line in self.half.owner.read_metrics().splitlines():
            match = re.match(r"^([a-z_]+(?:\{[^}]*\})?) ([-+0-9.e]+)$", line)
            if match:
                found[match.group(1)] = float(match.group(2))
        return found

    def grown(self, before: dict[str, float]) -> dict[str, float]:
        """Differences; a tier that opened meanwhile began at nothing."""
        now = self.metrics()
        changes = {name: value - before.get(name, 0) for name, value in now.items()}
        return {name: change for name, change in changes.items() if change}

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.half.owner.read_status())
        return found

    def metric(self, name: str) -> float:
        return self.metrics().get(name, 0.0)

    def wait_for_disk(self, blocks: int) -> None:
        """Until so many blocks were written through to disk."""
        size = sum(region.piece_bytes for region in self._regions)
        name = 'terrace_transfer_bytes_total{op="offload",source="host",target="disk"}'
        until(f"{blocks} blocks on disk", lambda: self.metric(name) >= blocks * size)

    def cached_block(self, block_hash: bytes, group: int = 0) -> int | None:
        """The device block that the engine's own cache holds under its hash."""
        found = self.scheduler.kv_cache_manager.block_pool.get_cached_block(block_hash, [group])
        return None if not found else int(found[0].block_id)

    def group_digests(self, hashes: Sequence[bytes]) -> list[list[str | None]]:
        """block_digests of every group; None where the engine keeps the block no more."""
        return [
            [
                None if (block := self.cached_block(one, number)) is None else _digest(group, block)
                for one in hashes
            ]
            for number, group in enumerate(self._groups)
        ]

    def block_digests(self, hashes: Iterable[bytes]) -> list[str]:
        """SHA-256 of each block's bytes over all layers, as they lie in the engine's memory."""
        digests = []
        for block_hash in hashes:
            block = self.cached_block(block_hash)
            assert block is not None, "block left the engine's cache"
            digests.append(_digest(self._groups[0], block))
        return digests
