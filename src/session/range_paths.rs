//! Which NVTX ranges a kernel was launched in: those whose two correlation ids the kernel's own lies between.
//!
//! CUPTI's records of kernels do not say which thread launched. Where API calls were recorded, these do, and the ranges of
//! that thread alone count. Else, where ranges of one thread alone were open, the innermost gives the path, and where several
//! threads had ranges open, none does.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, UInt32Type};
use arrow_array::{Array as _, RecordBatch, StringArray};

use crate::session::call_threads::CallThreads;
use crate::session::files::ProcessFolder;
use crate::session::kernel_paths::Texts;
use crate::session::scan::{Scan, folder_parts, wanted_schema};

const COLUMNS: [&str; 6] = [
    "start_ns",
    "start_correlation_id",
    "end_correlation_id",
    "thread_id",
    "depth",
    "path",
];
const KIND: &str = "kind";

/// Launches from one id on, up to the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    /// The last id before it. Ids are counted on where CUPTI's 32 bits wrap.
    id: i64,
    /// Of each thread that has ranges open, the path of the innermost.
    open: Open,
}

/// Nearly always there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Open {
    None,
    One(u32, u32),
    Several(Vec<(u32, u32)>),
}

/// Paths of one process's launches.
#[derive(Debug, Default)]
pub(crate) struct RangePaths {
    /// In order of id.
    steps: Vec<Step>,
    /// Ids by time, to know how often the counter had wrapped.
    clock: Vec<(i64, i64)>,
    /// Who launched, where that is known.
    threads: Option<CallThreads>,
}

#[derive(Debug, Clone, Copy)]
struct Interval {
    /// Its launches are later than this id,
    start: i64,
    /// and no later than this one.
    end: i64,
    thread_id: u32,
    depth: u32,
    path: u32,
}

/// `id` counted on, the nearest to a known one.
fn unwrapped(id: u32, near: i64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the counter's 32 bits"
    )]
    let low = near as u32;
    near + i64::from(id.wrapping_sub(low).cast_signed())
}

impl RangePaths {
    /// Reads the tables of one process: of ranges, and of API calls. What can't be read of them gives no path.
    pub(crate) fn read(folder: &ProcessFolder, calls: &ProcessFolder, texts: &mut Texts) -> std::io::Result<Self> {
        let columns = [&COLUMNS[..], &[KIND]].concat();
        let scan = Scan::new(folder_parts(folder)?, wanted_schema("nvtx_ranges", &columns));
        let mut rows = Rows::default();
        for batch in scan {
            rows.add(&batch, texts);
        }
        let mut paths = rows.into_paths();
        if !paths.is_empty() {
            paths.know(CallThreads::read(calls, |id, start_ns| paths.counted(id, start_ns))?);
        }
        Ok(paths)
    }

    /// Takes in who launched. Where calls and ranges number threads otherwise, as an older colonel did, nothing is known.
    fn know(&mut self, threads: CallThreads) {
        let is_known = self.steps.iter().any(|step| match &step.open {
            Open::None => false,
            Open::One(thread, _) => threads.has(*thread),
            Open::Several(open) => open.iter().any(|(thread, _)| threads.has(*thread)),
        });
        self.threads = is_known.then_some(threads);
    }

    /// True where no range says anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The path of what a call launched.
    pub(crate) fn find(&self, correlation_id: u32, start_ns: i64) -> Option<u32> {
        let id = self.counted(correlation_id, start_ns)?;
        let after = self.steps.partition_point(|step| step.id < id);
        let open = &self.steps.get(after.checked_sub(1)?)?.open;
        let launched = self.threads.as_ref().and_then(|threads| threads.find(id));
        let is_its = |thread: u32| launched.is_none_or(|launched| launched == thread);
        match open {
            Open::One(thread, path) => is_its(*thread).then_some(*path),
            Open::Several(open) if launched.is_some() => {
                open.iter().find(|(thread, _)| is_its(*thread)).map(|(_, path)| *path)
            }
            _ => None,
        }
    }

