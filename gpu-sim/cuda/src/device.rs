//! The GPU's properties: an H100 SXM5 80GB's, as `cuDeviceGetAttribute` gives them there.

use std::ffi::CStr;
use std::sync::OnceLock;

pub(crate) const NAME: &CStr = c"NVIDIA H100 80GB HBM3 (gpu-sim)";
pub(crate) const MEMORY_BYTES: u64 = 85_017_755_648;

/// `COLONEL_SIM_DEVICES`, default 1, 16 at most.
pub(crate) fn count() -> u32 {
    static COUNT: OnceLock<u32> = OnceLock::new();
    *COUNT.get_or_init(|| count_of(std::env::var("COLONEL_SIM_DEVICES").ok().as_deref()))
}

fn count_of(value: Option<&str>) -> u32 {
    value.and_then(|value| value.parse().ok()).unwrap_or(1).min(16)
}

/// A fixed UUID that ends in the device's number.
pub(crate) fn uuid(ordinal: u32) -> [u8; 16] {
    let mut uuid = *b"colonel-gpu-sim\0";
    uuid[15] = ordinal as u8;
    uuid
}

/// Value of a `CUdevice_attribute`; None if it is not played.
pub(crate) fn attribute(attribute: u32) -> Option<i32> {
    Some(match attribute {
        1 => 1024,              // MAX_THREADS_PER_BLOCK
        2 | 3 => 1024,          // MAX_BLOCK_DIM_X, _Y
        4 => 64,                // MAX_BLOCK_DIM_Z
        5 => i32::MAX,          // MAX_GRID_DIM_X
        6 | 7 => 65_535,        // MAX_GRID_DIM_Y, _Z
        8 => 49_152,            // MAX_SHARED_MEMORY_PER_BLOCK
        9 => 65_536,            // TOTAL_CONSTANT_MEMORY
        10 => 32,               // WARP_SIZE
        12 => 65_536,           // MAX_REGISTERS_PER_BLOCK
        13 => 1_980_000,        // CLOCK_RATE, kHz
        15 => 1,                // GPU_OVERLAP
        16 => 132,              // MULTIPROCESSOR_COUNT
        17 | 18 | 20 => 0,      // KERNEL_EXEC_TIMEOUT, INTEGRATED, COMPUTE_MODE
        19 | 31 | 32 => 1,      // CAN_MAP_HOST_MEMORY, CONCURRENT_KERNELS, ECC_ENABLED
        33 => 4,                // PCI_BUS_ID
        34 | 35 | 50 => 0,      // PCI_DEVICE_ID, TCC_DRIVER, PCI_DOMAIN_ID
        36 => 2_619_000,        // MEMORY_CLOCK_RATE, kHz
        37 => 5_120,            // GLOBAL_MEMORY_BUS_WIDTH, bits
        38 => 52_428_800,       // L2_CACHE_SIZE
        39 => 2_048,            // MAX_THREADS_PER_MULTIPROCESSOR
        40 => 3,                // ASYNC_ENGINE_COUNT
        41 | 78 | 79 | 80 => 1, // UNIFIED_ADDRESSING, STREAM_PRIORITIES_, GLOBAL_L1_, LOCAL_L1_CACHE_SUPPORTED
        75 => 9,                // COMPUTE_CAPABILITY_MAJOR
        76 => 0,                // COMPUTE_CAPABILITY_MINOR
        81 => 233_472,          // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
        82 => 65_536,           // MAX_REGISTERS_PER_MULTIPROCESSOR
        83 | 89 | 90 | 95 => 1, // MANAGED_MEMORY, CONCURRENT_MANAGED_ACCESS, COMPUTE_PREEMPTION, COOPERATIVE_LAUNCH
        84 | 96 => 0,           // MULTI_GPU_BOARD, COOPERATIVE_MULTI_DEVICE_LAUNCH
        97 => 232_448,          // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
        106 => 32,              // MAX_BLOCKS_PER_MULTIPROCESSOR
        108 => 32_768_000,      // MAX_PERSISTING_L2_CACHE_SIZE
        111 => 1_024,           // RESERVED_SHARED_MEMORY_PER_BLOCK
        115 | 120 => 1,         // MEMORY_POOLS_SUPPORTED, CLUSTER_LAUNCH
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidth_is_that_of_the_real_board() {
        let [clock, width] = [36, 37].map(|id| u64::try_from(attribute(id).unwrap()).unwrap());
        assert_eq!(2 * clock * width / 8 / 1_000_000, 3_352); // GB/s, double data rate
        assert_eq!(attribute(9_999), None);
    }

    #[test]
    fn count_and_uuid() {
        assert_eq!(
            [None, Some("4"), Some("0"), Some("99"), Some("x")].map(count_of),
            [1, 4, 0, 16, 1]
        );
        assert_ne!(uuid(0), uuid(1));
    }
}
