"""Kernels of a step: names, grids and blocks as of a small model under vLLM on an H100."""

from typing import NamedTuple

Dim3 = tuple[int, int, int]


class Kernel(NamedTuple):
    name: str
    # Blocks; the first side is multiplied by the tokens of the step if `by_token`.
    grid: Dim3
    block: Dim3
    shared: int = 0
    cluster: int = 0
    by_token: bool = False


def _gemm(name: str, grid: Dim3) -> Kernel:
    """A matrix product of cuBLAS: a name that is not mangled, clusters, much shared memory."""
    return Kernel(name, grid, (384, 1, 1), 199_168, cluster=2)


_BF16 = "N3c108BFloat16E"
_FLASH = "Flash_fwd_kernel_traitsILi64ELi64ELi256ELi4EEE"

EMBEDDING = Kernel(
    "_ZN2at6native24vectorized_gather_kernelILi16ElEEvPcS2_PT0_illllb", (1, 4, 1), (128, 1, 1), by_token=True
)
RMS_NORM = Kernel(f"_ZN4vllm15rms_norm_kernelI{_BF16}Li8EEEvPT_PKS3_lS6_fii", (1, 1, 1), (112, 1, 1), by_token=True)
FUSED_ADD_RMS_NORM = Kernel(
    f"_ZN4vllm25fused_add_rms_norm_kernelI{_BF16}Li8ELb1EEEvPT_lS4_PKS3_fii", (1, 1, 1), (112, 1, 1), by_token=True
)
# With tensor parallelism after each of the two row-parallel products of a layer.
ALL_REDUCE = Kernel(
    f"_ZN4vllm26cross_device_reduce_1stageI{_BF16}Li2EEEvPNS_8RankDataENS_11RankSignalsEPNS_6SignalEPT_ii",
    (36, 1, 1),
    (512, 1, 1),
)
QKV = _gemm("nvjet_sm90_tst_64x8_64x16_4x1_v_bz_bias_TNT", (72, 1, 1))
ROTARY = Kernel(
    f"_ZN4vllm23rotary_embedding_kernelI{_BF16}Lb1EEEvPKlPT_S6_PKS5_illliii",
    (1, 1, 1),
    (448, 1, 1),
    by_token=True,
)
RESHAPE_AND_CACHE = Kernel(
    f"_ZN4vllm30reshape_and_cache_flash_kernelI{_BF16}S2_LNS_18Fp8KVCacheDataTypeE0EEEvPKT_S6_PT0_S8_PKllllllliiiPKfSC_",
    (1, 1, 1),
    (128, 1, 1),
    by_token=True,
)
FLASH_ATTENTION = (
    Kernel(
        f"_ZN5flash24flash_fwd_splitkv_kernelINS_23{_FLASH}Lb0ELb0ELb0ELb0ELb1ELb0ELb1ELb0EEEvNS_16Flash_fwd_paramsE",
        (1, 16, 8),
        (128, 1, 1),
        81_920,
    ),
    Kernel(
        f"_ZN5flash32flash_fwd_splitkv_combine_kernelINS_23{_FLASH}Li4ELi4ELb1EEEvNS_16Flash_fwd_paramsE",
        (14, 1, 1),
        (128, 1, 1),
    ),
)
O_PROJ = _gemm("nvjet_sm90_tst_64x8_64x16_2x1_v_bz_splitK_TNT", (56, 1, 1))
MLP = (
    _gemm("nvjet_sm90_tst_128x8_64x12_2x1_v_bz_TNT", (304, 1, 1)),
    Kernel(
        f"_ZN4vllm18act_and_mul_kernelI{_BF16}XadL_ZNS_11silu_kernelIS2_EET_RKS4_EELb1EEEvPS4_PS5_i",
        (1, 1, 1),
        (1024, 1, 1),
        by_token=True,
    ),
    _gemm("nvjet_sm90_tst_64x8_64x16_4x2_h_bz_splitK_TNT", (112, 1, 1)),
)
LM_HEAD = _gemm("nvjet_sm90_tst_384x8_64x4_2x1_v_bz_TNT", (4_748, 1, 1))
# What prepares a step and samples its tokens: Triton's kernels under model runner V2, PyTorch's under V1.
PREPARE_V2 = (
    Kernel("_prepare_prefill_inputs_kernel", (1, 1, 1), (128, 1, 1), by_token=True),
    Kernel("_prepare_pos_seq_lens_kernel", (1, 1, 1), (128, 1, 1), by_token=True),
)
PREPARE_V1 = (
    Kernel(
        "_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_11FillFunctorIiEENS0_5ArrayIPcLi1EEEEEviT0_T1_",
        (4, 1, 1),
        (128, 1, 1),
    ),
)
SAMPLE_V2 = (Kernel("_gumbel_sample_kernel", (1, 149, 1), (128, 1, 1), by_token=True),)
SAMPLE_V1 = (
    Kernel(
        "_ZN2at6native13reduce_kernelILi512ELi1ENS0_8ReduceOpIfNS0_9ArgMaxOpsIfEEjlLi4ELi4EEEEEvT1_",
        (1, 1, 1),
        (512, 1, 1),
        by_token=True,
    ),
)
