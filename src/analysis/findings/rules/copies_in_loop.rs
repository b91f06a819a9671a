//! Copies between host and GPU in each step.

use super::{part, percent, time};
use crate::analysis::findings::evidence::Evidence;
use crate::analysis::findings::finding::{Finding, Severity, figures};
use crate::analysis::findings::sql::over_steps_with;

/// Fewer steps are no loop.
const LEAST_STEPS: u64 = 3;
/// A step must fetch its tokens; more than one copy in each direction is more than that.
const COPIES_A_STEP: f64 = 2.0;

pub(in crate::analysis::findings) fn find(evidence: &Evidence) -> Vec<Finding> {
    let steps = evidence.steps.len() as u64;
    let loops = || evidence.in_loop.values();
    let copies: u64 = loops().map(|in_loop| in_loop.copies.count).sum();
    let copy_ns = loops().map(|in_loop| in_loop.copies.ns).fold(0, i64::saturating_add);
    let pageable_copies: u64 = loops().map(|in_loop| in_loop.pageable).sum();
    let bytes: u64 = loops().map(|in_loop| in_loop.bytes).sum();
    let per_step = copies as f64 / steps.max(1) as f64;
    if steps < LEAST_STEPS || (per_step <= COPIES_A_STEP && pageable_copies == 0) {
        return Vec::new();
    }
    let share = part(copy_ns, evidence.covered_ns());
    vec![Finding {
        rule: "copies_in_loop",
        severity: Severity::by_share(share),
        share,
        title: format!(
            "{per_step:.1} copies between host and GPU a step, {} in all ({} of the time); {pageable_copies} of \
             unpinned memory",
            time(copy_ns),
            percent(share)
        ),
        why: "A copy of a few bytes costs a launch, and one of unpinned memory makes the host wait until it is done.",
        next: "Pack a step's inputs into one pinned buffer and copy with `non_blocking=True`; keep on the GPU what the next \
               step needs.",
        figures: figures![steps, copies, pageable_copies, bytes, copy_ns],
        kernels: Vec::new(),
        sql: over_steps_with(
            "loops as (\n  select pid, min(start_ns) as from_ns, max(end_ns) as to_ns from steps group by pid\n), c as (\n  \
             select m.* from memcpys m join loops on m.pid = loops.pid and start_ns between from_ns and to_ns\n  \
             where copy_kind in ('HtoD', 'DtoH')\n)",
            "select (select count(*) from steps) as steps, count(*) as copies,\n  \
             count(*) filter (src_kind = 'pageable' or dst_kind = 'pageable') as pageable_copies,\n  \
             sum(bytes) as bytes, sum(end_ns - start_ns) as copy_ns\nfrom c",
        ),
    }]
}
