//! By NVTX range: the kernels launched within each path of ranges.

use super::and_more;
use crate::analysis::{LayerSummary, RangeSummary};
use crate::report::names::printable;
use crate::report::show::{duration, number, percent, words};
use crate::report::table::{Column, fit};
use crate::run::words::grouped;

const COLUMNS: [Column; 7] = [
    number("share", u8::MAX),
    number("kernels", u8::MAX),
    number("total", u8::MAX),
    number("mean", 3),
    number("median", 4),
    number("p95", 2),
    words("range", u8::MAX),
];

pub(super) fn view(summary: &LayerSummary, limit: usize, width: usize) -> String {
    if summary.ranges.iter().all(|range| range.nvtx_path.is_none()) {
        return "\nno kernel has an NVTX path. Ranges are recorded with `colonel run --trace nvtx`, and kernels get their paths \
                when a session is compacted, so not with `--no-analyze`\n"
            .to_owned();
    }
    let rows: Vec<_> = summary.ranges.iter().take(limit).map(row).collect();
    let mut text = format!("\n{}", fit(&COLUMNS, &rows, width, 24));
    text += &and_more(summary.ranges.len().saturating_sub(limit), "path");
    text
}

fn row(range: &RangeSummary) -> Vec<String> {
    let durations = &range.durations;
    vec![
        percent(range.share),
        grouped(durations.count),
        duration(durations.total_ns),
        duration(durations.mean_ns.round() as i64),
        duration(durations.median_ns),
        duration(durations.p95_ns),
        range
            .nvtx_path
            .as_deref()
            .map_or_else(|| "(no range)".to_owned(), printable),
    ]
}
