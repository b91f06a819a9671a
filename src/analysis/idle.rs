//! How long a GPU worked: the union of its kernels, copies and fills in a frame. Rows must come in order of start.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::analysis::columns::{i64s, u32s};
use crate::analysis::frames::{Frame, Frames, Origin};
use crate::schema::manifest::Problem;
use crate::session::SortedScan;

/// Columns of the tables that the scans must have, in this order.
pub(crate) const COLUMNS: [&str; 5] = ["start_ns", "end_ns", "pid", "device_id", "window"];
/// The tables of work.
pub(crate) const TABLES: [&str; 3] = ["kernels", "memcpys", "memsets"];

/// Work of one process on one device in one window, with the windows within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DeviceTime {
    /// First start, Unix ns.
    pub first_ns: i64,
    /// Last end, Unix ns.
    pub last_ns: i64,
    /// Time in which anything ran, ns.
    pub busy_ns: i64,
    /// Longest time between two pieces of work in which nothing ran, ns.
    pub longest_gap_ns: i64,
}

impl DeviceTime {
    fn new(start: i64, end: i64) -> Self {
        Self {
            first_ns: start,
            last_ns: end,
            busy_ns: end.saturating_sub(start),
            longest_gap_ns: 0,
        }
    }

    fn add(&mut self, start: i64, end: i64) {
        self.longest_gap_ns = self.longest_gap_ns.max(start.saturating_sub(self.last_ns));
        // Rows come in order of start, so all that is new lies after the latest end.
        let new_ns = end.saturating_sub(start.max(self.last_ns)).max(0);
        self.busy_ns = self.busy_ns.saturating_add(new_ns);
        self.last_ns = self.last_ns.max(end);
    }

    /// Takes in the time of another stretch that does not overlap.
    pub(crate) fn append(&mut self, other: Self) {
        self.first_ns = self.first_ns.min(other.first_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
        self.busy_ns = self.busy_ns.saturating_add(other.busy_ns);
        self.longest_gap_ns = self.longest_gap_ns.max(other.longest_gap_ns);
    }
}

/// Process, device, frame.
pub(crate) type Place = (u32, u32, Frame);

/// The fold over all tables of work at once.
#[derive(Debug)]
pub(crate) struct IdleFold<'a> {
    frames: &'a Frames,
    places: BTreeMap<Place, usize>,
    times: Vec<DeviceTime>,
    /// Times that rows of an origin count for.
    routes: FxHashMap<Origin, Vec<usize>>,
    /// Where the last row was from, and its route: rows come in long runs.
    current: Option<(Origin, Vec<usize>)>,
}

impl<'a> IdleFold<'a> {
    /// With the frames that rows count for.
    pub(crate) fn new(frames: &'a Frames) -> Self {
        Self {
            frames,
            places: BTreeMap::new(),
            times: Vec::new(),
            routes: FxHashMap::default(),
            current: None,
        }
    }

    /// Folds streams that are each in order of start. Gives the files that could not be read.
    pub(crate) fn add_all(&mut self, scans: impl IntoIterator<Item = SortedScan>) -> Vec<Problem> {
        let mut streams: Vec<_> = scans.into_iter().map(Stream::new).collect();
        while let Some(first) = (0..streams.len())
            .filter(|&i| streams[i].head().is_some())
            .min_by_key(|&i| streams[i].head())
        {
            let others = streams.iter().enumerate().filter(|&(index, _)| index != first);
            let limit = others.filter_map(|(_, stream)| stream.head()).min().unwrap_or(i64::MAX);
            self.add_until(&mut streams[first], limit);
        }
        streams.into_iter().flat_map(Stream::into_problems).collect()
    }

    /// Rows of one stream up to the start of the next row of another one.
    fn add_until(&mut self, stream: &mut Stream, limit: i64) {
        let Some(batch) = &stream.batch else { return };
        let (starts, ends) = (i64s(batch, 0), i64s(batch, 1));
        let (pids, devices, windows) = (u32s(batch, 2), u32s(batch, 3), u32s(batch, 4));
        let mut row = stream.row;
        while row < starts.len() && starts[row] <= limit {
            self.add(
                (pids[row], devices[row], windows[row]),
                starts[row],
                ends[row].max(starts[row]),
            );
            row += 1;
        }
        stream.advance_to(row);
    }

