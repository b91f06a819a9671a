//! Kernels that tensor cores or instructions bound, by hardware counters.

use crate::analysis::Bound;
use crate::analysis::findings::bounds::{self, Words};
use crate::analysis::findings::evidence::Evidence;
use crate::analysis::findings::finding::Finding;
use crate::schema::counters::{INSTRUCTIONS, SM_THROUGHPUT, TENSOR_ACTIVE};

pub(in crate::analysis::findings) fn find(evidence: &Evidence) -> Vec<Finding> {
    let words = Words {
        rule: "compute_bound",
        bound: Bound::Compute,
        metrics: &[TENSOR_ACTIVE, INSTRUCTIONS, SM_THROUGHPUT],
        of_peak: "of the peak of the SMs' busiest part",
        why: "Such a kernel is as fast as its arithmetic: less memory traffic wins nothing.",
        next: "Do less arithmetic, or on faster units: smaller types (FP8, FP4), tensor cores in the place of FMA, no work \
               on padding.",
    };
    bounds::find(&evidence.counters, &words)
}
