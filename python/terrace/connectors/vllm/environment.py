"""Which environment variables of the engine enter the fingerprint: whatever is set and declared by
it, but what is known to leave the KV alone.  A variable that nobody has judged yet costs hits, not
right answers.  What the engine sets for its own processes and declares nowhere (VLLM_DIST_IDENT) is
another one in each, and no setting.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping

_PREFIX = "VLLM_"
# Of libraries below the engine: in which precision they multiply.
_PRECISION = frozenset(
    {
        "DNNL_DEFAULT_FPMATH_MODE",
        "NVIDIA_TF32_OVERRIDE",
        "ONEDNN_DEFAULT_FPMATH_MODE",
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    }
)

# How the engine was built, is reached, says what it does, and starts its processes; what it fetches
# items with (the keys hold what came of them); resources that each engine has its own of; what it
# sets itself on every CPU, or for states of groups that are not served.
_HARMLESS_FAMILIES = (
    "VLLM_BUILD_",
    "VLLM_DEBUG_",
    "VLLM_DP_",
    "VLLM_EC_",
    "VLLM_ELASTIC_EP_",
    "VLLM_GPT_OSS_",
    "VLLM_LOGGING_",
    "VLLM_LOG_",
    "VLLM_LORA_RESOLVER_",
    "VLLM_MEDIA_",
    "VLLM_MOONCAKE_",
    "VLLM_NIXL_",
    "VLLM_P2P_",
    "VLLM_RAY_",
    "VLLM_TOOL_",
    "VLLM_USAGE_",
    "VLLM_USE_RAY_",
    "VLLM_WEIGHT_OFFLOADING_",
)
_HARMLESS = frozenset(
    f"VLLM_{name}"
    for name in """
    ALLOW_INSECURE_SERIALIZATION ALLOW_LONG_MAX_MODEL_LEN ALLOW_RUNTIME_LORA_UPDATING API_KEY
    ASSETS_CACHE ASSETS_CACHE_MODEL_CLEAN AUDIO_FETCH_TIMEOUT CACHE_ROOT
    CHAT_TEMPLATE_RENDER_TIMEOUT COMPILE_CACHE_SAVE_FORMAT COMPUTE_NANS_IN_LOGITS CONFIGURE_LOGGING
    CONFIG_ROOT CPU_CI_ENV CPU_KVCACHE_SPACE CPU_NUM_OF_RESERVED_CPU CPU_OMP_THREADS_BIND
    CUDART_SO_PATH CUDA_COMPATIBILITY_PATH CUSTOM_SCOPES_FOR_PROFILING DISABLE_COMPILE_CACHE
    DISABLE_LOG_LOGO DISABLE_REQUEST_ID_RANDOMIZATION DISABLE_SHARED_EXPERTS_STREAM
    DOCKER_BUILD_CONTEXT DO_NOT_TRACK
    ENABLE_COHERE_API ENABLE_CUDAGRAPH_GC ENABLE_CUDA_COMPATIBILITY ENABLE_RESPONSES_API_STORE
    ENABLE_STARTUP_PLAN ENABLE_V1_MULTIPROCESSING ENFORCE_STRICT_TOOL_CALLING
    ENGINE_READY_TIMEOUT_S EXECUTE_MODEL_TIMEOUT_SECONDS FASTSAFETENSORS_QUEUE_SIZE
    FLASHINFER_AUTOTUNE_CACHE_DIR FORCE_AOT_LOAD GC_DEBUG GPU_NIC_PCIE_MAPPING GPU_SYNC_CHECK
    HAS_FLASHINFER_CUBIN HOST_IP HTTP_TIMEOUT_KEEP_ALIVE IMAGE_FETCH_TIMEOUT IMAGE_TAG
    KEEP_ALIVE_ON_ENGINE_DEATH KV_EVENTS_USE_INT_BLOCK_HASHES KV_OFFLOAD_MAX_BATCH_DESCRIPTORS
    LOOPBACK_IP MAIN_CUDA_VERSION MAX_AUDIO_CLIP_FILESIZE_MB MAX_AUDIO_DECODE_BYTES
    MAX_AUDIO_DECODE_DURATION_S MAX_AUDIO_PREPROCESS_WORKERS MAX_BAD_WORDS_TOTAL_TOKENS
    MAX_COMPLETION_PROMPTS MAX_EMBED_DECODE_BYTES MAX_IMAGE_PIXELS MAX_MEDIA_DOWNLOAD_SIZE_MB
    MAX_NUM_BAD_WORDS MAX_N_SEQUENCES MAX_STOP_STRINGS MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS
    MQ_MAX_CHUNK_BYTES_MB MSGPACK_ZERO_COPY_THRESHOLD NCCL_INCLUDE_PATH NCCL_SO_PATH
    NIC_SELECTION_VARS NO_USAGE_STATS NVTX_SCOPES_FOR_PROFILING OBJECT_STORAGE_SHM_BUFFER_NAME
    PATTERN_MATCH_DEBUG PORT PROCESS_NAME_PREFIX RAISE_ON_LOGIT_NANS RANDOMIZE_DP_DUMMY_INPUTS
    REGEX_COMPILATION_TIMEOUT_S RINGBUFFER_WARNING_INTERVAL ROCM_SLEEP_MEM_CHUNK_SIZE
    RPC_BASE_PATH RUST_FRONTEND_PATH SERVER_DEV_MODE SKIP_MODEL_NAME_VALIDATION SKIP_P2P_CHECK
    SKIP_PRECOMPILED_VERSION_SUFFIX SKIP_VERSION_SUFFIX SSM_CONV_STATE_LAYOUT SYSTEM_START_DATE
    TARGET_DEVICE TRACE_FUNCTION TRITON_JIT_WARMUP_NUM_THREADS USE_EXPERIMENTAL_PARSER_CONTEXT
    USE_FASTOKENS
    USE_FLASHINFER_SAMPLER USE_MODELSCOPE USE_PRECOMPILED USE_PRECOMPILED_RUST USE_RUST_BENCH
    USE_RUST_FRONTEND USE_SIMPLE_KV_OFFLOAD USE_SPINLOOP_EXT V1_OUTPUT_PROC_CHUNK_SIZE
    V1_USE_OUTLINES_CACHE VIDEO_FETCH_TIMEOUT WORKER_MULTIPROC_METHOD
    WORKER_SHUTDOWN_TIMEOUT_SECONDS WSL2_ENABLE_PIN_MEMORY XGRAMMAR_CACHE_MB XLA_CACHE_PATH
    XPU_USE_SAMPLER_KERNEL
    """.split()
)
# Fingerprints stand in clear text beside the blocks: what may be a secret does not.
_SECRET = re.compile(r"SECRET|PASSWORD|CREDENTIAL|API_KEY|_KEY$|_TOKEN$")
_SHOWN = re.compile(r"[\w.,:+-]{0,32}")


def is_harmless(name: str) -> bool:
    return name in _HARMLESS or name.startswith(_HARMLESS_FAMILIES)


def _told(name: str, value: str) -> str:
    if _SHOWN.fullmatch(value) and not _SECRET.search(name):
        return value
    return f"sha256 {hashlib.sha256(value.encode(errors='surrogateescape')).hexdigest()}"


def fields(environ: Mapping[str, str], declared: Collection[str]) -> dict[str, str]:
    """One field of the fingerprint's content for each variable that is set and may matter.

    `declared`: the names that the engine reads its settings from.
    """
    return {
        f"environment.{name}": _told(name, value)
        for name, value in sorted(environ.items())
        if name in _PRECISION
        or (name.startswith(_PREFIX) and name in declared and not is_harmless(name))
    }