    /// An id without its wrap.
    fn counted(&self, correlation_id: u32, start_ns: i64) -> Option<i64> {
        let later = self.clock.partition_point(|(time, _)| *time <= start_ns);
        let (_, near) = self.clock.get(later.saturating_sub(1))?;
        Some(unwrapped(correlation_id, *near))
    }
}

/// What the table says, until all of it is read.
#[derive(Debug, Default)]
struct Rows {
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    start_ns: i64,
    start: u32,
    end: u32,
    thread_id: u32,
    depth: u32,
    path: u32,
}

impl Rows {
    fn add(&mut self, batch: &RecordBatch, known: &mut Texts) {
        let unsigned = |index: usize| batch.column(index).as_primitive::<UInt32Type>();
        let starts_ns = batch.column(0).as_primitive::<Int64Type>();
        let (starts, ends, threads, depths) = (unsigned(1), unsigned(2), unsigned(3), unsigned(4));
        let text = |index: usize| {
            let column = batch.column(index).as_dictionary::<Int32Type>();
            column.downcast_dict::<StringArray>()
        };
        let (Some(paths), Some(kinds)) = (text(5), text(6)) else {
            return;
        };
        let texts = paths.into_iter().zip(kinds);
        for (row, (path, kind)) in texts.enumerate() {
            let Some(path) = path.filter(|_| kind != Some("mark") && starts.is_valid(row) && ends.is_valid(row)) else {
                continue;
            };
            self.rows.push(Row {
                start_ns: starts_ns.value(row),
                start: starts.value(row),
                end: ends.value(row),
                thread_id: threads.value(row),
                depth: depths.value(row),
                path: known.number(path),
            });
        }
    }

    fn into_paths(mut self) -> RangePaths {
        self.rows.sort_unstable_by_key(|row| row.start_ns);
        let mut near = self.rows.first().map_or(0, |row| i64::from(row.start));
        let mut clock = Vec::with_capacity(self.rows.len());
        let intervals: Vec<Interval> = self
            .rows
            .iter()
            .map(|row| {
                near = unwrapped(row.start, near);
                clock.push((row.start_ns, near));
                Interval {
                    start: near,
                    end: near + i64::from(row.end.wrapping_sub(row.start)),
                    thread_id: row.thread_id,
                    depth: row.depth,
                    path: row.path,
                }
            })
            .collect();
        RangePaths {
            steps: steps(&intervals),
            clock,
            threads: None,
        }
    }
}

