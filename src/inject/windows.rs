//! Windows of capture, and the question which one a record belongs to.
//!
//! A record belongs to the window opened last of those in which its work was *launched*, however late it ran. Launch
//! order is read from CUPTI's correlation ids: one counter for the whole process, marked as a window opens and closes.
//! Ids are 32 bits and wrap, so they decide only near a boundary; farther away the record's own time does, and
//! everywhere where no mark could be had.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::inject::guest::lock;
use crate::schema::manifest;

/// Distance from a boundary beyond which no queued work reaches and time alone decides.
const NEAR_NS: i64 = 60_000_000_000;

/// How many windows are open in this process. Exported: colonel's Python package makes ranges while it is not 0.
#[unsafe(no_mangle)]
pub(crate) static COLONEL_OPEN_WINDOWS: AtomicU32 = AtomicU32::new(0);

/// After a fork, in the child: what is open there is the parent's.
pub(crate) fn forget() {
    COLONEL_OPEN_WINDOWS.store(0, Ordering::Release);
}

/// A window opened or closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Boundary {
    window: u32,
    opens: bool,
    time_ns: i64,
    /// Last correlation id given out before it.
    mark: Option<u32>,
    /// Window that launches belong to from here on: the newest of the open ones.
    holder: Option<u32>,
}

impl Boundary {
    /// Whether a record's work was launched after it.
    fn is_before(&self, correlation_id: u32, start_ns: i64) -> bool {
        match self.mark {
            Some(mark) if correlation_id != 0 && is_near(start_ns, self.time_ns) => is_later(correlation_id, mark),
            _ if self.opens => start_ns >= self.time_ns,
            _ => start_ns > self.time_ns,
        }
    }

    /// A CUPTI callback that could not wait brings its own, older mark.
    fn is_after(&self, other: &Boundary) -> bool {
        match (self.mark, other.mark) {
            (Some(mark), Some(other_mark)) => is_near(self.time_ns, other.time_ns) && is_later(mark, other_mark),
            _ => false,
        }
    }
}

fn is_near(time_ns: i64, other_ns: i64) -> bool {
    (time_ns - other_ns).abs() < NEAR_NS
}

fn is_later(id: u32, mark: u32) -> bool {
    id.wrapping_sub(mark).cast_signed() > 0
}

/// Every window of this process. They may nest and overlap.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    known: Mutex<Known>,
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    /// By number, from 1.
    windows: Vec<manifest::Window>,
    open: BTreeSet<u32>,
    /// In the order in which they closed; they get on disk in that order, too.
    closed: Vec<u32>,
    /// How many of `closed` are on disk.
    sealed: usize,
    /// In launch order.
    boundaries: Vec<Boundary>,
}

impl Known {
    fn tell_others(&self) {
        let open = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
        COLONEL_OPEN_WINDOWS.store(open, Ordering::Release);
    }

    fn window(&mut self, number: u32) -> Option<&mut manifest::Window> {
        self.windows.get_mut(number.checked_sub(1)? as usize)
    }

    /// The open windows that records can belong to.
    fn recorded(&self) -> impl Iterator<Item = u32> {
        self.open
            .iter()
            .copied()
            .filter(|number| records(&self.windows, *number))
    }

    fn add(&mut self, boundary: Boundary) {
        let before = self.boundaries.iter().rposition(|known| !known.is_after(&boundary));
        let at = before.map_or(0, |index| index + 1);
        self.boundaries.insert(at, boundary);
        // Back from what is open now.
        let mut open = self.open.clone();
        for boundary in self.boundaries[at..].iter_mut().rev() {
            boundary.holder = open
                .iter()
                .rev()
                .copied()
                .find(|number| records(&self.windows, *number));
            if boundary.opens {
                open.remove(&boundary.window);
            } else {
                open.insert(boundary.window);
            }
        }
    }
}

fn window_of(windows: &[manifest::Window], number: u32) -> Option<&manifest::Window> {
    windows.get((number as usize).checked_sub(1)?)
}

fn records(windows: &[manifest::Window], number: u32) -> bool {
    window_of(windows, number).is_some_and(|window| !window.sampled)
}

fn is_burst(windows: &[manifest::Window], number: u32) -> bool {
    window_of(windows, number).is_some_and(|window| window.trigger == manifest::BURST)
}

impl Windows {
    /// Opens the next window.
    /// `sampled`: none of the records is its own, but of the bursts within it.
    pub(crate) fn open(
        &self,
        start_ns: i64,
        mark: Option<u32>,
        trigger: &str,
        name: Option<String>,
        sampled: bool,
    ) -> u32 {
        let mut known = lock(&self.known);
        let number = u32::try_from(known.windows.len()).unwrap_or(u32::MAX).saturating_add(1);
        known.windows.push(manifest::Window {
            number,
            start_ns,
            end_ns: None,
            trigger: trigger.to_owned(),
            name,
            sealed_ns: None,
            sampled,
        });
        known.open.insert(number);
        known.tell_others();
        known.add(Boundary {
            window: number,
            opens: true,
            time_ns: start_ns,
            mark,
            holder: None,
        });
        self.version.fetch_add(1, Ordering::Release);
        number
    }

