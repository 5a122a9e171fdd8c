"""SmolLM2-135M-Instruct from GGUF to a Hugging Face folder, in float32 and bfloat16.

    python -m model.convert GGUF TARGET       writes TARGET/float32 and TARGET/bfloat16

Needs gguf, numpy, torch, safetensors, tokenizers, transformers (the engine's environment).  The
weights are Q4_1, dequantised; bfloat16 rounds them again, so only float32 is an oracle for text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

HIDDEN, INTERMEDIATE, LAYERS = 576, 1536, 30
HEADS, KV_HEADS, HEAD_DIM = 9, 3, 64
VOCABULARY, POSITIONS = 49152, 8192
BOS, EOS, PAD = 1, 2, 2
TENSORS = 272
SPECIAL_TOKEN = 3
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PROBE = "Grüße, 世界! 1234 + 5678 = 6912.\n\tdef f(x):  return x**2  # naïve — “quoted” 🙂\n"

LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


class ConvertError(Exception):
    """The input or the outcome is not what it must be."""


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the target with its shape."""
    kv = KV_HEADS * HEAD_DIM
    per_layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.k_proj": (kv, HIDDEN),
        "self_attn.v_proj": (kv, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN),
        "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
        "mlp.up_proj": (INTERMEDIATE, HIDDEN),
        "mlp.down_proj": (HIDDEN, INTERMEDIATE),
        "input_layernorm": (HIDDEN,),
        "post_attention_layernorm": (HIDDEN,),
    }
    table: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for layer in range(LAYERS):
        for name, shape in per_layer.items():
            table[f"model.layers.{layer}.{name}.weight"] = shape
    return table


def target_name(name: str) -> str:
    """The Hugging Face name of a GGUF tensor."""
    stem = name.removesuffix(".weight")
    if stem == "token_embd":
        return "model.embed_tokens.weight"
    if stem == "output_norm":
        return "model.norm.weight"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"


def undo_rotary_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF interleaves the two halves of each head's rotary dimensions; puts them apart again."""
    rows, columns = weight.shape
    half = rows // heads // 2
    return weight.reshape(heads, half, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def read_tensors(reader: gguf.GGUFReader) -> dict[str, torch.Tensor]:
    """All weights in float32 under their Hugging Face names, shapes checked."""
    wanted = shapes()
    tensors: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = values.reshape([int(size) for size in reversed(tensor.shape)])
        if ".attn_q." in tensor.name:
            values = undo_rotary_pairs(values, HEADS)
        elif ".attn_k." in tensor.name:
            values = undo_rotary_pairs(values, KV_HEADS)
        name = target_name(tensor.name)
        if wanted.get(name) != values.shape:
            raise ConvertError(f"{tensor.name}: shape {values.shape}, wanted {wanted.get(name)}")
        tensors[name] = torch.from_numpy(np.ascontiguousarray(values))
    if len(tensors) != TENSORS or set(tensors) != set(wanted):
        raise ConvertError(f"{len(tensors)} tensors, wanted {TENSORS}")
    return tensors


def config(dtype: str) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "dtype": dtype,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.041666666666666664,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": POSITIONS,
        "mlp_bias": False,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-05,
        "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
        "rope_theta": 100000.0,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": VOCABULARY,
    }


def field(reader: gguf.GGUFReader, name: str) -> Any:
    found = reader.get_field(name)
    if found is None:
        raise ConvertError(f"the GGUF file has no field {name}")
    return found.contents()


def read_tokenizer(reader: gguf.GGUFReader) -> Tokenizer:
    """The byte-level BPE tokenizer that the GGUF's fields describe."""
    tokens = field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in field(reader, "tokenizer.ggml.merges")]
    types = field(reader, "tokenizer.ggml.token_type")
    if len(tokens) != VOCABULARY:
        raise ConvertError(f"{len(tokens)} tokens, wanted {VOCABULARY}")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == SPECIAL_TOKEN]
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special]
    )
    return tokenizer


def tokenizer_config(reader: gguf.GGUFReader) -> dict[str, Any]:
    tokens = field(reader, "tokenizer.ggml.tokens")
    unknown = int(field(reader, "tokenizer.ggml.unknown_token_id"))
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": POSITIONS,
        "clean_up_tokenization_spaces": False,
        "bos_token": tokens[BOS],
        "eos_token": tokens[EOS],
        "pad_token": tokens[PAD],
        "unk_token": tokens[unknown],
        "chat_template": field(reader, "tokenizer.chat_template"),
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def write_folder(
    folder: Path, dtype: str, tensors: dict[str, torch.Tensor], reader: gguf.GGUFReader
) -> None:
    folder.mkdir(parents=True)
    cast = {name: tensor.to(DTYPES[dtype]) for name, tensor in tensors.items()}
    save_file(cast, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config(dtype))
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD},
    )
    read_tokenizer(reader).save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", tokenizer_config(reader))


def check(folder: Path, dtype: str) -> None:
    """Reads the folder back as the engine would: tensor count, types, tokenizer round trip."""
    from transformers import AutoTokenizer

    tensors = load_file(folder / "model.safetensors")
    wrong = [name for name, tensor in tensors.items() if tensor.dtype != DTYPES[dtype]]
    if len(tensors) != TENSORS or wrong:
        raise ConvertError(f"{folder}: {len(tensors)} tensors, {len(wrong)} of another type")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.encode(PROBE, add_special_tokens=False)
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if text != PROBE:
        raise ConvertError(f"{folder}: the tokenizer turned {PROBE!r} into {text!r}")
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    if "<|im_start|>user\nHi<|im_end|>" not in chat:
        raise ConvertError(f"{folder}: unexpected chat template: {chat!r}")


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        reader = gguf.GGUFReader(source)
        tensors = read_tensors(reader)
        for dtype in DTYPES:
            write_folder(target / dtype, dtype, tensors, reader)
            check(target / dtype, dtype)
    except (ConvertError, OSError, ValueError, KeyError) as error:
        print(f"convert: {source}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
