//! Hardware counters under colonel's names: the same on every chip, whatever NVIDIA calls them there.

/// A metric of the table `counters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// `counters.metric`.
    pub name: &'static str,
    /// `counters.unit`.
    pub unit: &'static str,
    /// Set that it is in, for `--counters=SET`.
    pub set: &'static str,
    /// What it says.
    pub doc: &'static str,
}

macro_rules! metrics {
    ($( $constant:ident = $name:literal, $unit:literal, $set:literal, $doc:literal; )*) => {
        $( #[doc = $doc] pub const $constant: &str = $name; )*
        /// All of them, most wanted first: where not all fit into one pass, the last ones are left out.
        pub const METRICS: &[Metric] = &[ $( Metric { name: $name, unit: $unit, set: $set, doc: $doc }, )* ];
    };
}

metrics! {
    DRAM_READ_THROUGHPUT = "dram_read_throughput", "%", "dram", "Reads from device memory, of its peak bandwidth.";
    DRAM_WRITE_THROUGHPUT = "dram_write_throughput", "%", "dram", "Writes to device memory, of its peak bandwidth.";
    DRAM_THROUGHPUT = "dram_throughput", "%", "dram", "Device memory, busiest of its parts.";
    DRAM_READ_BYTES = "dram_read_bytes", "bytes", "dram", "Read from device memory.";
    DRAM_WRITE_BYTES = "dram_write_bytes", "bytes", "dram", "Written to device memory.";
    TENSOR_ACTIVE = "tensor_active", "%", "tensor", "Cycles in which the tensor pipes worked.";
    SM_THROUGHPUT = "sm_throughput", "%", "sm", "Streaming multiprocessors, busiest of their parts.";
    SM_ACTIVE = "sm_active", "%", "sm", "Cycles in which an SM had a warp, mean over SMs.";
    WARPS_ACTIVE = "warps_active", "%", "sm", "Warps resident, of what the SMs hold.";
    INSTRUCTIONS = "instructions", "%", "sm", "Instructions executed, of the SMs' peak.";
    GPU_ACTIVE = "gpu_active", "%", "sm", "Cycles in which the graphics and compute engine worked.";
    L2_THROUGHPUT = "l2_throughput", "%", "l2", "L2 cache, busiest of its parts.";
    L2_HIT_RATE = "l2_hit_rate", "%", "l2", "Sectors found in the L2 cache.";
    L1_THROUGHPUT = "l1_throughput", "%", "l1", "L1 cache, busiest of its parts.";
    PCIE_THROUGHPUT = "pcie_throughput", "%", "pcie", "PCIe, of its peak.";
    PCIE_READ_BYTES = "pcie_read_bytes", "bytes", "pcie", "Read over PCIe.";
    PCIE_WRITE_BYTES = "pcie_write_bytes", "bytes", "pcie", "Written over PCIe.";
    NVLINK_RECEIVED_BYTES = "nvlink_received_bytes", "bytes", "nvlink", "Payload received over NVLink.";
    NVLINK_SENT_BYTES = "nvlink_sent_bytes", "bytes", "nvlink", "Payload sent over NVLink.";
    SM_CLOCK = "sm_clock", "Hz", "clocks", "Clock of the SMs, cycles over time.";
}
