//! The host waits for the GPU in each step.

use super::{part, percent, time};
use crate::analysis::findings::evidence::Evidence;
use crate::analysis::findings::finding::{Finding, Severity, figures};
use crate::analysis::findings::sql::over_steps_with;

/// Fewer steps are no loop.
const LEAST_STEPS: u64 = 3;
/// One wait a step is how a loop gets its token; each further one stops the host from running ahead.
const WAITS_A_STEP: f64 = 1.5;

pub(in crate::analysis::findings) fn find(evidence: &Evidence) -> Vec<Finding> {
    let steps = evidence.steps.len() as u64;
    let syncs: u64 = evidence.in_loop.values().map(|in_loop| in_loop.waits.count).sum();
    let host_wait_ns = evidence.in_loop.values().map(|in_loop| in_loop.waits.ns);
    let host_wait_ns = host_wait_ns.fold(0, i64::saturating_add);
    let per_step = syncs as f64 / steps.max(1) as f64;
    if steps < LEAST_STEPS || per_step <= WAITS_A_STEP {
        return Vec::new();
    }
    let share = part(host_wait_ns, evidence.covered_ns());
    vec![Finding {
        rule: "syncs_in_loop",
        // The GPU may well work while the host waits: what is lost shows in other findings.
        severity: Severity::Low,
        share,
        title: format!(
            "the host waits for the GPU {per_step:.1} times a step, {} in all ({} of the time)",
            time(host_wait_ns),
            percent(share)
        ),
        why: "While the host waits it prepares nothing, so the GPU is idle right after.",
        next: "Find the waits (`colonel run --trace api`): `.item()`, `.cpu()`, `torch.cuda.synchronize()`, unpinned copies. \
               Keep one a step at most.",
        figures: figures![steps, syncs, host_wait_ns],
        kernels: Vec::new(),
        sql: over_steps_with(
            "loops as (\n  select pid, min(start_ns) as from_ns, max(end_ns) as to_ns from steps group by pid\n)",
            "select (select count(*) from steps) as steps, count(*) as syncs, sum(end_ns - start_ns) as host_wait_ns\n\
             from synchronizations s join loops on s.pid = loops.pid and start_ns between from_ns and to_ns\n\
             where sync_kind <> 'stream_wait_event'",
        ),
    }]
}
