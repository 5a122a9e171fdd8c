"""What a request carries besides its tokens: adapters, multimodal items, prompt embeddings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.vllm.engine import Engine, until
from tests.integration.vllm.scenarios.small import HOST, make, numbers

Say = Callable[[object], None]
UNKEYABLE = "terrace_unkeyable_requests_total"
OFFLOADED = 'terrace_transfer_blocks_total{op="offload",source="device",target="host"}'


def _scaled(folder: str) -> str:
    """A copy of an adapter whose weights act four times as strongly."""
    copy = Path(shutil.copytree(folder, f"{folder}-scaled"))
    config = copy / "adapter_config.json"
    facts = json.loads(config.read_text())
    config.write_text(json.dumps(facts | {"lora_alpha": 4 * facts["lora_alpha"]}))
    return str(copy)


def lora(say: Say, model: str, folders: list[str]) -> None:
    """Equal tokens without adapter, with two, with other weights under the first's name, and with
    the second's weights scaled anew under its own name.  One comes after the engine began: nobody
    knows what it loaded.  At last another adapter by the first one's id, then by its own."""
    from vllm.lora.request import LoRARequest

    scaled = _scaled(folders[1])
    engine = make(model, {}, enable_lora=True, max_loras=2, max_lora_rank=8)
    late = shutil.copytree(folders[0], f"{folders[0]}-late")
    prompt = numbers(1, 300)
    adapters: dict[str, Any] = {
        "none": None,
        "first": LoRARequest("first", 1, folders[0]),
        "second": LoRARequest("second", 2, folders[1]),
        "renamed": LoRARequest("first", 3, folders[1]),
        "scaled": LoRARequest("second", 4, scaled),
        "late": LoRARequest("late", 5, late),
    }
    found: dict[str, Any] = {}

    def ask(name: str, adapter: Any) -> None:
        engine.forget_local()
        before = engine.metrics()
        answer = engine.generate([prompt], detokenize=False, adapter=adapter)[0]
        found[name] = answer | {"hit": engine.grown(before).get(HOST, 0)}

    for turn in ("cold", "again"):
        for name, adapter in adapters.items():
            ask(f"{name} {turn}", adapter)
    ask("first loaded", adapters["first"])  # The engine keeps two.
    ask("of a used id", LoRARequest("third", 1, folders[1]))
    ask("of its own id", LoRARequest("third", 6, folders[1]))
    ask("whose id was used", adapters["first"])
    say(found)


def _embedded(engine: Engine) -> dict[str, Any]:
    """A prompt of embeddings: nothing tells which tokens they stand for."""
    import torch
    from vllm import SamplingParams

    before = engine.metrics()
    embeds = torch.randn(70, 256, generator=torch.Generator().manual_seed(5)) * 0.3
    params = SamplingParams(
        temperature=0,
        max_tokens=4,
        ignore_eos=True,
        detokenize=False,
        extra_args={"kv_transfer_params": {"terrace": {"ledger": True}}},
    )
    (output,) = engine.llm.generate([{"prompt_embeds": embeds}], params, use_tqdm=False)
    ledger = (output.kv_transfer_params or {}).get("terrace", {}).get("ledger")
    answer = {"count": len(output.outputs[0].token_ids), "ledger": ledger}
    return answer | {"grown": engine.grown(before)}


def _with_items(engine: Engine) -> dict[str, Any]:
    """vLLM's own request objects with multimodal items, looked up against a stored plain prompt."""
    from vllm import SamplingParams
    from vllm.multimodal.inputs import MultiModalFeatureSpec, MultiModalKwargsItem, PlaceholderRange
    from vllm.v1.request import Request

    def matched(request_id: str, *items: MultiModalKwargsItem | None) -> int:
        place = PlaceholderRange(offset=40, length=8)
        features = [
            MultiModalFeatureSpec(
                data=item, modality="image", identifier=request_id, mm_position=place
            )
            for item in items
        ]
        params = SamplingParams(max_tokens=1)
        request = Request(request_id, list(prompt), params, None, mm_features=features)
        engine.half.begin(request)
        found: list[int] = []

        def is_found() -> bool:
            answer = engine.half.match(request, 0)
            found.extend([] if answer is None else [answer])
            return bool(found)

        until("an answer", is_found)
        engine.half.end(request)
        return found[0]

    prompt = numbers(3, 300)
    engine.one(prompt, detokenize=False)
    before = engine.metrics()
    found = {
        "plain": matched("a"),
        "item": matched("b", MultiModalKwargsItem.dummy(4)),
        "unseen": matched("c", None),
    }
    return found | {"grown": engine.grown(before)}


def other(say: Say, model: str) -> None:
    engine = make(model, {}, enable_prompt_embeds=True)
    say({"embedded": _embedded(engine), "items": _with_items(engine)})
