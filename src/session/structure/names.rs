//! What a kernel's name tells of its place in a layer: which other kernels may stand for it, and whether it is a norm.

use std::collections::BTreeSet;

/// Words that kernels of any kind have.
const SAYS_NOTHING: [&str; 2] = ["kernel", "void"];

/// Names by number.
#[derive(Debug, Default)]
pub(crate) struct Names {
    words: Vec<BTreeSet<String>>,
}

impl Names {
    /// Names already known.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    /// Adds the next one, without template arguments and parameters.
    pub(crate) fn push(&mut self, short_name: &str) {
        let words = short_name
            .split(|c: char| !c.is_ascii_alphabetic())
            .filter(|word| !word.is_empty() && !SAYS_NOTHING.contains(word));
        self.words.push(words.map(str::to_lowercase).collect());
    }

    /// Whether one may be a variant of the other, as the first layer's norm is of the other layers': half of their words
    /// are the same.
    pub(crate) fn are_alike(&self, a: u32, b: u32) -> bool {
        let (Some(a), Some(b)) = (self.words.get(a as usize), self.words.get(b as usize)) else {
            return false;
        };
        let common = a.intersection(b).count();
        common > 0 && 4 * common >= a.len() + b.len()
    }

    /// Whether it normalises, as the first kernel of a decoder layer does.
    pub(crate) fn is_norm(&self, name: u32) -> bool {
        let words = self.words.get(name as usize);
        words.is_some_and(|words| words.iter().any(|word| word.contains("norm") || word == "rsqrt"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_alike_and_other_kernels_are_not() {
        let mut names = Names::default();
        for name in [
            "rms_norm_kernel",
            "fused_add_rms_norm_kernel",
            "triton_per_fused__to_copy_embedding_rms_norm_0",
            "triton_per_fused_fused_add_rms_norm_2",
            "triton_per_fused__to_copy_add_mean_mul_pow_rsqrt_2",
            "triton_poi_fused_mul_silu_slice_1",
            "splitKreduce_kernel",
            "vectorized_gather_kernel",
            "triton_poi_fused_1",
            "triton_poi_fused_3",
            "",
        ] {
            names.push(name);
        }
        let alike = |a, b| names.are_alike(a, b) && names.are_alike(b, a);
        assert!(alike(0, 1) && alike(2, 3) && alike(2, 4) && alike(8, 9));
        assert!(!alike(2, 5) && !alike(6, 7) && !alike(3, 8) && !alike(10, 10) && !alike(0, 99));
        let norms: Vec<u32> = (0..11).filter(|&name| names.is_norm(name)).collect();
        assert_eq!(norms, [0, 1, 2, 3, 4]);
    }
}
