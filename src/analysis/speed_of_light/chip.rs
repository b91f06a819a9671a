//! What a chip can do at most, where it is known.

use serde::Serialize;

/// Peaks of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Peaks {
    /// Device memory, GB/s, as the driver tells from clock and bus width.
    pub dram_gb_s: Option<f64>,
    /// Tensor cores, TFLOP/s, on dense matrices of 16 bits an entry; null for a GPU that colonel does not know.
    pub tensor_tflop_s: Option<f64>,
}

/// By what a product name begins with, the longer before the shorter. NVIDIA's data sheets.
const TENSOR: &[(&str, f64)] = &[
    ("NVIDIA B200", 2250.0),
    ("NVIDIA GH200", 989.4),
    ("NVIDIA H200", 989.4),
    ("NVIDIA H100 PCIe", 756.0),
    ("NVIDIA H100 NVL", 835.0),
    ("NVIDIA H100", 989.4),
    ("NVIDIA H800", 989.4),
    ("NVIDIA H20", 148.0),
    ("NVIDIA A100", 312.0),
    ("NVIDIA A800", 312.0),
    ("NVIDIA A10G", 70.0),
    ("NVIDIA A10", 125.0),
    ("NVIDIA A30", 165.0),
    ("NVIDIA A40", 149.7),
    ("NVIDIA L40S", 362.0),
    ("NVIDIA L40", 181.0),
    ("NVIDIA L4", 121.0),
    ("NVIDIA T4", 65.0),
    ("Tesla T4", 65.0),
];

impl Peaks {
    pub(super) fn of(product: &str, bytes_per_s: Option<u64>) -> Self {
        let known = TENSOR.iter().find(|(name, _)| product.starts_with(name));
        Self {
            dram_gb_s: bytes_per_s.map(|bytes| bytes as f64 / 1e9),
            tensor_tflop_s: known.map(|(_, peak)| *peak),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_by_its_longest_beginning() {
        let peak = |name| Peaks::of(name, None).tensor_tflop_s;
        assert_eq!(peak("NVIDIA H100 80GB HBM3"), Some(989.4));
        assert_eq!(peak("NVIDIA H100 PCIe"), Some(756.0));
        assert_eq!(peak("NVIDIA H200"), Some(989.4));
        assert_eq!(peak("NVIDIA GeForce GTX 1080"), None);
        for (index, (name, _)) in TENSOR.iter().enumerate() {
            assert!(
                TENSOR[..index].iter().all(|(before, _)| !name.starts_with(before)),
                "{name}"
            );
        }
    }
}