    /// Closes a window; false if it is not open.
    pub(crate) fn close(&self, number: u32, end_ns: i64, mark: Option<u32>) -> bool {
        let mut known = lock(&self.known);
        if !known.open.remove(&number) {
            return false;
        }
        known.tell_others();
        if let Some(window) = known.window(number) {
            window.end_ns = Some(end_ns);
        }
        known.closed.push(number);
        known.add(Boundary {
            window: number,
            opens: false,
            time_ns: end_ns,
            mark,
            holder: None,
        });
        self.version.fetch_add(1, Ordering::Release);
        true
    }

    /// How many CUDA calls the program made in the burst that closed last, as far as that is known.
    pub(crate) fn calls_of_last_burst(&self) -> u32 {
        let known = lock(&self.known);
        let calls = || {
            let number = *known.closed.iter().rfind(|number| is_burst(&known.windows, **number))?;
            let mark = |opens| {
                let mut boundaries = known.boundaries.iter().rev();
                boundaries
                    .find(|boundary| boundary.window == number && boundary.opens == opens)?
                    .mark
            };
            // The mark at its end took an id itself.
            Some(mark(false)?.wrapping_sub(mark(true)?).saturating_sub(1))
        };
        calls().unwrap_or(0)
    }

    /// Those that are open, the newest last.
    pub(crate) fn open_now(&self) -> Vec<manifest::Window> {
        let mut known = lock(&self.known);
        let open = known.open.clone();
        open.into_iter()
            .filter_map(|number| known.window(number).cloned())
            .collect()
    }

    /// Whether one is open that records can belong to.
    pub(crate) fn is_recording(&self) -> bool {
        lock(&self.known).recorded().next().is_some()
    }

    /// How many have closed.
    pub(crate) fn closed(&self) -> usize {
        lock(&self.known).closed.len()
    }

    /// How many of them are on disk: the first that closed.
    pub(crate) fn sealed(&self) -> usize {
        lock(&self.known).sealed
    }

    /// The first `closed` that closed are on disk.
    pub(crate) fn seal(&self, closed: usize, now_ns: i64) {
        let mut known = lock(&self.known);
        while known.sealed < closed.min(known.closed.len()) {
            let number = known.closed[known.sealed];
            if let Some(window) = known.window(number) {
                window.sealed_ns = Some(now_ns);
            }
            known.sealed += 1;
        }
    }

    /// Those that closed after the first `closed` ones, for their table.
    pub(crate) fn closed_after(&self, closed: usize) -> Vec<manifest::Window> {
        let mut known = lock(&self.known);
        let numbers = known.closed.get(closed..).unwrap_or_default().to_vec();
        numbers
            .into_iter()
            .filter_map(|number| known.window(number).cloned())
            .collect()
    }

    /// Number of the newest window that somebody asked for.
    pub(crate) fn newest(&self) -> Option<u32> {
        let known = lock(&self.known);
        let newest = known.windows.iter().rfind(|window| window.trigger != manifest::BURST);
        newest.map(|window| window.number)
    }

    /// For the process file.
    pub(crate) fn manifest(&self) -> Vec<manifest::Window> {
        lock(&self.known).windows.clone()
    }
}

/// The writer's own copy, renewed when a window opened or closed.
#[derive(Debug, Default)]
pub(crate) struct WindowFinder {
    boundaries: Vec<Boundary>,
    version: u64,
}

impl WindowFinder {
    /// Takes over what changed.
    pub(crate) fn renew(&mut self, windows: &Windows) {
        let version = windows.version.load(Ordering::Acquire);
        if version != self.version {
            self.boundaries.clone_from(&lock(&windows.known).boundaries);
            self.version = version;
        }
    }

    /// Number of the window that a record belongs to.
    pub(crate) fn find(&self, correlation_id: u32, start_ns: i64) -> Option<u32> {
        let after = self
            .boundaries
            .partition_point(|boundary| boundary.is_before(correlation_id, start_ns));
        self.boundaries.get(after.checked_sub(1)?)?.holder
    }

    /// Number of the newest window that opened, or went on after another one, within a stretch from one launch to another.
    pub(crate) fn find_within(&self, start: (u32, i64), end: (u32, i64)) -> Option<u32> {
        let after = |(id, ns)| self.boundaries.partition_point(|boundary| boundary.is_before(id, ns));
        let within = self.boundaries.get(after(start)..after(end))?;
        within.iter().rev().find_map(|boundary| boundary.holder)
    }

