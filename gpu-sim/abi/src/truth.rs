//! What the stand-in GPU's counters show of a kernel: made up from its name, so that a test can know it, too.

/// Figures of a kernel while it runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truth {
    /// Reads from device memory, % of the peak.
    pub dram_read_pct: f64,
    /// Writes to device memory, % of the peak.
    pub dram_write_pct: f64,
    /// Tensor pipes, % of cycles.
    pub tensor_pct: f64,
    /// Streaming multiprocessors, % of the busiest part's peak.
    pub sm_pct: f64,
    /// L2 cache, %.
    pub l2_pct: f64,
    /// Cycles with a warp, %.
    pub active_pct: f64,
}

/// Peak of the device memory, bytes/ns.
pub const DRAM_BYTES_PER_NS: f64 = 3352.0;
/// Clock of the SMs, cycles/ns.
pub const CYCLES_PER_NS: f64 = 1.755;

impl Truth {
    /// A copy or a fill.
    pub const COPY: Truth = Truth {
        dram_read_pct: 30.0,
        dram_write_pct: 30.0,
        tensor_pct: 0.0,
        sm_pct: 0.0,
        l2_pct: 40.0,
        active_pct: 0.0,
    };

    /// Of the kernel with this (mangled) name. `gemm` in it means a compute-bound one, `copy` a memory-bound one.
    pub fn of_kernel(name: &str) -> Truth {
        // FNV-1a.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let digits = |place: u32| (hash >> (8 * place) & 0xff) as f64 / 255.0;
        let is = |word: &str| name.contains(word);
        let (memory, compute) = match (is("copy"), is("gemm")) {
            (true, _) => (80.0 + 12.0 * digits(0), 5.0),
            (_, true) => (10.0 + 20.0 * digits(0), 60.0 + 35.0 * digits(1)),
            _ => (10.0 + 60.0 * digits(0), 5.0 + 40.0 * digits(1)),
        };
        let read_share = 0.5 + 0.4 * digits(2);
        Truth {
            dram_read_pct: memory * read_share,
            dram_write_pct: memory * (1.0 - read_share),
            tensor_pct: if is("gemm") { compute * 0.9 } else { 0.0 },
            sm_pct: compute,
            l2_pct: memory * 0.8,
            active_pct: 60.0 + 40.0 * digits(3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_the_same_each_time_and_no_share_exceeds_the_peak() {
        for name in ["_Z4gemmPf", "copy", "", "_Z9elementwise"] {
            let truth = Truth::of_kernel(name);
            assert_eq!(truth, Truth::of_kernel(name));
            let shares = [
                truth.dram_read_pct + truth.dram_write_pct,
                truth.sm_pct,
                truth.active_pct,
            ];
            assert!(shares.iter().all(|share| (0.0..=100.0).contains(share)), "{truth:?}");
        }
        assert_ne!(Truth::of_kernel("a"), Truth::of_kernel("b"));
    }
}
