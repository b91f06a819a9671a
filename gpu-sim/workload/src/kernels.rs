//! The kernels of a decode step: names, grids and blocks as in a small model's under vLLM on an H100.

use std::ffi::CStr;

/// A kernel and how it is launched.
pub(crate) struct Kernel {
    pub(crate) name: &'static CStr,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    /// Zeros without clusters.
    pub(crate) cluster: [u32; 3],
    pub(crate) shared: u32,
}

const fn kernel(name: &'static CStr, grid: [u32; 3], block: [u32; 3], shared: u32) -> Kernel {
    Kernel {
        name,
        grid,
        block,
        cluster: [0; 3],
        shared,
    }
}

/// A matrix product of cuBLAS: a name that is not mangled, clusters, much shared memory.
const fn product(name: &'static CStr, grid: [u32; 3]) -> Kernel {
    Kernel {
        name,
        grid,
        block: [384, 1, 1],
        cluster: [2, 1, 1],
        shared: 199_168,
    }
}

/// All kernels: the first opens a step, the last closes it, those between make a layer.
pub(crate) static KERNELS: [Kernel; 14] = [
    kernel(
        c"_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_11FillFunctorIiEENS0_5ArrayIPcLi1EEEEEviT0_T1_",
        [4, 1, 1],
        [128, 1, 1],
        0,
    ),
    kernel(
        c"_ZN4vllm25fused_add_rms_norm_kernelIN3c108BFloat16ELi8ELb1EEEvPT_lS4_PKS3_fii",
        [4, 1, 1],
        [112, 1, 1],
        0,
    ),
    product(c"nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT", [72, 1, 1]),
    kernel(
        c"_ZN4vllm23rotary_embedding_kernelIN3c108BFloat16ELb1EEEvPKlPT_S6_PKS5_illliii",
        [4, 1, 1],
        [448, 1, 1],
        0,
    ),
    kernel(
        c"_ZN4vllm30reshape_and_cache_flash_kernelIN3c108BFloat16ES2_Li0EEEvPKT_S5_PT0_S7_PKlllllliiiPKfSB_",
        [4, 1, 1],
        [128, 1, 1],
        0,
    ),
    kernel(
        c"_ZN5flash24flash_fwd_splitkv_kernelINS_23Flash_fwd_kernel_traitsILi64ELi64ELi256ELi4EEELb0ELb0ELb0ELb0ELb1ELb0ELb1ELb0EEEvNS_16Flash_fwd_paramsE",
        [1, 16, 8],
        [128, 1, 1],
        81_920,
    ),
    kernel(
        c"_ZN5flash32flash_fwd_splitkv_combine_kernelINS_23Flash_fwd_kernel_traitsILi64ELi64ELi256ELi4EEELi4ELi4ELb1EEEvNS_16Flash_fwd_paramsE",
        [14, 1, 1],
        [128, 1, 1],
        0,
    ),
    product(c"nvjet_sm90_tst_64x8_64x16_2x1_v_bz_splitK_TNT", [56, 1, 1]),
    kernel(
        c"_ZN4vllm15rms_norm_kernelIN3c108BFloat16ELi8EEEvPT_PKS3_lS6_fii",
        [4, 1, 1],
        [112, 1, 1],
        0,
    ),
    product(c"nvjet_sm90_tst_128x8_64x12_2x1_v_bz_TNT", [304, 1, 1]),
    kernel(
        c"_ZN4vllm18act_and_mul_kernelIN3c108BFloat16EXadL_ZNS_11silu_kernelIS2_EET_RKS4_EELb1EEEvPS4_PS5_i",
        [4, 1, 1],
        [1024, 1, 1],
        0,
    ),
    product(c"nvjet_sm90_tst_64x8_64x16_4x2_h_bz_splitK_TNT", [112, 1, 1]),
    kernel(
        c"_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_15CUDAFunctor_addIN3c108BFloat16EfEENS0_5ArrayIPcLi3EEEEEviT0_T1_",
        [7, 1, 1],
        [128, 1, 1],
        0,
    ),
    product(c"nvjet_sm90_tst_384x8_64x4_2x1_v_bz_TNT", [4_748, 1, 1]),
];

/// Which of [`KERNELS`] is number `index` of a step of `count`.
pub(crate) fn of_step(index: usize, count: usize) -> usize {
    let (last, layer) = (KERNELS.len() - 1, KERNELS.len() - 2);
    match index {
        0 => 0,
        index if index + 1 == count => last,
        index => 1 + (index - 1) % layer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_opens_with_the_first_closes_with_the_last_and_repeats_layers_between() {
        let step: Vec<_> = (0..26).map(|index| of_step(index, 26)).collect();
        let layer: Vec<_> = (1..=12).collect();
        assert_eq!(step, [vec![0], layer.clone(), layer, vec![13]].concat());
        assert_eq!(of_step(0, 1), 0);
    }

    #[test]
    fn every_launch_is_one_the_gpu_takes() {
        for kernel in &KERNELS {
            assert!(
                kernel.block.iter().product::<u32>() <= 1_024 && !kernel.grid.contains(&0),
                "{:?}",
                kernel.name
            );
            assert!(
                kernel.cluster[0] == 0 || kernel.grid[0].is_multiple_of(kernel.cluster[0]),
                "{:?}",
                kernel.name
            );
        }
    }
}
