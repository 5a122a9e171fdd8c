"""What must be equal for KV bytes to fit: one `part.name=value` a line for the core.

Content: what the KV means.  Layout: how it lies in memory.  The weights' own digest is added by the
core, and so is the tenant; the model's path is no part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

FORMAT_VERSION = 1

# Of the resolved Hugging Face config: names of places and tools, which change no KV.
_VOLATILE = {"_name_or_path", "name_or_path", "transformers_version", "_commit_hash"}
# Of the engine's settings for multimodal items: what its encoder does with what it is given.
_ENCODER = (
    "mm_device_do_normalize",
    "mm_encoder_attn_backend",
    "mm_encoder_attn_dtype",
    "video_pruning_method",
    "video_pruning_rate",
)
# Of its settings for LoRA adapters: which modules an adapter acts on, and how its tensors are read.
_ADAPTERS = (
    "enable_mixed_moe_lora_format",
    "enable_moe_shared_loras",
    "enable_tower_connector_lora",
    "lora_dtype",
    "target_modules",
)
# Parts of what turns an item into what the model sees, besides the engine.
_ITEM_LIBRARIES = ("transformers", "torchvision", "pillow")
# Rotary embeddings whose frequencies vLLM computes from the config alone; with any other kind the
# engine's own length limit enters the KV.
_LENGTH_FREE_ROPE = {"default", "linear", "llama3", "yarn", "mrope", "proportional"}


def _plain(value: Any) -> Any:
    """JSON-able form that is equal for equal values."""
    if isinstance(value, dict):
        pairs = {str(key): _plain(item) for key, item in value.items() if key not in _VOLATILE}
        return dict(sorted(pairs.items()))
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(_plain(item)) for item in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    return str(value)


def canonical(value: Any) -> str:
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _rope_kinds(config: Any) -> set[str]:
    """Every rotary kind named anywhere in a config."""
    found: set[str] = set()
    if isinstance(config, dict):
        for key, value in config.items():
            if key in ("rope_type", "type") and isinstance(value, str):
                found.add(value)
            else:
                found |= _rope_kinds(value)
    elif isinstance(config, list):
        for value in config:
            found |= _rope_kinds(value)
    return found


def _length_limit(model: Any, plain: Any) -> str:
    rope = {key: value for key, value in plain.items() if "rope" in key} if plain else {}
    texts = plain.get("text_config") if isinstance(plain, dict) else None
    kinds = _rope_kinds(list(rope.values()) + ([texts] if texts else []))
    return "-" if kinds <= _LENGTH_FREE_ROPE else str(model.max_model_len)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _items(model: Any, directory: str) -> dict[str, str]:
    """What its encoder makes of an item; what the item itself is stands in the keys."""
    settings = getattr(model, "multimodal_config", None)
    if settings is None:
        return {}
    versions = {name: _version(name) for name in _ITEM_LIBRARIES}
    texts = {
        path.name: path.read_text(errors="surrogateescape")
        for path in Path(directory).glob("*processor*.json")
    }
    encoder = {name: str(getattr(settings, name, None)) for name in _ENCODER}
    return {
        "item_encoder": canonical(encoder),
        "item_libraries": canonical(versions),
        "item_processor": canonical(texts),
    }


def _code(model: Any, directory: str) -> dict[str, str]:
    """Whose code computes the KV, beside the engine's own: transformers', or the model's."""
    if not model.using_transformers_backend():
        return {}
    found: dict[str, str | None] = {"transformers": _version("transformers")}
    if model.trust_remote_code:
        classes = (getattr(model.hf_config, "auto_map", None) or {}).values()
        if any("--" in str(name) for name in classes):
            raise FileNotFoundError(f"code of {model.model}: it lies in another repository")
        for path in sorted(Path(directory).rglob("*.py")):
            name = str(path.relative_to(directory))
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"code": canonical(found)}


def _quantization(model: Any) -> dict[str, str]:
    """How the engine itself quantises weights while it loads them; the model's own is its config's.

    A form that differs between processes only costs hits.
    """
    own = getattr(model, "quantization_config", None)
    return {} if own is None else {"quantization_config": canonical(own)}


def adapter_settings(vllm_config: Any) -> str:
    """What the engine makes of any adapter, for the keys of requests that have one."""
    lora = getattr(vllm_config, "lora_config", None)
    if lora is None:
        return ""
    return canonical({name: getattr(lora, name, None) for name in _ADAPTERS})


def content_fields(
    vllm_config: Any, engine_version: str, directory: str, variables: Mapping[str, str]
) -> dict[str, str]:
    """`directory`: the model's folder; `variables`: fields of the engine's environment."""
    model, cache = vllm_config.model_config, vllm_config.cache_config
    plain = _plain(model.hf_config)
    minor = ".".join(engine_version.split(".")[:2])
    return {
        "format": str(FORMAT_VERSION),
        "engine": f"vllm {minor}",
        "config": canonical(plain),
        "dtype": str(model.dtype),
        "quantization": str(model.quantization),
        "kv_dtype": str(cache.cache_dtype),
        "kv_dtype_skip_layers": canonical(getattr(cache, "kv_cache_dtype_skip_layers", [])),
        "sliding_window": str(model.get_sliding_window()),
        "length_limit": _length_limit(model, plain),
        "multimodal": canonical(getattr(model, "mm_processor_kwargs", None)),
        "speculative": _speculative(vllm_config),
        **_quantization(model),
        **_code(model, directory),
        **_items(model, directory),
        **variables,
    }


def _speculative(vllm_config: Any) -> str:
    speculative = getattr(vllm_config, "speculative_config", None)
    return "-" if speculative is None else str(speculative.method)


def layout_fields(vllm_config: Any, kv_cache_config: Any, attention_isa: str) -> dict[str, str]:
    parallel = vllm_config.parallel_config
    fields = {
        "format": str(FORMAT_VERSION),
        "block_tokens": str(kv_cache_config.kv_cache_groups[0].kv_cache_spec.block_size),
        "tensor_parallel": str(parallel.tensor_parallel_size),
        "pipeline_parallel": str(parallel.pipeline_parallel_size),
        "memory_order": str(getattr(kv_cache_config, "kv_cache_layout", None)),
        "attention_isa": attention_isa,
        "device": str(vllm_config.device_config.device_type),
    }
    for number, group in enumerate(kv_cache_config.kv_cache_groups):
        fields[f"group{number}.layers"] = canonical(list(group.layer_names))
        fields[f"group{number}.spec"] = repr(group.kv_cache_spec)
    return fields


def _escaped(text: str, is_name: bool) -> str:
    out = []
    for byte in text.encode():
        character = chr(byte)
        if character == "\\":
            out.append("\\\\")
        elif byte < 0x20 or byte > 0x7E or (is_name and character == "="):
            out.append(f"\\x{byte:02x}")
        else:
            out.append(character)
    return "".join(out)


def text(content: dict[str, str], layout: dict[str, str]) -> str:
    """The form that terrace_open_owner reads (docs/formats/fingerprint.md)."""
    lines = []
    for part, fields in (("content", content), ("layout", layout)):
        for name, value in sorted(fields.items()):
            lines.append(f"{part}.{_escaped(name, True)}={_escaped(value, False)}\n")
    return "".join(lines)
