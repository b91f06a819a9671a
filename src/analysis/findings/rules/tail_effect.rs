//! A last wave that is almost empty.

use super::{percent, time};
use crate::analysis::findings::evidence::Evidence;
use crate::analysis::findings::finding::{Finding, Severity, figures};

/// A grid that leaves a quarter of its places empty over all its waves: with more waves than four no grid does.
const LEAST_LOST: f64 = 0.25;
/// Of the kernels' time: what could be won, so less than for rules that name time in question.
const LEAST_SHARE: f64 = 0.02;

/// Part of a kernel's time that its last wave wastes, if it is worth a word.
pub(in crate::analysis::findings) fn lost_part(waves: f64) -> Option<f64> {
    let lost = 1.0 - waves / waves.ceil();
    (waves > 1.0 && lost >= LEAST_LOST).then_some(lost)
}

pub(in crate::analysis::findings) fn find(evidence: &Evidence) -> Vec<Finding> {
    let kernels: u64 = evidence.names.iter().map(|name| name.with_tail.count).sum();
    let tail_kernels_ns = evidence.names.iter().map(|name| name.with_tail.ns);
    let tail_kernels_ns = tail_kernels_ns.fold(0, i64::saturating_add);
    let lost_ns: f64 = evidence.names.iter().map(|name| name.tail_ns).sum();
    let kernels_ns = evidence.kernels_ns();
    let share = lost_ns / kernels_ns.max(1) as f64;
    if share < LEAST_SHARE {
        return Vec::new();
    }
    vec![Finding {
        rule: "tail_effect",
        severity: Severity::by_share(share),
        share,
        title: format!(
            "about {} ({} of the kernels' time) is lost in last waves that are partly empty",
            time(lost_ns as i64),
            percent(share)
        ),
        why: "A grid of 1.2 waves takes as long as one of 2: the second wave runs with four fifths of the GPU empty. The \
              estimate is what the empty places of all waves would be worth, in these kernels by wave count alone.",
        next: "Choose tiles so that the grid is just below a whole number of waves, use persistent or stream-K kernels, or \
               change the batch a little.",
        figures: figures![kernels, tail_kernels_ns, lost_ns, kernels_ns],
        kernels: evidence.affected(|name| name.with_tail),
        sql: format!(
            "with k as (\n  select end_ns - start_ns as ns, waves > 1 and 1 - waves / ceil(waves) >= {LEAST_LOST} as has_tail,\n    \
             1 - waves / ceil(waves) as lost\n  from kernels\n)\nselect count(*) filter (has_tail) as kernels, \
             sum(ns) filter (has_tail) as tail_kernels_ns,\n  sum(ns * lost) filter (has_tail) as lost_ns, sum(ns) as kernels_ns\n\
             from k"
        ),
    }]
}

#[cfg(test)]
mod tests {
    use super::lost_part;

    #[test]
    fn only_an_empty_last_wave_counts() {
        assert_eq!(lost_part(0.2), None, "that is another rule's");
        assert_eq!(lost_part(1.0), None);
        assert_eq!(lost_part(1.25), Some(0.375));
        assert_eq!(lost_part(2.0), None);
        assert_eq!(lost_part(5.1), None);
        assert_eq!(lost_part(f64::NAN), None);
    }
}
