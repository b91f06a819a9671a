//! One GPU of several works longer than the others.

use super::{part, percent, time};
use crate::analysis::findings::evidence::Evidence;
use crate::analysis::findings::finding::{Finding, Severity, figures};

/// Of the busiest rank's time: GPUs of one kind differ by a per cent or two.
const LEAST_SKEW: f64 = 0.05;

/// Whether a kernel talks to other GPUs, so that its duration holds the wait for them.
pub(in crate::analysis::findings) fn is_collective(name: &str) -> bool {
    let name = name.to_lowercase();
    COLLECTIVES.iter().any(|part| name.contains(part))
}

/// NCCL's kernels, vLLM's own all-reduce, and the fused and symmetric-memory ones.
const COLLECTIVES: [&str; 4] = ["nccl", "all_reduce", "allreduce", "cross_device_reduce"];

pub(in crate::analysis::findings) fn find(evidence: &Evidence) -> Vec<Finding> {
    let ranks: Vec<_> = evidence
        .devices
        .iter()
        .filter(|(_, device)| device.own.count > 0)
        .collect();
    let most = ranks.iter().max_by_key(|(_, device)| device.own.ns);
    let (Some((place, most)), Some(least_ns)) = (most, ranks.iter().map(|(_, device)| device.own.ns).min()) else {
        return Vec::new();
    };
    let (ranks, most_ns) = (ranks.len() as u64, most.own.ns);
    let skew = part(most_ns - least_ns, most_ns);
    if ranks < 2 || skew < LEAST_SKEW {
        return Vec::new();
    }
    let is_own: Vec<_> = COLLECTIVES
        .iter()
        .map(|part| format!("lower(name) not like '%{}%'", part.replace('_', "\\_")))
        .collect();
    vec![Finding {
        rule: "rank_skew",
        severity: Severity::by_share(skew),
        share: skew,
        title: format!(
            "of {ranks} GPUs, process {} (GPU {}) has {} of own kernels, another {}: {} less",
            place.0,
            place.1,
            time(most_ns),
            time(least_ns),
            percent(skew)
        ),
        why: "All ranks wait for the slowest at each collective, so its extra work costs all of them.",
        next: "Look for uneven shards: experts (expert load balancing), layers of a pipeline stage, data; or a GPU with lower \
               clocks.",
        figures: figures![ranks, most_ns, least_ns],
        kernels: Vec::new(),
        sql: format!(
            "with r as (\n  select sum(end_ns - start_ns) as ns from kernels\n  where {}\n  group by pid, device_id\n)\n\
             select count(*) as ranks, max(ns) as most_ns, min(ns) as least_ns from r",
            is_own.join("\n    and ").replace("\\_", "_")
        ),
    }]
}
