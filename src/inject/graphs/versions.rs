//! Ranges of executables on their way to the session: few, and not to be lost, so no queue of fixed length.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::inject::graphs::runs::{Runs, TooMany};
use crate::inject::guest::lock;
use crate::schema::columns::TableBuilder as _;
use crate::schema::tables::{GraphRangeRow, GraphRangesBuilder};

/// Rows of a process. A program that updates its graphs all the time, with ever other ranges, has no more.
const MAX_ROWS: u64 = 4 << 20;

/// What an executable's nodes were captured in, from some time on.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) graph_id: u32,
    pub(crate) since_ns: i64,
    pub(crate) since_mark: Option<u32>,
    pub(crate) runs: Arc<Runs>,
}

/// Those that the writer has not seen.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    waiting: Mutex<Vec<Version>>,
    rows: AtomicU64,
}

impl Versions {
    pub(crate) fn push(&self, version: Version) -> Result<(), TooMany> {
        let rows = version.runs.all().len() as u64;
        if self.rows.fetch_add(rows, Ordering::Relaxed) + rows > MAX_ROWS {
            return Err(TooMany(rows));
        }
        lock(&self.waiting).push(version);
        Ok(())
    }

    pub(crate) fn take(&self) -> Vec<Version> {
        std::mem::take(&mut *lock(&self.waiting))
    }
}

/// Makes rows of a version; one without nodes has a row that says so. Gives their number.
pub(crate) fn push_rows(rows: &mut GraphRangesBuilder, pid: u32, version: &Version) -> u64 {
    let before = rows.len();
    let mut push = |node_begin, node_end, nvtx_path: Option<&str>| {
        rows.push(GraphRangeRow {
            pid,
            graph_id: version.graph_id,
            since_ns: version.since_ns,
            since_correlation_id: version.since_mark,
            node_begin,
            node_end,
            nvtx_path,
        });
    };
    for run in version.runs.all() {
        push(run.begin, run.end, run.path.as_deref());
    }
    if version.runs.all().is_empty() {
        push(0, 0, None);
    }
    (rows.len() - before) as u64
}
