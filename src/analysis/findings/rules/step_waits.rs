//! The GPU waits between a step and the next.

use super::{part, percent, time};
use crate::analysis::findings::evidence::Evidence;
use crate::analysis::findings::finding::{Finding, Severity, figures};
use crate::analysis::findings::sql::over_steps;
use crate::analysis::findings::steps::Step;

/// Of steps and waits together: a tenth faster is what a scheduler that runs ahead gives.
const LEAST_SHARE: f64 = 0.10;

pub(in crate::analysis::findings) fn find(evidence: &Evidence) -> Vec<Finding> {
    let waits: u64 = evidence.steps.iter().filter(|step| step.wait_ns.is_some()).count() as u64;
    let all_waits = evidence.steps.iter().filter_map(|step| step.wait_ns);
    let wait_ns = all_waits.fold(0, i64::saturating_add);
    let steps_ns = evidence.steps.iter().map(Step::length_ns).fold(0, i64::saturating_add);
    let share = part(wait_ns, steps_ns.saturating_add(wait_ns));
    if waits == 0 || share < LEAST_SHARE {
        return Vec::new();
    }
    let mean = wait_ns / i64::try_from(waits).unwrap_or(i64::MAX);
    vec![Finding {
        rule: "step_waits",
        severity: Severity::by_share(share),
        share,
        title: format!(
            "the GPU waits {} between two steps, {} of the time",
            time(mean),
            percent(share)
        ),
        why: "Between two steps the host schedules, prepares inputs and handles outputs, and the GPU has nothing to do.",
        next: "Let the host work ahead (vLLM: `--async-scheduling`), do less in Python a step, or let a step do more (a larger \
               batch, speculative decoding).",
        figures: figures![waits, wait_ns, steps_ns],
        kernels: Vec::new(),
        sql: over_steps(
            "select count(wait_ns) as waits, sum(wait_ns) as wait_ns, sum(end_ns - start_ns) as steps_ns from steps",
        ),
    }]
}
