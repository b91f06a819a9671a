//! Steps in which the GPU waits for its next launch.

use super::{part, percent, time};
use crate::analysis::findings::evidence::Evidence;
use crate::analysis::findings::finding::{Finding, Severity, figures};
use crate::analysis::findings::sql::over_steps;
use crate::analysis::findings::steps::Step;

/// Of a step's length. A step always has some waits, between graph and sampler for one; a fifth is no accident.
const LEAST_SHARE: f64 = 0.20;
/// Fewer steps are a warm-up.
const LEAST_STEPS: u64 = 3;

pub(in crate::analysis::findings) fn find(evidence: &Evidence) -> Vec<Finding> {
    let eager = of(
        evidence,
        |step| step.graph_id.is_none(),
        "graph_id is null",
        "launched kernel by kernel",
        "Each kernel is launched alone, and a launch takes the host longer than the kernel takes the GPU.",
        "Use CUDA graphs (vLLM: without `--enforce-eager`; PyTorch: `torch.compile(mode=\"reduce-overhead\")`), fewer and \
         larger kernels, or a larger batch.",
    );
    let graphs = of(
        evidence,
        |step| step.graph_id.is_some(),
        "graph_id is not null",
        "with their layers in a graph",
        "The layers are in a CUDA graph; what is launched around it is not, and there the GPU waits for the host.",
        "Look at what lies between the graphs of two steps: sampling, logits, input preparation. Capture it too, or let the \
         host run ahead (async scheduling, fewer synchronizations).",
    );
    eager.into_iter().chain(graphs).collect()
}

fn of(
    evidence: &Evidence,
    is_meant: impl Fn(&Step) -> bool,
    condition: &str,
    kind: &str,
    why: &'static str,
    next: &'static str,
) -> Option<Finding> {
    let meant = || evidence.steps.iter().filter(|step| is_meant(step));
    let steps = meant().count() as u64;
    let steps_ns = meant().map(Step::length_ns).fold(0, i64::saturating_add);
    let gaps: u64 = meant().map(|step| step.gaps).sum();
    let gap_ns = meant().map(|step| step.gap_ns).fold(0, i64::saturating_add);
    let share = part(gap_ns, steps_ns);
    if steps < LEAST_STEPS || share < LEAST_SHARE {
        return None;
    }
    let per_step = gap_ns / i64::try_from(steps).unwrap_or(i64::MAX);
    Some(Finding {
        rule: "launch_bound",
        severity: Severity::by_share(part(gap_ns, evidence.covered_ns())),
        share: part(gap_ns, evidence.covered_ns()),
        title: format!(
            "{steps} steps {kind} wait {} of their time for the next kernel, {} a step",
            percent(share),
            time(per_step)
        ),
        why,
        next,
        figures: figures![steps, steps_ns, gaps, gap_ns],
        kernels: Vec::new(),
        sql: over_steps(&format!(
            "select count(*) as steps, sum(end_ns - start_ns) as steps_ns, sum(gaps) as gaps, sum(gap_ns) as gap_ns\n\
             from steps where {condition}"
        )),
    })
}
