"""Environment variables that may change the KV enter the fingerprint; nothing else, no secret."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from terrace.connectors.vllm import environment

# Of the tested releases: they choose arithmetic, kernels, or what an item's decoder gives.
NUMERIC = """
    ADAPTIVE_VERIFICATION_PROFILE_CONTEXT_LEN ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE
    ALLREDUCE_USE_FLASHINFER ALLREDUCE_USE_FLASHINFER_PCIE_IPC ALLREDUCE_USE_SYMM_MEM
    B12X_MOE_FP4_FORCE_A16 BATCH_INVARIANT BLOCKSCALE_FP8_GEMM_FLASHINFER CPU_ATTN_SPLIT_KV
    CPU_INT4_W4A8 DBO_COMM_SMS DCP_Q_REPLICATE DEEPEPLL_NVFP4_DISPATCH DEEPEP_BUFFER_SIZE_MB
    DEEPEP_HIGH_THROUGHPUT_FORCE_INTRA_NODE DEEPEP_LOW_LATENCY_USE_MNNVL
    DEEPEP_V2_ALLOW_HYBRID_MODE DEEPEP_V2_ALLOW_MULTIPLE_REDUCTION DEEPEP_V2_PREFER_OVERLAP
    DEEP_GEMM_WARMUP DISABLED_KERNELS DISABLE_DSV4_MEGAMOE_SHARED_EXPERT_FUSION DISABLE_PYNCCL
    DISTRIBUTED_USE_SPLIT_GROUP
    ENABLE_FLA_PACKED_RECURRENT_DECODE ENABLE_GEMM_RS ENABLE_HPC_OPS
    ENABLE_INDUCTOR_COORDINATE_DESCENT_TUNING ENABLE_INDUCTOR_MAX_AUTOTUNE ENABLE_PREGRAD_PASSES
    FLASHINFER_ALLREDUCE_BACKEND FLASHINFER_AUTOTUNE_SKIP_OPS
    FLASHINFER_MOE_A2A_LOW_PRECISION_COMBINE FLASHINFER_WORKSPACE_BUFFER_SIZE
    FLOAT32_MATMUL_PRECISION GDN_DECODE_KERNEL HUMMING_INPUT_QUANT_CONFIG HUMMING_MOE_GEMM_TYPE
    HUMMING_ONLINE_QUANT_CONFIG HUMMING_USE_F16_ACCUM KIMI_K3_AUX_ATTN_RES_STREAM
    KIMI_K3_GEMM_AR KIMI_K3_SHARD_SP_SHARED_EXPERT KV_CACHE_LAYOUT LORA_DISABLE_PDL
    LORA_ENABLE_DUAL_STREAM MARLIN_INPUT_DTYPE MARLIN_USE_ATOMIC_ADD
    MAX_TOKENS_PER_EXPERT_FP4_MOE MLA_DISABLE MODEL_REDIRECT_PATH MOE_ROUTING_SIMULATION_STRATEGY
    MOE_SKIP_PADDING MOE_USE_DEEP_GEMM MULTI_STREAM_GEMM_TOKEN_THRESHOLD
    MXFP4_EMULATION_DEQUANT_AT_LOAD MXFP8_EMULATION_DEQUANT_AT_LOAD PLUGINS PP_LAYER_PARTITION
    REPLICATE_EMBED ROCM_AITER_MEGA_MOE_FUSE_SHARED_EXPERTS ROCM_AITER_MLA_ASM_PADDING
    ROCM_AITER_MLA_DCP_VERIFY ROCM_AITER_MOE_DISPATCH_POLICY ROCM_FP8_MFMA_PAGE_ATTN
    ROCM_FP8_PADDING ROCM_MOE_PADDING ROCM_MONO_DECODE ROCM_QUICK_REDUCE_CAST_BF16_TO_FP16
    ROCM_QUICK_REDUCE_MAX_SIZE_BYTES_MB ROCM_QUICK_REDUCE_MIN_SIZE_BYTES_MB
    ROCM_QUICK_REDUCE_QUANTIZATION ROCM_QUICK_REDUCE_QUANTIZATION_MIN_SIZE_KB
    ROCM_SHUFFLE_KV_CACHE_LAYOUT ROCM_USE_AITER ROCM_USE_AITER_CUSTOM_AR
    ROCM_USE_AITER_FP4BMM ROCM_USE_AITER_FP4_ASM_GEMM ROCM_USE_AITER_FP8BMM
    ROCM_USE_AITER_FUSION_SHARED_EXPERTS ROCM_USE_AITER_LINEAR ROCM_USE_AITER_LINEAR_HIPBMM
    ROCM_USE_AITER_MHA ROCM_USE_AITER_MLA ROCM_USE_AITER_MOE ROCM_USE_AITER_MOE_A4W4_DSV4
    ROCM_USE_AITER_MOE_SITUV2 ROCM_USE_AITER_RMSNORM ROCM_USE_AITER_TRITON_GEMM
    ROCM_USE_AITER_TRITON_ROPE ROCM_USE_AITER_TRITON_SPARSE_MLA
    ROCM_USE_AITER_UNIFIED_ATTENTION ROCM_USE_SKINNY_GEMM SHARED_EXPERTS_STREAM_TOKEN_THRESHOLD
    SPARSE_INDEXER_MAX_LOGITS_MB TEST_FORCE_LOAD_FORMAT
    TPU_USING_PATHWAYS TRITON_FORCE_FIRST_CONFIG TRITON_USE_TD TUNED_CONFIG_FOLDER USE_AOT_COMPILE
    USE_BREAKABLE_CUDAGRAPH USE_BYTECODE_HOOK USE_DEEP_GEMM USE_DEEP_GEMM_E8M0
    USE_DEEP_GEMM_TMA_ALIGNED_SCALES USE_DIRECT_DCP_A2A USE_DIRECT_DCP_KV_GATHER
    USE_DIRECT_DCP_Q_GATHER USE_FLASHINFER_MOE_INT4 USE_FUSED_MOE_GROUPED_TOPK USE_HW_AGNOSTIC
    USE_LAYERNAME USE_MEGA_AOT_ARTIFACT USE_NCCL_SYMM_MEM USE_OINK_OPS USE_STANDALONE_COMPILE
    USE_TRITON_AWQ USE_V2_MODEL_RUNNER VIDEO_LOADER_BACKEND XLA_CHECK_RECOMPILATION XLA_USE_SPMD
    XPU_FORCE_N_CONTIG_WEIGHT XPU_INC_WNA16_BACKEND XPU_PP_MICROBATCH ZENTORCH_WEIGHT_PREPACK
    """.split()
OLDER = ["CPU_SGL_KERNEL", "CPU_MOE_PREPACK", "FLASH_ATTN_VERSION", "USE_TRITON_FLASH_ATTN"]
HARMLESS = [
    "PORT",
    "HOST_IP",
    "LOGGING_LEVEL",
    "CPU_OMP_THREADS_BIND",
    "API_KEY",
    "RAY_X",
    "DP_RANK",
]


def fields(environ: dict[str, str]) -> dict[str, str]:
    """With an engine that declares all of them."""
    return environment.fields(environ, set(environ))


@pytest.mark.parametrize("name", [f"VLLM_{name}" for name in [*NUMERIC, *OLDER]])
def test_what_may_change_the_kv_is_a_field_of_its_own(name: str) -> None:
    one, other = fields({name: "1"}), fields({name: "2"})
    assert one == {f"environment.{name}": "1"}
    assert one != other
    assert fields({}) == {}


@pytest.mark.parametrize(
    "name",
    [
        "DNNL_DEFAULT_FPMATH_MODE",
        "NVIDIA_TF32_OVERRIDE",
        "ONEDNN_DEFAULT_FPMATH_MODE",
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    ],
)
def test_so_is_the_precision_of_libraries_below_the_engine(name: str) -> None:
    assert environment.fields({name: "BF16"}, ()) == {f"environment.{name}": "BF16"}


@pytest.mark.parametrize("name", [f"VLLM_{name}" for name in HARMLESS])
def test_what_leaves_the_kv_alone_is_no_field(name: str) -> None:
    assert fields({name: "1", "PATH": "/bin", "OMP_NUM_THREADS": "4"}) == {}


def test_a_variable_that_nobody_has_judged_is_a_field() -> None:
    assert fields({"VLLM_OF_A_LATER_RELEASE": "x"}) == {"environment.VLLM_OF_A_LATER_RELEASE": "x"}


def test_what_the_engine_declares_nowhere_is_its_processes_own() -> None:
    """VLLM_DIST_IDENT is random: with it no engine would find what another one stored."""
    assert environment.fields({"VLLM_DIST_IDENT": "x"}, {"VLLM_CPU_INT4_W4A8"}) == {}


def test_no_secret_and_nothing_long_stands_there_in_clear() -> None:
    given = {"VLLM_SOME_TOKEN": "abc", "VLLM_OTHER": "x" * 100, "VLLM_PATH_OF": "/home/u/secret"}
    told = fields(given)
    assert len(told) == 3
    assert all(re.fullmatch(r"sha256 [0-9a-f]{64}", value) for value in told.values())
    assert fields(given | {"VLLM_SOME_TOKEN": "abd"}) != told


def test_every_variable_of_the_installed_engine_was_judged() -> None:
    """A new release brings new ones: each belongs into NUMERIC here, or among the harmless ones."""
    found = importlib.util.find_spec("vllm")
    assert found is not None
    assert found.origin is not None
    text = (Path(found.origin).parent / "envs.py").read_text()
    names = set(re.findall(r'^    "(VLLM_\w+)": ', text, re.MULTILINE))
    assert len(names) > 200
    judged = {f"VLLM_{name}" for name in NUMERIC}
    unjudged = {name for name in names - judged if not environment.is_harmless(name)}
    assert unjudged == set()
    assert {name for name in judged if environment.is_harmless(name)} == set()
