//! By NVTX range: a tree, with the kernels within each range.

use super::and_more;
use crate::analysis::{LayerSummary, RangeSummary};
use crate::report::names::printable;
use crate::report::show::{duration, number, percent, words};
use crate::report::table::{Column, fit};
use crate::run::words::grouped;

const COLUMNS: [Column; 8] = [
    number("share", u8::MAX),
    number("kernels", u8::MAX),
    number("total", u8::MAX),
    number("own", 5),
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
    let shown = RangeSummary::longest(&summary.ranges, limit);
    let rows: Vec<_> = shown.into_iter().map(row).collect();
    let mut text = format!("\n{}", fit(&COLUMNS, &rows, width, 24));
    text += &and_more(summary.ranges.len().saturating_sub(limit), "range");
    text += "\nown: time of the kernels in no range within it; the nodes of a CUDA graph lie in the ranges of its launch, and within \
             those in the ranges of their capture\n";
    text
}

fn row(range: &RangeSummary) -> Vec<String> {
    let durations = &range.durations;
    vec![
        percent(range.share),
        grouped(durations.count),
        duration(durations.total_ns),
        match range.own_kernels {
            0 => "-".to_owned(),
            _ => duration(range.own_ns),
        },
        duration(durations.mean_ns.round() as i64),
        duration(durations.median_ns),
        duration(durations.p95_ns),
        label(range),
    ]
}

/// Its own name, further in than those around it.
fn label(range: &RangeSummary) -> String {
    let name = range.nvtx_path.as_deref().and_then(|path| path.rsplit('/').next());
    let name = name.map_or_else(|| "(no range)".to_owned(), printable);
    format!("{}{name}", "  ".repeat(range.depth))
}
