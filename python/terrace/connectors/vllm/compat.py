"""What the installed vLLM and the chosen configuration allow, found out by asking, not by hope.

Whatever is not served is named here in one plain sentence; the engine then runs as without Terrace.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from terrace._native import Code, TerraceError
from terrace.connectors.vllm import contract

OLDEST = (0, 30)

# Base-class members without which this connector cannot work.
_NEEDED = (
    "on_new_request",
    "get_num_new_matched_tokens",
    "update_state_after_alloc",
    "build_connector_meta",
    "update_connector_output",
    "register_kv_caches",
    "handle_preemptions",
    "start_load_kv",
    "wait_for_save",
    "get_block_ids_with_load_errors",
    "build_connector_worker_meta",
    "get_transfer_results",
)
# Served when there, missed by nobody when not.
_OPTIONAL = (
    "take_events",
    "reset_cache",
    "bind_kv_cache_manager",
    "get_external_cache_hit_sources",
    "get_mem_pool_context",
    "finish_forward",
)
# KV groups whose every block is a function of the tokens before it, and is whole once it is full.
_SERVED_SPECS = {"FullAttentionSpec", "MLAAttentionSpec", "SlidingWindowSpec"}
# Weight formats whose bytes the core can identify.
_IDENTIFIED_FORMATS = {"auto", "safetensors", "hf", "fastsafetensors", "runai_streamer"}
# Proposers that keep no KV of their own.
_KEYLESS_PROPOSERS = {"ngram", "ngram_gpu", "suffix"}


def engine_version() -> str:
    import vllm

    return str(vllm.__version__)


def declared_variables() -> set[str]:
    """Names of the environment variables that are settings of the engine."""
    from vllm import envs

    return set(getattr(envs, "environment_variables", ()))


# What vLLM 0.32's models load beside the weights in their folder (`secondary_weights`) that is not
# in it: of a repository that their configuration names, or of a folder below.
_OTHER_REPOSITORIES = ("audio_model_id", "text_model_id")
_FOLDERS_BELOW = frozenset(("MoonshotKimiaForCausalLM",))


def _release(version: str) -> tuple[int, int] | None:
    parts = version.split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        return None


def contract_refusal(base: type, version: str) -> str:
    """Why this vLLM cannot carry the connector; "" = it can."""
    release = _release(version)
    if release is not None and release < OLDEST:
        return f"vLLM {version} is older than {OLDEST[0]}.{OLDEST[1]}"
    missing = [name for name in _NEEDED if not hasattr(base, name)]
    if missing:
        return f"vLLM {version} has no {', '.join(missing)}"
    return ""


def signature_refusal(ours: type, unknown: Iterable[str], version: str) -> str:
    """Why this vLLM would call the connector in a way that it does not know; "" = it would not.

    `unknown`: members that its base class leaves to whoever derives from it, and it has not.
    """
    calls = [*contract.refused_calls(ours), *sorted(unknown)]
    return f"vLLM {version} calls in another way: {', '.join(calls)}" if calls else ""


def contract_report(base: type, version: str) -> list[str]:
    """Lines for the log: what is supported, and where the contract departs from the tested one."""
    have = [name for name in _OPTIONAL if hasattr(base, name)]
    lines = [f"vllm {version}: optional hooks {', '.join(have) or 'none'}"]
    tested = contract.kept(version)
    if tested is None:
        return [*lines, f"vllm {version}: not a tested version; its hooks were probed"]
    changed = contract.differences(tested, contract.read_installed())
    if not changed:
        return [*lines, f"vllm {version}: contract equals the tested one"]
    shown = "; ".join(changed[:6])
    return [*lines, f"vllm {version}: {len(changed)} differences from the tested contract: {shown}"]


def _parallel_refusal(parallel: Any) -> str:
    if parallel.pipeline_parallel_size > 1:
        return "pipeline parallelism is not served yet"
    if getattr(parallel, "nnodes", 1) > 1:
        return "tensor parallelism over several nodes is not served yet"
    for name in ("decode_context_parallel_size", "prefill_context_parallel_size"):
        if getattr(parallel, name, 1) > 1:
            return f"{name.replace('_', ' ')} > 1 is not served yet"
    return ""


def _groups_refusal(kv_cache_config: Any) -> str:
    groups = kv_cache_config.kv_cache_groups
    if not groups:
        return "the model keeps no KV cache"
    for group in groups:
        kind = type(group.kv_cache_spec).__name__
        if kind not in _SERVED_SPECS:
            return f"KV groups of kind {kind} are not served yet"
        if getattr(group, "is_eagle_group", False):
            return "KV of draft models is not served yet"
        if getattr(group, "host_resident", False):
            return "KV that the engine itself keeps in host memory is not served"
    sizes = sorted({int(group.kv_cache_spec.block_size) for group in groups})
    if len(sizes) > 1:
        return f"KV groups with blocks of {sizes} tokens are not served together yet"
    return ""


def _foreign_module(model: Any) -> str:
    """Where the model's class comes from when it is none of the engine's own (a plug-in's)."""
    entries = getattr(getattr(model, "registry", None), "models", {})
    entry = entries.get(getattr(model, "architecture", None))
    of_class = getattr(getattr(entry, "model_cls", None), "__module__", "")
    module = str(getattr(entry, "module_name", "") or of_class)
    return "" if module.split(".")[0] in ("", "vllm") else module


def _weights_elsewhere(model: Any) -> str:
    """What else the model loads than the weights in its folder; "" = nothing."""
    config = getattr(model, "hf_config", None)
    for name in _OTHER_REPOSITORIES:
        if getattr(config, name, None) is not None:
            return f"weights from another repository ({name})"
    if getattr(model, "architecture", None) in _FOLDERS_BELOW:
        return f"weights in a folder below its own ({model.architecture})"
    return ""


def _content_refusal(vllm_config: Any) -> str:
    """What makes the KV no function of anything we can name."""
    load_format = str(vllm_config.load_config.load_format).lower()
    if load_format not in _IDENTIFIED_FORMATS:
        return f"weights of load format {load_format} cannot be identified"
    if getattr(vllm_config.model_config, "model_class_overrides", None):
        return "models whose class is overridden (model_class_overrides) cannot be identified"
    module = _foreign_module(vllm_config.model_config)
    if module:
        return f"models by the code of another package ({module}) cannot be identified"
    elsewhere = _weights_elsewhere(vllm_config.model_config)
    if elsewhere:
        return f"a model that loads {elsewhere} cannot be identified yet"
    if getattr(vllm_config.cache_config, "calculate_kv_scales", False):
        return "KV scales calculated while serving cannot be keyed"
    speculative = getattr(vllm_config, "speculative_config", None)
    if speculative is not None and str(speculative.method) not in _KEYLESS_PROPOSERS:
        return f"speculative decoding by {speculative.method} is not served yet"
    return ""


def refusal(vllm_config: Any, kv_cache_config: Any) -> str:
    """Why Terrace stands aside in this configuration; "" = it serves."""
    scheduler = vllm_config.scheduler_config
    if vllm_config.model_config.is_encoder_decoder:
        return "encoder-decoder models are not served"
    # First what no flag changes: vLLM schedules asynchronously by default on GPUs.
    if str(vllm_config.device_config.device_type) != "cpu":
        return f"device {vllm_config.device_config.device_type} is not served yet"
    if getattr(scheduler, "async_scheduling", False):
        return "asynchronous scheduling is not served yet (--no-async-scheduling turns it off)"
    return (
        _parallel_refusal(vllm_config.parallel_config)
        or _groups_refusal(kv_cache_config)
        or _content_refusal(vllm_config)
    )


def tensor_rank() -> int:
    """The calling worker's rank in its tensor-parallel group."""
    from vllm.distributed.parallel_state import get_tensor_model_parallel_rank

    return int(get_tensor_model_parallel_rank())


def attention_isa(vllm_config: Any, kv_cache_config: Any) -> str:
    """The instruction set that K and V are packed for; "" where the backend does not say."""
    spec = kv_cache_config.kv_cache_groups[0].kv_cache_spec
    try:
        from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

        return str(
            _get_attn_isa(
                vllm_config.model_config.dtype,
                spec.block_size,
                spec.head_size,
                vllm_config.cache_config.cache_dtype,
            )
        )
    except (ImportError, TypeError):
        return ""


def model_directory(vllm_config: Any) -> str:
    """The folder of the weights; "" when it is not on this machine."""
    model = vllm_config.model_config
    path = str(getattr(model, "model_weights", "") or model.model)
    if os.path.isdir(path):  # noqa: PTH112 (an engine's string, handed on as one)
        return path
    if os.environ.get("VLLM_USE_MODELSCOPE", "").lower() in ("1", "true"):
        return ""  # Of a folder of ModelScope's, not of the one of that name here.
    cache = getattr(vllm_config.load_config, "download_dir", None)
    try:
        from huggingface_hub import snapshot_download

        return str(
            snapshot_download(
                path, revision=model.revision, cache_dir=cache, local_files_only=True
            )
        )
    except Exception:  # Any failure means the same: the weights are not found.
        return ""


def failure_policy(vllm_config: Any) -> str:
    """What the engine does with a request whose load failed; a worker asks while it is made.

    A child of MultiConnector is given its own copy of the setting, by which nobody goes.
    """
    from vllm.config import get_current_vllm_config_or_none

    engine = get_current_vllm_config_or_none() or vllm_config
    return str(engine.kv_transfer_config.kv_load_failure_policy)


def accepts_bare_items(vllm_config: Any) -> bool:
    """vLLM 0.32 takes whoever loads KV for one to whom another engine sends what is missing."""
    model = getattr(vllm_config, "model_config", None)
    multimodal = getattr(model, "multimodal_config", None)
    if not getattr(multimodal, "allow_missing_mm_embeddings", False):
        return False
    encoder = getattr(vllm_config, "ec_transfer_config", None)
    return not getattr(encoder, "is_ec_consumer", False)


def has_kv_events(vllm_config: Any) -> bool:
    events = getattr(vllm_config, "kv_events_config", None)
    return events is not None and bool(events.enable_kv_cache_events)


def hash_tokens(vllm_config: Any, kv_cache_config: Any, block_tokens: int) -> int:
    """From one of a request's block hashes to the next; --prefix-match-unit asks for less."""
    tokens = getattr(kv_cache_config, "hash_block_size", None)
    if tokens is None and len(kv_cache_config.kv_cache_groups) > 1:  # Not told before 0.32.
        tokens = getattr(vllm_config.cache_config, "prefix_match_unit", None)
    return int(tokens or block_tokens)


def sends_whole_hashes() -> bool:
    """The engine's own events carry all 32 bytes of a block's hash."""
    from vllm import envs

    return not getattr(envs, "VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES", True)


def sees_items(vllm_config: Any) -> bool:
    """What the model is given of multimodal items comes from them, not from another's encoder."""
    return getattr(vllm_config, "ec_transfer_config", None) is None


def is_wrong_setting(error: TerraceError) -> bool:
    """Of an owner that did not open: whoever set it up is to be told.

    A layout is the engine's and the model's; every refusal of one begins with that word.
    """
    return error.code == Code.INVALID and not error.text.startswith("layout:")
