//! Hardware counters of kernels that both sessions have, for a terminal.

use super::Compared;
use crate::analysis::compare::{Counted, CountedRow};
use crate::report::show::{number, words};
use crate::report::table::{Column, fit};

const COLUMNS: [Column; 7] = [
    words("metric", u8::MAX),
    number("A", u8::MAX),
    number("B", u8::MAX),
    number("difference", 2),
    number("at A's time", 3),
    number("mean, A → B", 1),
    words("kernel", u8::MAX),
];
/// Metrics a kernel, about: the limit is one of kernels.
const ROWS_A_KERNEL: usize = 8;

/// Nothing where they share none.
pub(super) fn counters_text(compared: Compared<'_>, width: usize) -> String {
    if compared.counted.is_empty() {
        return String::new();
    }
    let limit = compared
        .limit
        .map_or(usize::MAX, |limit| limit.saturating_mul(ROWS_A_KERNEL));
    let rows: Vec<_> = compared.counted.iter().take(limit).map(row).collect();
    let mut text = "\nhardware counters\n".to_owned();
    text += &fit(&COLUMNS, &rows, width, 20);
    text += "at A's time: B's percentage put to the kernel's duration in A, before A is taken from it; ncu has a kernel's \
             launch in its time\n";
    text
}

fn row(row: &CountedRow) -> Vec<String> {
    let us = |counted: &Counted| format!("{:.2}", counted.mean_ns / 1e3);
    vec![
        row.metric.clone(),
        shown(&row.a, row.unit),
        shown(&row.b, row.unit),
        signed(row.difference, row.unit),
        signed(row.difference_at_same_time, row.unit),
        format!("{} → {} us", us(&row.a), us(&row.b)),
        row.kernel.clone(),
    ]
}

fn shown(counted: &Counted, unit: &str) -> String {
    let half = counted.high.map(|high| high - counted.value);
    let (value, half) = match unit {
        "bytes" => (
            format!("{:.2} MB", counted.value / 1e6),
            half.map(|half| format!(" ±{:.2}", half / 1e6)),
        ),
        _ => (
            format!("{:.1} %", counted.value),
            half.map(|half| format!(" ±{half:.1}")),
        ),
    };
    value + &half.unwrap_or_default()
}

fn signed(difference: f64, unit: &str) -> String {
    match unit {
        "bytes" => format!("{:+.2} MB", difference / 1e6),
        _ => format!("{difference:+.1}"),
    }
}
