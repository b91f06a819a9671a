//! Short kernels one behind the other.

use super::{part, percent, time};
use crate::analysis::findings::evidence::{Evidence, most_time};
use crate::analysis::findings::finding::{Finding, Severity, figures};

/// About what a kernel costs that does nothing, start and end on the GPU included: below twice that, more than half of
/// its time is overhead that a fused kernel pays once.
const TINY_NS: i64 = 3_000;
/// Of all kernels: some small ones are everywhere.
const LEAST_PART: f64 = 0.20;

pub(in crate::analysis::findings) fn is_tiny(duration_ns: i64) -> bool {
    duration_ns < TINY_NS
}

pub(in crate::analysis::findings) fn find(evidence: &Evidence) -> Vec<Finding> {
    let all_kernels = evidence.kernel_count();
    let pairs: u64 = evidence.pairs.values().map(|pair| pair.count).sum();
    let tiny = evidence.names.iter().map(|name| name.tiny);
    let (tiny_kernels, tiny_ns) = tiny.fold((0_u64, 0_i64), |(count, ns), total| {
        (count + total.count, ns.saturating_add(total.ns))
    });
    if all_kernels == 0 || (pairs as f64) < LEAST_PART * all_kernels as f64 {
        return Vec::new();
    }
    let share = part(tiny_ns, evidence.kernels_ns());
    let texts = evidence.name_texts();
    let named = evidence.pairs.iter().map(|(&(first, second), &total)| {
        let name = |number: u32| texts.get(number as usize).map_or("", String::as_str);
        (total, format!("{} → {}", name(first), name(second)))
    });
    vec![Finding {
        rule: "tiny_kernels",
        severity: Severity::by_share(share),
        share,
        title: format!(
            "{} of the kernels last under {} and {} follow another such one on the same stream",
            percent(part(tiny_kernels.cast_signed(), all_kernels.cast_signed())),
            time(TINY_NS),
            percent(part(pairs.cast_signed(), all_kernels.cast_signed()))
        ),
        why: "Such a kernel is mostly its own start and end, and it writes to memory what the next one reads again.",
        next: "Fuse neighbours: torch.compile, vLLM's fusion passes (`-O3`, `custom_ops`), or a fused kernel for the pairs \
               below.",
        figures: figures![tiny_kernels, tiny_ns, pairs, all_kernels],
        kernels: most_time(named),
        sql: format!(
            "with k as (\n  select end_ns - start_ns as ns, lag(end_ns - start_ns) over (\n    \
             partition by pid, device_id, stream_id order by start_ns) as before_ns\n  from kernels\n)\n\
             select count(*) filter (ns < {TINY_NS}) as tiny_kernels, sum(ns) filter (ns < {TINY_NS}) as tiny_ns,\n  \
             count(*) filter (ns < {TINY_NS} and before_ns < {TINY_NS}) as pairs, count(*) as all_kernels\nfrom k"
        ),
    }]
}
