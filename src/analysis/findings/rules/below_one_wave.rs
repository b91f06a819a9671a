//! Grids that leave multiprocessors without a block.

use super::{part, percent};
use crate::analysis::findings::evidence::Evidence;
use crate::analysis::findings::finding::{Finding, Severity, figures};

/// A grid of one wave fills the GPU once; a smaller one never does.
const FULL: f64 = 1.0;
/// Of the kernels' time: less is not worth a look.
const LEAST_SHARE: f64 = 0.10;

pub(in crate::analysis::findings) fn is_below(waves: f64) -> bool {
    waves < FULL
}

pub(in crate::analysis::findings) fn find(evidence: &Evidence) -> Vec<Finding> {
    let below = evidence.names.iter().map(|name| name.below_one_wave);
    let (kernels, below_ns) = below.fold((0, 0_i64), |(count, ns), total| {
        (count + total.count, ns.saturating_add(total.ns))
    });
    let kernels_ns = evidence.kernels_ns();
    let share = part(below_ns, kernels_ns);
    if share < LEAST_SHARE {
        return Vec::new();
    }
    vec![Finding {
        rule: "below_one_wave",
        // How much a fuller grid would win nobody can say from here.
        severity: Severity::by_share(share).max(Severity::Medium),
        share,
        title: format!(
            "{} of the kernels' time is in grids of less than one wave",
            percent(share)
        ),
        why: "A wave is as many blocks as the GPU holds at once. A smaller grid leaves places empty from its \
              start to its end, and multiprocessors idle where it has fewer blocks than those.",
        next: "Give a launch more work: a larger batch, split-K or split-KV variants, smaller tiles; or let independent \
               kernels run side by side on several streams.",
        figures: figures![kernels, below_ns, kernels_ns],
        kernels: evidence.affected(|name| name.below_one_wave),
        sql: format!(
            "select count(*) filter (waves < {FULL}) as kernels,\n  \
             sum(end_ns - start_ns) filter (waves < {FULL}) as below_ns,\n  \
             sum(end_ns - start_ns) as kernels_ns\nfrom kernels"
        ),
    }]
}
