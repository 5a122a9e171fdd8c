"""A small random model that sees pictures (Idefics3 over Llama): equal tokens, other pictures."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.vllm.engine import Engine, until
from tests.integration.vllm.scenarios import tiny
from tests.integration.vllm.scenarios.small import DISK, HOST, OFFLOADED, WRITTEN

Say = Callable[[object], None]
PIXELS, PATCH, SHUFFLED = 128, 8, 2
PLACES = (PIXELS // PATCH // SHUFFLED) ** 2  # Tokens that a picture's own bytes take: two blocks.
FIRST = tiny.TALKING["vocab_size"]  # The first token that the real model's tokenizer has not.
ADDED = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
PICTURE = FIRST
SEEING = {
    "architectures": ["Idefics3ForConditionalGeneration"],
    "model_type": "idefics3",
    "image_token_id": PICTURE,
    "scale_factor": SHUFFLED,
    "tie_word_embeddings": False,
    "dtype": "float32",
    "text_config": tiny.TALKING | {"vocab_size": FIRST + 32},
    "vision_config": {
        "model_type": "idefics3_vision",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": PIXELS,
        "patch_size": PATCH,
    },
}
PROCESSOR = {"processor_class": "Idefics3Processor", "image_seq_len": PLACES}
PREPROCESSOR = {
    "image_processor_type": "Idefics3ImageProcessor",
    "processor_class": "Idefics3Processor",
    "do_image_splitting": False,
    "size": {"longest_edge": PIXELS},
    "max_image_size": {"longest_edge": PIXELS},
}


def _value(name: str, old: Any, generator: Any) -> Any:
    """Wide margins, as the other small models have; norms as they are."""
    import torch

    if "norm" in name:
        return old
    is_word = name.endswith(("embed_tokens.weight", "lm_head.weight"))
    return torch.randn(*old.shape, generator=generator) * (0.3 if is_word else 0.06)


def _take_tokenizer(folder: Path, model: str) -> None:
    """The real model's, with the tokens that stand for a picture."""
    tiny.take_tokenizer(folder, model)
    file = folder / "tokenizer.json"
    facts = json.loads(file.read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    facts["added_tokens"] += [
        {"id": FIRST + number, "content": word, "special": True} | flags
        for number, word in enumerate(ADDED)
    ]
    file.write_text(json.dumps(facts))


def write(say: Say, folder: str, tokenizer: str) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    place = Path(folder)
    place.mkdir(parents=True)
    model = Idefics3ForConditionalGeneration(Idefics3Config(**SEEING))
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: _value(name, old, generator).contiguous()
        for name, old in sorted(model.state_dict().items())
        if old.is_floating_point()
    }
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    _take_tokenizer(place, tokenizer)
    for name, facts in (
        ("config", SEEING),
        ("processor_config", PROCESSOR),
        ("preprocessor_config", PREPROCESSOR),
    ):
        (place / f"{name}.json").write_text(json.dumps(facts))
    say({"tensors": len(tensors)})


def _picture(seed: int) -> Any:
    from PIL import Image

    return Image.frombytes("RGB", (PIXELS, PIXELS), random.Random(seed).randbytes(3 * PIXELS**2))


# What is asked, one after the other: words of one text, and pictures by their seed.
WHOLE_A: list[Any] = [40, "A", 100]
WHOLE_B: list[Any] = [40, "B", 100]
ASKED: dict[str, list[Any]] = {
    "A": WHOLE_A,
    "B": WHOLE_B,
    "A again": WHOLE_A,
    "B again": WHOLE_B,
    "A elsewhere": [20, "A", 120],
    "A and B": [40, "A", 10, "B", 60],
    "B and A": [40, "B", 10, "A", 60],
    "A and B again": [40, "A", 10, "B", 60],
    "A cut": [40, "A", 10],  # The last full block ends inside the picture.
}
WHOLE_C: list[Any] = [40, "C", 100]  # A picture that no stored block has.


# What a client calls its pictures: in the form of a hash, and beside arguments of its own, with
# which vLLM hashes the name.
NAMED = {"multi_modal_uuids": {"image": ["ab" * 32]}}
SIZED = {
    "multi_modal_uuids": {"image": ["mine"]},
    "mm_processor_kwargs": {"size": {"longest_edge": PIXELS}},
}


def _prompt(engine: Engine, parts: list[Any]) -> tuple[list[int], dict[str, Any]]:
    words = engine.tokens(200)
    prompt: list[int] = []
    pictures = []
    for part in parts:
        if isinstance(part, int):
            prompt += words[:part]
            words = words[part:]
        else:
            prompt.append(PICTURE)
            pictures.append(_picture(ord(part)))
    return prompt, {"multi_modal_data": {"image": pictures}}


def _ask(engine: Engine, parts: list[Any], **named: Any) -> dict[str, Any]:
    prompt, more = _prompt(engine, parts)
    return engine.generate([prompt], more=[more | named])[0]


