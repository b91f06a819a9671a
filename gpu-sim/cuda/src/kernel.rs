//! The properties of a kernel follow from its name, so that each run of a workload sees the same ones.

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicU32, Ordering};

use sim_abi::Kernel;

use crate::timeline::scaled;

/// FNV-1a: fixed for ever, unlike the standard library's hashes.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A kernel of this name. Never freed: records point to its name.
pub(crate) fn of_name(name: &CStr) -> &'static Kernel {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let bits = hash(name.to_bytes());
    let [low, high] = [bits as u32, (bits >> 32) as u32];
    Box::leak(Box::new(Kernel {
        name: CString::from(name).into_raw(),
        id: NEXT.fetch_add(1, Ordering::Relaxed),
        // 64 at most: then a block of 1,024 threads fits the 65,536 registers of an SM, as a real launch must.
        registers: 16 + low % 7 * 8,
        static_shared: high % 5 * 1024,
        local: if high % 7 == 0 { 64 } else { 0 },
    }))
}

/// How long `kernel` runs with `grid`: 1.2 to 6 us, and longer for grids of many blocks.
pub(crate) fn duration_ns(kernel: &Kernel, grid: [u32; 3]) -> u64 {
    // SAFETY: made by `of_name` from a C string that is never freed.
    let name = unsafe { CStr::from_ptr(kernel.name) };
    let blocks = grid
        .iter()
        .fold(1_u64, |product, side| product.saturating_mul(u64::from(*side)));
    // 2,112 blocks (132 SMs of 16) run at once and take about 400 ns more for each further such wave.
    let waves = (blocks / 2_112).min(1_000);
    scaled(1_200 + hash(name.to_bytes()) % 1_300 + blocks.min(2_112) + 400 * waves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_gives_the_same_kernel_and_time() {
        let [first, second] = [of_name(c"rms_norm"), of_name(c"rms_norm")];
        assert_eq!(first.registers, second.registers);
        assert_ne!(first.id, second.id);
        assert_eq!(duration_ns(first, [16, 1, 1]), duration_ns(second, [16, 1, 1]));
        assert!(first.registers <= 64 && first.registers.is_multiple_of(8));
    }

    #[test]
    fn kernels_take_microseconds_and_larger_grids_longer() {
        let kernel = of_name(c"gemm");
        let [small, large] = [[1, 1, 1], [4096, 1, 1]].map(|grid| duration_ns(kernel, grid));
        assert!((1_200..6_000).contains(&small), "{small}");
        assert!(large > small);
        assert!(duration_ns(kernel, [u32::MAX; 3]) < 1_000_000);
    }
}
