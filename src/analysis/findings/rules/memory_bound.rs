//! Kernels that device memory bounds, by hardware counters.

use crate::analysis::Bound;
use crate::analysis::findings::bounds::{self, Words};
use crate::analysis::findings::evidence::Evidence;
use crate::analysis::findings::finding::Finding;
use crate::schema::counters::DRAM_THROUGHPUT;

pub(in crate::analysis::findings) fn find(evidence: &Evidence) -> Vec<Finding> {
    let words = Words {
        rule: "memory_bound",
        bound: Bound::Memory,
        metrics: &[DRAM_THROUGHPUT],
        of_peak: "of the peak bandwidth of device memory",
        why: "Such a kernel is as fast as its bytes: a better schedule of its arithmetic wins nothing.",
        next: "Move fewer bytes: smaller types (FP8 weights or KV cache), larger batches for the same weights, fusion with \
               the kernels that write what it reads.",
    };
    bounds::find(&evidence.counters, &words)
}
