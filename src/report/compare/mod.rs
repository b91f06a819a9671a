//! `colonel compare`: two sessions side by side, for people and for machines. One file a format.

mod counted;
mod html;
mod json;
mod markdown;
mod text;
mod words;

pub use html::compare_html;
pub use json::CompareJson;
pub use markdown::compare_markdown;
pub use text::compare_text;

use crate::analysis::Comparison;
use crate::analysis::compare::CountedRow;
use crate::session::Session;

/// Two sessions, the window of each that was asked for, and what came out.
#[derive(Debug, Clone, Copy)]
pub struct Compared<'a> {
    /// The sessions.
    pub sessions: [&'a Session; 2],
    /// As asked for.
    pub windows: [Option<&'a str>; 2],
    /// What came out.
    pub comparison: &'a Comparison,
    /// Hardware counters of kernels that both have.
    pub counted: &'a [CountedRow],
    /// Rows shown.
    pub limit: Option<usize>,
}

impl Compared<'_> {
    fn shown(&self) -> usize {
        let rows = self.comparison.rows.len();
        self.limit.map_or(rows, |limit| limit.min(rows))
    }
}
