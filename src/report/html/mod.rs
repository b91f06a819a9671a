//! `colonel report`: one page of HTML with all that it needs in itself. ECharts, which the crate `charming` carries, draws;
//! page.js gives it the data and merges the timeline's spans to what a screen can show.

mod charts;
mod gather;
mod page;
mod spans;
mod speed;

pub(crate) use charts::{Chart, bars};
pub(crate) use page::render;

pub use page::report_html;

use std::fmt::Write as _;

use crate::analysis::StepClass;

/// `decode, batch 4`, `decode, graph 104`.
fn kind(class: &StepClass) -> String {
    let mut text = class.phase.word().to_owned();
    if let Some(batch) = class.batch {
        let _ = write!(text, ", batch {batch}");
    }
    if let Some(graph) = class.graph_id {
        let _ = write!(text, ", graph {graph}");
    }
    text
}
