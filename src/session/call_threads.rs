//! Which thread made a call of CUDA, where the API calls of a process were recorded.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int64Type, UInt32Type};

use crate::session::files::ProcessFolder;
use crate::session::scan::{Scan, folder_parts, wanted_schema};

const COLUMNS: [&str; 3] = ["start_ns", "correlation_id", "thread_id"];

/// Calls of one thread with none of another between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: i64,
    last: i64,
    thread_id: u32,
}

/// Threads of one process's calls.
#[derive(Debug, Default)]
pub(crate) struct CallThreads {
    /// In order of id.
    runs: Vec<Run>,
}

impl CallThreads {
    /// Reads the table of one process; `counted` gives an id without its wrap at 2^32.
    pub(crate) fn read(folder: &ProcessFolder, counted: impl Fn(u32, i64) -> Option<i64>) -> std::io::Result<Self> {
        let mut calls = Vec::new();
        for batch in Scan::new(folder_parts(folder)?, wanted_schema("api_calls", &COLUMNS)) {
            let starts = batch.column(0).as_primitive::<Int64Type>().values();
            let unsigned = |index: usize| batch.column(index).as_primitive::<UInt32Type>().values();
            let rows = starts.iter().zip(unsigned(1)).zip(unsigned(2));
            calls.extend(rows.filter_map(|((&start_ns, &id), &thread)| Some((counted(id, start_ns)?, thread))));
        }
        Ok(Self::of(calls))
    }

    /// From ids and threads, in any order.
    pub(crate) fn of(mut calls: Vec<(i64, u32)>) -> Self {
        calls.sort_unstable();
        let mut runs = Vec::<Run>::new();
        for (id, thread_id) in calls {
            match runs.last_mut().filter(|run| run.thread_id == thread_id) {
                Some(run) => run.last = id,
                None => runs.push(Run {
                    first: id,
                    last: id,
                    thread_id,
                }),
            }
        }
        Self { runs }
    }

    /// The thread of a call, if it is known.
    pub(crate) fn find(&self, id: i64) -> Option<u32> {
        let after = self.runs.partition_point(|run| run.first <= id);
        let run = self.runs.get(after.checked_sub(1)?)?;
        (id <= run.last).then_some(run.thread_id)
    }

    /// Whether it is one of those.
    pub(crate) fn has(&self, thread_id: u32) -> bool {
        self.runs.iter().any(|run| run.thread_id == thread_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_of_the_thread_of_those_around_it() {
        let threads = CallThreads::of(vec![(5, 1), (9, 1), (7, 1), (12, 2), (14, 1)]);
        assert_eq!(threads.runs.len(), 3);
        let found = [4, 5, 6, 9, 10, 12, 13, 14, 15].map(|id| threads.find(id));
        let known = Some(1);
        assert_eq!(found, [None, known, known, known, None, Some(2), None, known, None]);
        assert!(threads.has(2) && !threads.has(3));
    }
}