    /// True for the driver call by which a window was marked: ours, not the program's.
    pub(crate) fn is_mark(&self, correlation_id: u32) -> bool {
        let mark = Some(correlation_id);
        self.boundaries.iter().rev().any(|boundary| boundary.mark == mark)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn finder(windows: &Windows) -> WindowFinder {
        let mut finder = WindowFinder::default();
        finder.renew(windows);
        finder
    }

    #[test]
    fn work_launched_before_the_stop_counts_however_late_it_runs() {
        let windows = Windows::default();
        windows.open(1_000, Some(10), "profiler", None, false);
        windows.close(1, 2_000, Some(20));
        windows.open(3_000, Some(30), "profiler", None, false);
        let finder = finder(&windows);
        assert_eq!(finder.find(15, 1_500), Some(1));
        assert_eq!(finder.find(20, 9_000), Some(1), "launched in window 1, ran in window 2");
        assert_eq!(finder.find(25, 2_500), None, "launched between the windows");
        assert_eq!(finder.find(25, 9_000), None);
        assert_eq!(finder.find(31, 9_000), Some(2));
    }

    #[test]
    fn a_stretch_around_a_window_finds_it() {
        let windows = Windows::default();
        windows.open(1_000, None, "profiler", None, false);
        windows.close(1, 2_000, None);
        windows.open(3_000, None, "profiler", None, false);
        windows.close(2, 4_000, None);
        let finder = finder(&windows);
        let within = |start, end| finder.find_within((0, start), (0, end));
        assert_eq!([within(500, 2_500), within(500, 5_000)], [Some(1), Some(2)]);
        assert_eq!(
            [within(100, 900), within(2_100, 2_900), within(4_100, 9_000)],
            [None; 3]
        );
    }

    #[test]
    fn the_window_opened_last_takes_the_record() {
        let windows = Windows::default();
        windows.open(0, Some(0), "region", None, false);
        windows.open(100, Some(10), "region", None, false);
        windows.open(200, Some(20), "region", None, false);
        windows.close(2, 300, Some(30));
        windows.close(3, 400, Some(40));
        windows.close(1, 500, Some(50));
        let finder = finder(&windows);
        let found: Vec<_> = [5, 15, 25, 35, 45, 55].map(|id| finder.find(id, 9_000)).into();
        assert_eq!(found, [Some(1), Some(2), Some(3), Some(3), Some(1), None]);
    }

    #[test]
    fn ids_wrap() {
        let windows = Windows::default();
        windows.open(1_000, Some(u32::MAX - 1), "profiler", None, false);
        windows.close(1, 2_000, Some(3));
        let finder = finder(&windows);
        assert_eq!(finder.find(u32::MAX, 1_500), Some(1));
        assert_eq!(finder.find(2, 1_500), Some(1));
        assert_eq!(finder.find(4, 1_500), None);
    }

    #[test]
    fn far_from_a_boundary_time_decides() {
        let windows = Windows::default();
        windows.open(0, Some(10), "process", None, false);
        // 2^31 calls later the id looks smaller than the mark.
        assert_eq!(finder(&windows).find(9, 10 * NEAR_NS), Some(1));
        windows.open(10 * NEAR_NS, Some(5), "region", None, false);
        let finder = finder(&windows);
        assert_eq!(finder.find(4, 10 * NEAR_NS + 1), Some(1));
        assert_eq!(finder.find(6, 10 * NEAR_NS + 1), Some(2));
    }

    #[test]
    fn without_marks_time_decides() {
        let windows = Windows::default();
        windows.open(1_000, None, "manual", None, false);
        windows.close(1, 2_000, None);
        let finder = finder(&windows);
        assert_eq!(finder.find(5, 999), None);
        assert_eq!(finder.find(5, 1_000), Some(1));
        assert_eq!(finder.find(5, 2_000), Some(1));
        assert_eq!(finder.find(5, 2_001), None);
    }

    #[test]
    fn a_callback_that_came_late_keeps_its_place() {
        let windows = Windows::default();
        windows.open(0, Some(10), "profiler", None, false);
        windows.open(1_000, Some(103), "region", None, false);
        // cuProfilerStop was call 100; whoever held the gate then had marked the region first.
        windows.close(1, 1_001, Some(100));
        let finder = finder(&windows);
        assert_eq!(finder.find(100, 2_000), Some(1));
        assert_eq!(finder.find(102, 2_000), None);
        assert_eq!(finder.find(104, 2_000), Some(2));
    }

    #[test]
    fn many_windows_of_a_long_time() {
        let windows = Windows::default();
        let step = NEAR_NS / 10;
        windows.open(0, Some(0), "process", None, false);
        for number in 1..=1_000_u32 {
            let start_ns = i64::from(number) * step;
            windows.open(start_ns, Some(number * 10), "profiler", None, false);
            windows.close(number + 1, start_ns + step / 2, Some(number * 10 + 5));
        }
        let finder = finder(&windows);
        assert_eq!(finder.find(10_003, 1_000 * step + 1), Some(1_001));
        assert_eq!(finder.find(13, step + 1), Some(2), "also the early ones");
        assert_eq!(finder.find(10_008, 1_000 * step + step * 3 / 4), Some(1), "between");
        assert!(finder.is_mark(10_005) && !finder.is_mark(10_006));
    }

    #[test]
    fn only_an_open_window_closes() {
        let windows = Windows::default();
        assert!(!windows.close(0, 1, None) && !windows.close(1, 1, None));
        assert_eq!(windows.open(2, None, "manual", None, false), 1);
        assert!(windows.close(1, 3, None));
        assert!(!windows.close(1, 4, None));
        assert_eq!(windows.manifest()[0].end_ns, Some(3));
    }

    #[test]
    fn windows_get_on_disk_in_the_order_in_which_they_closed() {
        let windows = Windows::default();
        for number in 1..=3 {
            assert_eq!(
                windows.open(number, None, "region", None, false),
                u32::try_from(number).unwrap()
            );
        }
        windows.close(3, 10, None);
        windows.close(1, 11, None);
        assert_eq!((windows.closed(), windows.sealed()), (2, 0));
        windows.seal(1, 20);
        windows.seal(0, 21);
        let sealed = |windows: &Windows| windows.manifest().iter().map(|w| w.sealed_ns).collect::<Vec<_>>();
        assert_eq!(sealed(&windows), [None, None, Some(20)]);
        let numbers = |closed| {
            windows
                .closed_after(closed)
                .iter()
                .map(|w| w.number)
                .collect::<Vec<_>>()
        };
        assert_eq!((numbers(0), numbers(1), numbers(9)), (vec![3, 1], vec![1], vec![]));
        windows.seal(9, 30);
        assert_eq!((windows.closed(), windows.sealed()), (2, 2));
        assert_eq!(sealed(&windows), [Some(30), None, Some(20)]);
        assert_eq!(windows.open_now().iter().map(|w| w.number).collect::<Vec<_>>(), [2]);
    }

    /// A window as the naive search has it: opened and closed after these ids.
    #[derive(Debug)]
    struct Naive {
        opened: u32,
        closed: Option<u32>,
    }

    /// What happens after some more launches.
    #[derive(Debug, Clone)]
    enum Event {
        Open,
        /// The n-th of the open ones, if there is one.
        Close(usize),
    }

    fn events() -> impl Strategy<Value = Vec<(u32, Event)>> {
        let event = prop_oneof![Just(Event::Open), (0..4_usize).prop_map(Event::Close)];
        prop::collection::vec((0..4_u32, event), 0..40)
    }

    proptest! {
        #[test]
        fn every_id_gets_the_window_that_a_naive_search_gives(
            events in events(),
            base in prop_oneof![Just(1_u32), Just(u32::MAX - 20)],
            late in prop::collection::vec(0..3_u32, 40),
        ) {
            let windows = Windows::default();
            let mut naive: Vec<Naive> = Vec::new();
            let mut id = 0_u32;
            for ((launches, event), late) in events.into_iter().zip(late) {
                // A close may be told late, after launches that are no longer its own.
                id += launches + late;
                let mark = id - late.min(launches);
                match event {
                    Event::Open => {
                        let number = windows.open(i64::from(id), Some(base.wrapping_add(id)), "region", None, false);
                        naive.push(Naive { opened: id, closed: None });
                        prop_assert_eq!(number as usize, naive.len());
                    }
                    Event::Close(nth) => {
                        let open: Vec<_> = (0..naive.len()).filter(|&index| naive[index].closed.is_none()).collect();
                        let Some(&index) = open.get(nth) else { continue };
                        let mark = mark.max(naive[index].opened);
                        naive[index].closed = Some(mark);
                        let number = u32::try_from(index + 1).unwrap();
                        prop_assert!(windows.close(number, i64::from(id), Some(base.wrapping_add(mark))));
                    }
                }
            }
            let finder = finder(&windows);
            for launched in 0..id + 5 {
                let holds = |window: &Naive| launched > window.opened && window.closed.is_none_or(|closed| launched <= closed);
                let expected = naive.iter().rposition(holds).map(|index| u32::try_from(index + 1).unwrap());
                let correlation_id = base.wrapping_add(launched);
                if correlation_id != 0 {
                    prop_assert_eq!(finder.find(correlation_id, 1_000), expected, "id {}", launched);
                }
            }
            let open = naive.iter().filter(|window| window.closed.is_none()).count();
            prop_assert_eq!(windows.open_now().len(), open);
            prop_assert_eq!(windows.closed(), naive.len() - open);
        }
    }
}
