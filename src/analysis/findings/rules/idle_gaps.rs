//! Long stretches in which no kernel runs.

use super::{part, percent, time};
use crate::analysis::findings::evidence::Evidence;
use crate::analysis::findings::finding::{Finding, Severity, figures};

/// Several times what a launch takes: in a shorter wait the host was only slow, in a longer one it did something else.
pub(in crate::analysis::findings) const LONG_NS: i64 = 100_000;
/// Of the time between the first kernel and the last.
const LEAST_SHARE: f64 = 0.05;

pub(in crate::analysis::findings) fn find(evidence: &Evidence) -> Vec<Finding> {
    let devices = || evidence.devices.values();
    let gaps: u64 = devices().map(|device| device.long_gaps.count).sum();
    let gap_ns = devices().map(|device| device.long_gaps.ns).fold(0, i64::saturating_add);
    let longest_ns = devices().map(|device| device.longest_gap_ns).max().unwrap_or(0);
    let covered_ns = evidence.covered_ns();
    let share = part(gap_ns, covered_ns);
    if share < LEAST_SHARE {
        return Vec::new();
    }
    vec![Finding {
        rule: "idle_gaps",
        severity: Severity::by_share(share),
        share,
        title: format!(
            "no kernel ran for {} of the time in {gaps} waits of {} or more, the longest {}",
            percent(share),
            time(LONG_NS),
            time(longest_ns)
        ),
        why: "The GPU had nothing to do: the host was preparing, copying, or waiting for someone.",
        next: "Look at what the host does in the longest waits (`colonel run --trace api,nvtx`): input preparation, \
               sampling, detokenization, Python; move it off the critical path (async scheduling).",
        figures: figures![gaps, gap_ns, longest_ns, covered_ns],
        kernels: Vec::new(),
        sql: format!(
            "with k as (\n  select *, \"window\" = lag(\"window\") over device as together, max(end_ns) over (device\n    \
             rows between unbounded preceding and 1 preceding) as before_ns\n  \
             from kernels window device as (partition by pid, device_id order by start_ns)\n), g as (\n  \
             select case when together then start_ns - before_ns end as gap,\n    \
             greatest(0, end_ns - greatest(start_ns, coalesce(before_ns, start_ns))) as busy from k\n)\n\
             select count(*) filter (gap >= {LONG_NS}) as gaps, sum(gap) filter (gap >= {LONG_NS}) as gap_ns,\n  \
             max(gap) as longest_ns, sum(busy) + coalesce(sum(gap) filter (gap > 0), 0) as covered_ns\nfrom g"
        ),
    }]
}
