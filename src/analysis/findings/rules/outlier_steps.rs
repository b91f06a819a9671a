//! Steps that take far longer than others that do the same work.

use std::collections::BTreeMap;

use super::{part, percent, time};
use crate::analysis::findings::evidence::Evidence;
use crate::analysis::findings::finding::{Finding, Severity, figures};
use crate::analysis::findings::sql::over_steps_with;
use crate::analysis::findings::steps::{Step, WorkKey};

/// Steps of one kind from which on their median says something.
const LEAST_STEPS: usize = 8;
/// Times the median: clocks and neighbours make some tens of per cent, not half as much again.
const FACTOR: f64 = 1.5;

pub(in crate::analysis::findings) fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut kinds = BTreeMap::<WorkKey, Vec<i64>>::new();
    for step in &evidence.steps {
        kinds.entry(step.work()).or_default().push(step.length_ns());
    }
    let (mut steps, mut outliers, mut excess_ns, mut worst_ns) = (0_u64, 0_u64, 0_i64, 0_i64);
    for lengths in kinds.values_mut().filter(|lengths| lengths.len() >= LEAST_STEPS) {
        lengths.sort_unstable();
        let median = lengths[lengths.len().div_ceil(2) - 1];
        steps += lengths.len() as u64;
        for &length in lengths.iter().filter(|&&length| length as f64 > FACTOR * median as f64) {
            outliers += 1;
            excess_ns = excess_ns.saturating_add(length - median);
            worst_ns = worst_ns.max(length);
        }
    }
    if outliers == 0 {
        return Vec::new();
    }
    let steps_ns = evidence.steps.iter().map(Step::length_ns).fold(0, i64::saturating_add);
    let share = part(excess_ns, steps_ns);
    vec![Finding {
        rule: "outlier_steps",
        severity: Severity::by_share(share),
        share,
        title: format!(
            "{outliers} of {steps} steps take over {FACTOR} times the median of their kind, the longest {} ({} of the steps' \
             time is the excess)",
            time(worst_ns),
            percent(share)
        ),
        why: "The same work took far longer: a pause of the host (garbage collection, another process, a copy), a clock that \
              fell, a collective that waited.",
        next: "Look at these steps in the timeline, and at what the host did then (`--trace api,nvtx`).",
        figures: figures![steps, outliers, excess_ns, worst_ns, steps_ns],
        kernels: Vec::new(),
        sql: over_steps_with(
            &format!(
                "medians as (\n  select *, end_ns - start_ns as ns, count(*) over kind as alike,\n    \
                 quantile_disc(end_ns - start_ns, 0.5) over kind as median\n  \
                 from steps window kind as (partition by pid, device_id, graph_id, kernels, grid_x)\n), m as (\n  \
                 select *, alike >= {LEAST_STEPS} as counts, alike >= {LEAST_STEPS} and ns > {FACTOR} * median as is_outlier from medians\n)"
            ),
            "select count(*) filter (counts) as steps, count(*) filter (is_outlier) as outliers,\n  \
             sum(ns - median) filter (is_outlier) as excess_ns, max(ns) filter (is_outlier) as worst_ns, sum(ns) as steps_ns\n\
             from m",
        ),
    }]
}