/// Sweeps over the ids: what is open after each id at which something opens or closes.
fn steps(intervals: &[Interval]) -> Vec<Step> {
    let of_length = intervals
        .iter()
        .enumerate()
        .filter(|(_, interval)| interval.start < interval.end);
    let mut events: Vec<(i64, bool, usize)> = of_length
        .flat_map(|(index, interval)| [(interval.start, true, index), (interval.end, false, index)])
        .collect();
    events.sort_unstable();
    // By thread, the innermost last.
    let mut open: BTreeMap<u32, BTreeSet<(i64, u32, usize)>> = BTreeMap::new();
    let mut steps: Vec<Step> = Vec::new();
    let mut events = events.into_iter().peekable();
    while let Some((id, opens, index)) = events.next() {
        let interval = intervals[index];
        let entry = (interval.start, interval.depth, index);
        if opens {
            open.entry(interval.thread_id).or_default().insert(entry);
        } else if let Some(ranges) = open.get_mut(&interval.thread_id) {
            ranges.remove(&entry);
            if ranges.is_empty() {
                open.remove(&interval.thread_id);
            }
        }
        if events.peek().is_some_and(|(next, ..)| *next == id) {
            continue;
        }
        let innermost = open.iter().filter_map(|(thread, ranges)| {
            let (.., index) = ranges.last()?;
            Some((*thread, intervals[*index].path))
        });
        let innermost: Vec<_> = innermost.collect();
        let now = match innermost[..] {
            [] => Open::None,
            [(thread, path)] => Open::One(thread, path),
            _ => Open::Several(innermost),
        };
        if steps.last().map(|step| &step.open) != Some(&now) {
            steps.push(Step { id, open: now });
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(rows: &[(u32, u32, u32, u32, &str)]) -> (RangePaths, Texts) {
        let (mut all, mut texts) = (Rows::default(), Texts::default());
        for (number, (start, end, thread_id, depth, path)) in rows.iter().enumerate() {
            all.rows.push(Row {
                start_ns: i64::try_from(number).unwrap() * 10,
                start: *start,
                end: *end,
                thread_id: *thread_id,
                depth: *depth,
                path: texts.number(path),
            });
        }
        (all.into_paths(), texts)
    }

    fn found((paths, texts): &(RangePaths, Texts), ids: &[u32]) -> Vec<String> {
        let ids = ids.iter().map(|id| paths.find(*id, 1_000));
        ids.map(|path| path.map_or("-", |path| texts.get(path)).to_owned())
            .collect()
    }

    #[test]
    fn the_innermost_range_of_the_only_thread() {
        let paths = paths(&[(10, 50, 1, 0, "a"), (20, 30, 1, 1, "a/b"), (30, 40, 1, 1, "a/c")]);
        let expected = ["-", "-", "a", "a", "a/b", "a/b", "a/c", "a/c", "a", "a", "-"];
        assert_eq!(found(&paths, &[9, 10, 11, 20, 21, 30, 31, 40, 41, 50, 51]), expected);
    }

    #[test]
    fn ranges_that_began_before_the_window_nest_by_depth() {
        let paths = paths(&[(10, 50, 1, 0, "a"), (10, 50, 1, 1, "a/b"), (10, 30, 1, 2, "a/b/c")]);
        assert_eq!(
            found(&paths, &[11, 30, 31, 50, 51]),
            ["a/b/c", "a/b/c", "a/b", "a/b", "-"]
        );
    }

    #[test]
    fn several_threads_give_none() {
        let paths = paths(&[(10, 40, 1, 0, "a"), (20, 60, 2, 0, "b"), (30, 50, 1, 0, "c")]);
        assert_eq!(found(&paths, &[15, 25, 35, 45, 55, 65]), ["a", "-", "-", "-", "b", "-"]);
    }

    #[test]
    fn a_launch_has_the_ranges_of_its_thread_where_calls_say_it() {
        let ranges = [(10, 40, 1, 0, "a"), (20, 60, 2, 0, "b"), (70, 90, 1, 0, "c")];
        let mut known = paths(&ranges);
        known.0.know(CallThreads::of(vec![
            (15, 1),
            (16, 3),
            (25, 1),
            (26, 2),
            (27, 3),
            (75, 3),
        ]));
        let expected = ["a", "-", "a", "b", "-", "-", "c"];
        assert_eq!(found(&known, &[15, 16, 25, 26, 27, 75, 80]), expected, "80: not known");
        let mut other = paths(&ranges);
        other.0.know(CallThreads::of(vec![(15, 77), (16, 88)]));
        assert_eq!(found(&other, &[15, 16, 25]), ["a", "a", "-"], "other numbers");
    }

    #[test]
    fn a_range_that_launched_nothing_is_none() {
        assert!(paths(&[(10, 10, 1, 0, "a")]).0.is_empty());
        assert_eq!(found(&paths(&[]), &[1]), ["-"]);
    }

    #[test]
    fn ids_wrap() {
        let paths = paths(&[(u32::MAX - 2, 3, 1, 0, "a"), (3, 6, 1, 0, "b")]);
        let expected = ["-", "a", "a", "a", "b", "b", "-"];
        assert_eq!(found(&paths, &[u32::MAX - 2, u32::MAX, 0, 3, 4, 6, 7]), expected);
    }
}