def _make(model: str, settings: dict[str, Any] | None, **without: Any) -> Engine:
    # The hash of pictures that vLLM takes by default needs a package of its own.
    more: dict[str, Any] = {"limit_mm_per_prompt": {"image": 2}, "mm_hasher_algorithm": "sha256"}
    return Engine(model, settings=settings, memory=64 << 20, **(more | without))


def _measured(engine: Engine, parts: list[Any], **named: Any) -> dict[str, Any]:
    before = engine.metrics()
    answer = _ask(engine, parts, **named)
    grown = engine.grown(before)
    return answer | {"hit": grown.get(HOST, 0) + grown.get(DISK, 0)}


def reference(say: Say, model: str) -> None:
    """Without Terrace: each request hits what the engine's own cache has."""
    engine = _make(model, None)
    say({name: _ask(engine, parts) for name, parts in (ASKED | {"C": WHOLE_C}).items()})


def _hashes(engine: Engine) -> list[bytes]:
    request = engine.requests[-1]
    return list(request.block_hashes[: (request.num_prompt_tokens - 1) // engine.block_size])


def store(say: Say, model: str, settings: dict[str, Any]) -> None:
    """Each request with an empty cache of the engine's own; ends by kill -9, all being on disk."""
    engine = _make(model, settings)
    found: dict[str, Any] = {}
    digests: dict[str, Any] = {}
    for name, parts in ASKED.items():
        engine.forget_local()
        found[name] = _measured(engine, parts)
        digests[name] = engine.block_digests(_hashes(engine))
    for name, more in (("A named", NAMED), ("A sized", SIZED)):
        engine.forget_local()
        found[name] = _measured(engine, WHOLE_A, **more)
    sealed = engine.metric(OFFLOADED)
    until("blocks on disk", lambda: engine.metric(WRITTEN) >= sealed)
    unkeyable = dict(engine.half.unkeyable)
    say({"answers": found, "bytes": digests, "status": engine.status(), "unkeyable": unkeyable})
    os.kill(os.getpid(), signal.SIGKILL)


def restarted(say: Say, model: str, settings: dict[str, Any]) -> None:
    engine = _make(model, settings)
    found: dict[str, Any] = {}
    for name, parts in ASKED.items():
        if not name.endswith("again"):
            engine.forget_local()
            found[name] = _measured(engine, parts)
    unkeyable = dict(engine.half.unkeyable)
    say({"answers": found, "status": engine.status(), "unkeyable": unkeyable})


def renamed(say: Say, model: str, settings: dict[str, Any]) -> None:
    """The names of the first engine mean another picture now; and then the first one again."""
    engine = _make(model, settings)
    found: dict[str, Any] = {}
    for name, parts, more in (
        ("B named", WHOLE_B, NAMED),
        ("B sized", WHOLE_B, SIZED),
        ("A named", WHOLE_A, NAMED),
        ("A", WHOLE_A, {}),
    ):
        engine.forget_local()
        engine.llm.reset_mm_cache()  # Or the engine answers by the picture that it knows.
        found[name] = _measured(engine, parts, **more)
    say({"answers": found, "unkeyable": dict(engine.half.unkeyable)})


def crossed(say: Say, model: str, settings: dict[str, Any]) -> None:
    """Two requests at once call two pictures by one name, and the second one is computed first.

    The first one waits for what lies on disk of it: the beginning that it shares with others.
    """
    engine = _make(model, settings, mm_processor_cache_gb=0)
    keys = engine.half._keys
    is_ready = keys.is_ready

    def ready(request: Any) -> bool:
        until("a digest", lambda: is_ready(request))
        return True

    keys.is_ready = ready  # Each has its key, or none, as soon as it arrives.
    both = [_prompt(engine, parts) for parts in (WHOLE_C, WHOLE_A)]
    named = [more | NAMED for _, more in both]
    first, second = engine.generate([prompt for prompt, _ in both], more=named)
    order = [request.request_id for request in engine.requests]
    engine.forget_local()
    engine.llm.reset_mm_cache()
    later = _measured(engine, WHOLE_C)
    say({"first": first, "second": second, "order": order, "later": later})


def changed(say: Say, model: str, settings: dict[str, Any]) -> None:
    """The pictures are prepared in another way: the same ones are others to the model."""
    file = Path(model) / "preprocessor_config.json"
    file.write_text(json.dumps(PREPROCESSOR | {"image_mean": [0.1, 0.2, 0.3]}))
    engine = _make(model, settings)
    say(_measured(engine, WHOLE_A))


def numbered(say: Say, model: str, settings: dict[str, Any]) -> None:
    """With all of its own caches off, vLLM numbers pictures instead of hashing them."""
    engine = _make(model, settings, enable_prefix_caching=False, mm_processor_cache_gb=0)
    answers = [_measured(engine, WHOLE_A) for _ in range(2)]
    say({"answers": answers, "unkeyable": dict(engine.half.unkeyable)})
