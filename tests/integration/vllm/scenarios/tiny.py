"""Small random models with wide margins: for ranks, groups and changed weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

VOCABULARY = 1000
HIDDEN, HEADS, KV_HEADS, HEAD = 256, 4, 2, 64
COMMON: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 512,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "dtype": "float32",
}
LLAMA = COMMON | {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
}
# 64 KiB of KV per token: what a prompt needs takes longer to read than to compute.
WIDE = LLAMA | {
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
# As many words as the tokenizer of the real model has.
TALKING = LLAMA | {"vocab_size": 49152}
SLIDING, FULL = "sliding_attention", "full_attention"
GEMMA = COMMON | {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "num_hidden_layers": 6,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": HEAD,
    "sliding_window": 128,
    "layer_types": [SLIDING] * 5 + [FULL],
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "tie_word_embeddings": True,
}


def _attention(
    tensors: dict[str, Any], normal: Callable[..., Any], layer: str, config: dict[str, Any]
) -> None:
    attention = f"{layer}.self_attn"
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    tensors[f"{attention}.q_proj.weight"] = normal(queries, HIDDEN)
    tensors[f"{attention}.k_proj.weight"] = normal(keys, HIDDEN)
    tensors[f"{attention}.v_proj.weight"] = normal(keys, HIDDEN)
    tensors[f"{attention}.o_proj.weight"] = normal(HIDDEN, queries)
    tensors[f"{layer}.mlp.gate_proj.weight"] = normal(512, HIDDEN)
    tensors[f"{layer}.mlp.up_proj.weight"] = normal(512, HIDDEN)
    tensors[f"{layer}.mlp.down_proj.weight"] = normal(HIDDEN, 512)


def _write(folder: Path, config: dict[str, Any], seed: int, changed_layer: int | None) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float = 0.06) -> Any:
        return torch.randn(*shape, generator=generator) * std

    is_gemma = config["model_type"] == "gemma3_text"
    words = config["vocab_size"]
    one = torch.zeros if is_gemma else torch.ones  # Gemma's norms count from one.
    tensors: dict[str, Any] = {"model.embed_tokens.weight": normal(words, HIDDEN, std=0.3)}
    norms = ["input_layernorm", "post_attention_layernorm"]
    if is_gemma:
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        _attention(tensors, normal, layer, config)
        for norm in norms:
            tensors[f"{layer}.{norm}.weight"] = one(HIDDEN)
        if is_gemma:
            tensors[f"{layer}.self_attn.q_norm.weight"] = one(HEAD)
            tensors[f"{layer}.self_attn.k_norm.weight"] = one(HEAD)
        if number == changed_layer:
            # One projection of one layer, as a small fine-tune would.
            tensors[f"{layer}.self_attn.v_proj.weight"] *= 1.25
    tensors["model.norm.weight"] = one(HIDDEN)
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = normal(words, HIDDEN, std=0.3)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    part = folder / "model.part"
    save_file(tensors, part, metadata={"format": "pt"})
    part.rename(folder / "model.safetensors")


def make(
    say: Callable[[object], None],
    folder: str,
    kind: str,
    changed_layer: int | None = None,
    tokenizer: str = "",
) -> None:
    """`tokenizer`: a model's folder, whose tokenizer it gets."""
    kinds = {"llama": LLAMA, "gemma": GEMMA, "wide": WIDE, "talking": TALKING}
    _write(Path(folder), kinds[kind], 0, changed_layer)
    if tokenizer:
        take_tokenizer(Path(folder), tokenizer)
    say({"folder": folder})


def take_tokenizer(folder: Path, model: str) -> None:
    for path in Path(model).glob("tokenizer*.json"):
        shutil.copy(path, folder)


def _write_adapter(folder: Path, seed: int) -> None:
    """A LoRA adapter of the tiny Llama, strong enough to change its answers."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    rank, modules = 8, {"q_proj": HEADS * HEAD, "v_proj": KV_HEADS * HEAD}
    tensors = {}
    for layer in range(LLAMA["num_hidden_layers"]):
        for module, width in modules.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            down = torch.randn(rank, HIDDEN, generator=generator) * 0.1
            tensors[f"{name}.lora_A.weight"] = down
            tensors[f"{name}.lora_B.weight"] = torch.randn(width, rank, generator=generator) * 0.1
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    facts: dict[str, Any] = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none"}
    facts |= {"r": rank, "lora_alpha": 2 * rank, "target_modules": list(modules)}
    (folder / "adapter_config.json").write_text(json.dumps(facts))


def adapters(say: Callable[[object], None], folders: list[str]) -> None:
    """As many adapters as folders, all different."""
    for seed, folder in enumerate(folders):
        _write_adapter(Path(folder), seed)
    say({"folders": folders})
