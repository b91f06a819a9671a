//! By phase: prefill, decode, and what is neither.

use crate::analysis::{LayerSummary, PhaseSummary};
use crate::report::show::{duration, number, percent, words};
use crate::report::table::{Column, fit};
use crate::run::words::grouped;

const COLUMNS: [Column; 7] = [
    words("phase", u8::MAX),
    number("share", u8::MAX),
    number("steps", u8::MAX),
    number("kernels", 3),
    number("in kernels", u8::MAX),
    number("in steps", 2),
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
    vec![
        phase.phase.word().to_owned(),
        percent(phase.share),
        grouped(phase.steps),
        grouped(phase.kernels),
        duration(phase.kernels_ns),
        duration(phase.steps_ns),
        busy,
    ]
}
