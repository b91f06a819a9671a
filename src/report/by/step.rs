//! By step: a line for each kind.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::and_more;
use crate::analysis::{LayerSummary, StepClass};
use crate::report::show::{duration, number, percent, words};
use crate::report::table::{Column, fit};
use crate::run::words::grouped;

const COLUMNS: [Column; 15] = [
    number("pid", 1),
    words("phase", u8::MAX),
    number("batch", 10),
    number("graph", 4),
    number("steps", u8::MAX),
    number("kernels", 9),
    number("median", u8::MAX),
    number("p95", u8::MAX),
    number("min", 2),
    number("max", 3),
    number("GPU busy", u8::MAX),
    number("idle", 8),
    number("gaps", 5),
    number("gap", 6),
    number("before it", u8::MAX),
];

pub(super) fn view(summary: &LayerSummary, limit: usize, width: usize) -> String {
    // The pid tells nothing where there is one.
    let pids: BTreeSet<u32> = summary.classes.iter().map(|class| class.pid).collect();
    let first = usize::from(pids.len() < 2);
    let classes = summary.classes.iter().take(limit);
    let rows: Vec<_> = classes.map(|class| row(class).split_off(first)).collect();
    let mut text = format!("\n{}", fit(&COLUMNS[first..], &rows, width, 9));
    text += &and_more(summary.classes.len().saturating_sub(limit), "kind");
    text += "\nidle: a step's mean; gaps: waits between two kernels of a step, and their median; before it: the median wait \
             since the step before\n";
    if summary.classes.iter().all(|class| class.batch.is_none()) {
        let _ = writeln!(
            text,
            "batch and phase are not recorded: NVTX ranges around the steps (`decode batch=4`) give them; phases here are \
             told from how steps repeat"
        );
    }
    text
}

fn row(class: &StepClass) -> Vec<String> {
    let steps = class.steps.max(1);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let idle = class.durations.total_ns - class.busy.total_ns;
    vec![
        class.pid.to_string(),
        class.phase.word().to_owned(),
        or_dash(class.batch.map(|batch| batch.to_string())),
        or_dash(class.graph_id.map(|graph| graph.to_string())),
        grouped(class.steps),
        grouped((class.kernels + steps / 2) / steps),
        duration(class.durations.median_ns),
        duration(class.durations.p95_ns),
        duration(class.durations.min_ns),
        duration(class.durations.max_ns),
        percent(class.busy.total_ns as f64 / class.durations.total_ns.max(1) as f64),
        duration(idle / i64::try_from(steps).unwrap_or(i64::MAX)),
        or_dash(class.gaps.map(|gaps| grouped((gaps.count + steps / 2) / steps))),
        or_dash(class.gaps.map(|gaps| duration(gaps.median_ns))),
        or_dash(class.between.map(|between| duration(between.median_ns))),
    ]
}
