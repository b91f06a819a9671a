//! The rules: one a file.

pub(super) mod below_one_wave;
pub(super) mod compute_bound;
pub(super) mod copies_in_loop;
pub(super) mod idle_gaps;
pub(super) mod interruptions;
pub(super) mod launch_bound;
pub(super) mod memory_bound;
pub(super) mod one_stream;
pub(super) mod outlier_steps;
pub(super) mod rank_skew;
pub(super) mod step_waits;
pub(super) mod syncs_in_loop;
pub(super) mod tail_effect;
pub(super) mod tiny_kernels;

use crate::analysis::findings::evidence::Evidence;
use crate::analysis::findings::finding::Finding;

/// A rule.
pub(super) type Rule = fn(&Evidence) -> Vec<Finding>;

/// All of them.
pub(super) const ALL: [Rule; 14] = [
    below_one_wave::find,
    compute_bound::find,
    copies_in_loop::find,
    idle_gaps::find,
    interruptions::find,
    launch_bound::find,
    memory_bound::find,
    one_stream::find,
    outlier_steps::find,
    rank_skew::find,
    step_waits::find,
    syncs_in_loop::find,
    tail_effect::find,
    tiny_kernels::find,
];

/// A part of a whole, 0 of nothing.
fn part(part: i64, whole: i64) -> f64 {
    if whole > 0 { part as f64 / whole as f64 } else { 0.0 }
}

/// `12.3 %`.
fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// `8.1 us`, `2.12 ms`.
fn time(ns: i64) -> String {
    let ns = ns as f64;
    match ns {
        _ if ns < 1e3 => format!("{ns} ns"),
        _ if ns < 1e6 => format!("{:.1} us", ns / 1e3),
        _ if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}
