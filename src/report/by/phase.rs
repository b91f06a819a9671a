//! By phase: prefill, decode, and what is neither.

use crate::analysis::{DurationStats, LayerSummary, PhaseSummary};
use crate::report::show::{duration, number, percent, words};
use crate::report::table::{Column, fit};
use crate::run::words::grouped;

const COLUMNS: [Column; 9] = [
    words("phase", u8::MAX),
    number("share", u8::MAX),
    number("steps", u8::MAX),
    number("kernels", 3),
    number("in kernels", u8::MAX),
    number("in steps", 2),
    number("step median", u8::MAX),
    number("p95", 4),
    number("GPU busy", u8::MAX),
];

pub(super) fn view(summary: &LayerSummary, width: usize) -> String {
    let rows: Vec<_> = summary.phases.iter().map(row).collect();
    let mut text = format!("\n{}", fit(&COLUMNS, &rows, width, 9));
    if summary.classes.iter().any(|class| class.phase_source != "nvtx") {
        text += "\nphases are told from how steps repeat; NVTX ranges around the steps (`prefill`, `decode`) would say them\n";
    }
    text
}

fn row(phase: &PhaseSummary) -> Vec<String> {
    let busy = if phase.steps_ns > 0 {
        percent(phase.busy_ns as f64 / phase.steps_ns as f64)
    } else {
        "-".to_owned()
    };
    let or_dash = |of: fn(&DurationStats) -> i64| {
        let steps = phase.durations.as_ref();
        steps.map_or_else(|| "-".to_owned(), |steps| duration(of(steps)))
    };
    vec![
        phase.phase.word().to_owned(),
        percent(phase.share),
        grouped(phase.steps),
        grouped(phase.kernels),
        duration(phase.kernels_ns),
        duration(phase.steps_ns),
        or_dash(|durations| durations.median_ns),
        or_dash(|durations| durations.p95_ns),
        busy,
    ]
}
