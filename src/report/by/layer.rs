//! By layer: a table for each kind of step. Layers that are alike share a line.

use std::fmt::Write as _;

use super::{and_more, kind};
use crate::analysis::{LayerSummary, PartSummary, StepClass};
use crate::report::names::{printable, without_namespaces, without_parameters};
use crate::report::show::{duration, number, percent, words};
use crate::report::table::{Column, fit};
use crate::run::words::{counted, grouped};

const COLUMNS: [Column; 8] = [
    words("layer", u8::MAX),
    number("share", u8::MAX),
    number("per step", u8::MAX),
    number("median", 3),
    number("p95", 2),
    number("kernels", u8::MAX),
    number("mean", 4),
    words("slowest kernel", u8::MAX),
];

pub(super) fn view(summary: &LayerSummary, limit: usize, width: usize) -> String {
    let mut text = String::new();
    for class in summary.classes.iter().take(limit) {
        let _ = write!(text, "\n{}\n", heading(class));
        let rows: Vec<_> = class.parts.iter().map(|part| row(class, part)).collect();
        text += &fit(&COLUMNS, &rows, width, 24);
    }
    text += &and_more(summary.classes.len().saturating_sub(limit), "kind");
    let _ = write!(
        text,
        "\n{} of {} have a layer: {} by NVTX ranges, {} by structure\n",
        grouped(summary.layered_by_nvtx + summary.layered_by_structure),
        counted(summary.kernel_count, "kernel"),
        grouped(summary.layered_by_nvtx),
        grouped(summary.layered_by_structure)
    );
    text
}

/// `decode, batch 4, 512 steps   step 1.94 ms (p95 2.11 ms)   GPU busy 71.0 %   idle 0.56 ms a step, 120 us before it`.
fn heading(class: &StepClass) -> String {
    let steps = i64::try_from(class.steps.max(1)).unwrap_or(i64::MAX);
    let (whole, busy) = (class.durations.total_ns, class.busy.total_ns);
    let mut text = format!(
        "{}, {}   step {} (p95 {})   GPU busy {}   idle {} a step",
        kind(class),
        counted(class.steps, "step"),
        duration(class.durations.median_ns),
        duration(class.durations.p95_ns),
        percent(busy as f64 / whole.max(1) as f64),
        duration((whole - busy) / steps),
    );
    if let Some(between) = &class.between {
        let _ = write!(text, ", {} before it", duration(between.median_ns));
    }
    text
}

fn row(class: &StepClass, part: &PartSummary) -> Vec<String> {
    let (label, layers) = match (part.first_layer, part.last_layer) {
        (Some(first), Some(last)) if first < last => (format!("{first}..{last} (each)"), u64::from(last - first) + 1),
        (Some(only), _) => (only.to_string(), 1),
        _ => (printable(part.name.as_deref().unwrap_or("")), 1),
    };
    let each = layers * class.steps.max(1);
    let signed = |count: u64| i64::try_from(count.max(1)).unwrap_or(i64::MAX);
    let kernels = part.kernels as f64 / each as f64;
    vec![
        label,
        percent(part.share / layers as f64),
        duration(part.kernels_ns / signed(each)),
        duration(part.per_step.median_ns),
        duration(part.per_step.p95_ns),
        // Whole in most cases; some parts are not the same in each step.
        if kernels.fract() == 0.0 {
            format!("{kernels}")
        } else {
            format!("{kernels:.1}")
        },
        duration(part.slowest.total_ns / signed(part.slowest.count)),
        printable(&without_namespaces(without_parameters(&part.slowest.name))),
    ]
}