    fn add(&mut self, origin: Origin, start: i64, end: i64) {
        if self.current.as_ref().is_none_or(|(current, _)| *current != origin) {
            if let Some((left, route)) = self.current.take() {
                self.routes.insert(left, route);
            }
            let known = self.routes.remove(&origin);
            let route = known.unwrap_or_else(|| self.route(origin, start));
            self.current = Some((origin, route));
        }
        for &time in self.current.iter().flat_map(|(_, route)| route) {
            self.times[time].add(start, end);
        }
    }

    /// The route of an origin whose first row starts here.
    fn route(&mut self, (pid, device, window): Origin, start: i64) -> Vec<usize> {
        let (times, places) = (&mut self.times, &mut self.places);
        let place = |frame: &Frame| {
            *places.entry((pid, device, *frame)).or_insert_with(|| {
                times.push(DeviceTime::new(start, start));
                times.len() - 1
            })
        };
        self.frames.of(pid, window).iter().map(place).collect()
    }

    /// By process, device and frame.
    pub(crate) fn finish(self) -> BTreeMap<Place, DeviceTime> {
        let times = self.times;
        self.places
            .into_iter()
            .map(|(place, index)| (place, times[index]))
            .collect()
    }
}

struct Stream {
    scan: SortedScan,
    batch: Option<RecordBatch>,
    row: usize,
    errors: Vec<Problem>,
}

impl Stream {
    fn new(scan: SortedScan) -> Self {
        let mut stream = Self {
            scan,
            batch: None,
            row: 0,
            errors: Vec::new(),
        };
        stream.advance_to(0);
        stream
    }

    fn head(&self) -> Option<i64> {
        self.batch.as_ref().map(|batch| i64s(batch, 0)[self.row])
    }

    fn advance_to(&mut self, row: usize) {
        self.row = row;
        while self.batch.as_ref().is_none_or(|batch| self.row >= batch.num_rows()) {
            self.row = 0;
            match self.scan.next() {
                Some(Ok(batch)) => self.batch = Some(batch),
                Some(Err(error)) => self.errors.push(Problem {
                    code: "table_file_broken".to_owned(),
                    message: format!("part of a table could not be sorted: {error}"),
                    time_ns: crate::session::now_ns(),
                }),
                None => {
                    self.batch = None;
                    return;
                }
            }
        }
    }

    fn into_problems(self) -> Vec<Problem> {
        self.errors.into_iter().chain(self.scan.into_problems()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By windows that no process file tells of.
    fn folded(rows: &[(Origin, i64, i64)]) -> BTreeMap<Origin, DeviceTime> {
        let frames = Frames::default();
        let mut fold = IdleFold::new(&frames);
        rows.iter()
            .for_each(|&(origin, start, end)| fold.add(origin, start, end));
        let times = fold
            .finish()
            .into_iter()
            .map(|((pid, device, frame), time)| match frame {
                Frame::Window(window) => ((pid, device, window), time),
                Frame::Stretch(_) => unreachable!("there is no process file"),
            });
        times.collect()
    }

    #[test]
    fn overlap_counts_once_and_gaps_not_at_all() {
        let place = (1, 0, 1);
        let times = folded(&[
            (place, 0, 10),
            (place, 2, 5),
            (place, 8, 20),
            (place, 50, 60),
            (place, 60, 61),
        ]);
        let time = DeviceTime {
            first_ns: 0,
            last_ns: 61,
            busy_ns: 31,
            longest_gap_ns: 30,
        };
        assert_eq!(times[&place], time);
    }

    proptest! {
        #[test]
        fn busy_equals_the_marked_nanoseconds(
            mut rows in prop::collection::vec((0..2u32, 0..2u32, 0..200i64, 0..20i64), 0..60)
        ) {
            rows.sort_by_key(|row| row.2);
            let rows: Vec<_> = rows.iter().map(|&(device, window, start, length)| ((1, device, window), start, start + length)).collect();
            let times = folded(&rows);
            for (place, time) in times {
                let mut marked = [false; 220];
                let mine = rows.iter().filter(|row| row.0 == place);
                for &(_, start, end) in mine {
                    (start..end).for_each(|ns| marked[usize::try_from(ns).unwrap()] = true);
                }
                prop_assert_eq!(time.busy_ns, i64::try_from(marked.iter().filter(|&&busy| busy).count()).unwrap());
            }
        }
    }
}
