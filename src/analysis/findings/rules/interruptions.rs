//! Steps of another kind between the steady ones: a prefill holds up the decode of all others.

use std::collections::BTreeMap;

use super::{part, percent, time};
use crate::analysis::findings::evidence::Evidence;
use crate::analysis::findings::finding::{Finding, Severity, figures};
use crate::analysis::findings::sql::over_steps_with;
use crate::analysis::findings::steps::{Step, WorkKey};

/// Steps that make a kind the steady one.
const LEAST_STEADY: usize = 3;
/// Times the steady median: shorter ones, such as another batch's decode, disturb nobody.
const FACTOR: i64 = 2;
/// Of the time of all steps.
const LEAST_SHARE: f64 = 0.05;

pub(in crate::analysis::findings) fn find(evidence: &Evidence) -> Vec<Finding> {
    evidence
        .devices
        .iter()
        .filter_map(|(&device, _)| of(evidence, device))
        .collect()
}

fn of(evidence: &Evidence, (pid, device_id): (u32, u32)) -> Option<Finding> {
    let mine = || {
        evidence
            .steps
            .iter()
            .filter(|step| (step.pid, step.device_id) == (pid, device_id))
    };
    let mut kinds = BTreeMap::<WorkKey, Vec<&Step>>::new();
    mine().for_each(|step| kinds.entry(step.work()).or_default().push(step));
    // Among equals the first by key, as in the SQL.
    let (&steady, alike) = kinds.iter().rev().max_by_key(|(_, alike)| alike.len())?;
    let (first, last) = (alike.first()?.start_ns, alike.last()?.start_ns);
    let mut lengths: Vec<i64> = alike.iter().map(|step| step.length_ns()).collect();
    lengths.sort_unstable();
    let (steady_steps, median_ns) = (lengths.len() as u64, lengths[lengths.len().div_ceil(2) - 1]);
    let others = || {
        mine().filter(|step| {
            let is_between = first < step.start_ns && step.start_ns < last;
            is_between && step.work() != steady && step.length_ns() > median_ns.saturating_mul(FACTOR)
        })
    };
    let interruptions = others().count() as u64;
    let stall_ns = others().map(Step::length_ns).fold(0, i64::saturating_add);
    let longest_ns = others().map(Step::length_ns).max()?;
    let steps_ns = mine().map(Step::length_ns).fold(0, i64::saturating_add);
    let share = part(stall_ns, steps_ns);
    if alike.len() < LEAST_STEADY || share < LEAST_SHARE {
        return None;
    }
    Some(Finding {
        rule: "interruptions",
        severity: Severity::by_share(share),
        share,
        title: format!(
            "{interruptions} long steps between {steady_steps} alike ({} each) hold them up for {}, {} of the steps' time; the \
             longest {}",
            time(median_ns),
            time(stall_ns),
            percent(share),
            time(longest_ns)
        ),
        why: "While a prefill (or another large step) runs, requests in decode get no token: their latency has a peak.",
        next: "Cut prefills smaller (vLLM: chunked prefill, a lower `--max-num-batched-tokens`), or serve prefill and decode \
               apart (disaggregated).",
        figures: figures![steady_steps, median_ns, interruptions, stall_ns, longest_ns, steps_ns],
        kernels: Vec::new(),
        sql: over_steps_with(
            &format!(
                "s as (\n  select *, end_ns - start_ns as ns from steps where pid = {pid} and device_id = {device_id}\n), kind as (\n  \
                 select graph_id, kernels, grid_x, count(*) as alike, quantile_disc(ns, 0.5) as median_ns, min(start_ns) as first, \
                 max(start_ns) as last\n  from s group by graph_id, kernels, grid_x\n  \
                 order by alike desc, graph_id nulls first, kernels, grid_x limit 1\n), others as (\n  \
                 select s.* from s, kind where s.start_ns > first and s.start_ns < last and ns > {FACTOR} * median_ns\n    \
                 and (s.graph_id, s.kernels, s.grid_x) is distinct from (kind.graph_id, kind.kernels, kind.grid_x)\n)"
            ),
            "select (select alike from kind) as steady_steps, (select median_ns from kind) as median_ns,\n  \
             count(*) as interruptions, sum(ns) as stall_ns, max(ns) as longest_ns, (select sum(ns) from s) as steps_ns\n\
             from others",
        ),
    })
}
