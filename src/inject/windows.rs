//! Windows of capture, and the question which one a record belongs to.
//!
//! A record belongs to the window opened last of those in which its work was *launched*, however late it ran. Launch
//! order is read from CUPTI's correlation ids: one counter for the whole process, marked as a window opens and closes.
//! Ids are 32 bits and wrap, so they decide only near a boundary; farther away the record's own time does, and
//! everywhere where no mark could be had.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::inject::guest::lock;
use crate::schema::manifest;

/// Distance from a boundary beyond which no queued work reaches and time alone decides.
const NEAR_NS: i64 = 60_000_000_000;

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
    fn window(&mut self, number: u32) -> Option<&mut manifest::Window> {
        self.windows.get_mut(number.checked_sub(1)? as usize)
    }

    fn add(&mut self, boundary: Boundary) {
        let before = self.boundaries.iter().rposition(|known| !known.is_after(&boundary));
        let at = before.map_or(0, |index| index + 1);
        self.boundaries.insert(at, boundary);
        // Back from what is open now.
        let mut open = self.open.clone();
        for boundary in self.boundaries[at..].iter_mut().rev() {
            boundary.holder = open.last().copied();
            if boundary.opens {
                open.remove(&boundary.window);
            } else {
                open.insert(boundary.window);
            }
        }
    }
}

impl Windows {
    /// Opens the next window.
    pub(crate) fn open(&self, start_ns: i64, mark: Option<u32>, trigger: &str, name: Option<String>) -> u32 {
        let mut known = lock(&self.known);
        let number = u32::try_from(known.windows.len()).unwrap_or(u32::MAX).saturating_add(1);
        known.windows.push(manifest::Window {
            number,
            start_ns,
            end_ns: None,
            trigger: trigger.to_owned(),
            name,
            sealed_ns: None,
        });
        known.open.insert(number);
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

    /// Those that are open, the newest last.
    pub(crate) fn open_now(&self) -> Vec<manifest::Window> {
        let mut known = lock(&self.known);
        let open = known.open.clone();
        open.into_iter()
            .filter_map(|number| known.window(number).cloned())
            .collect()
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

    /// Number of the newest window.
    pub(crate) fn newest(&self) -> Option<u32> {
        lock(&self.known).windows.last().map(|window| window.number)
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

    /// True for the driver call by which a window was marked: ours, not the program's.
    pub(crate) fn is_mark(&self, correlation_id: u32) -> bool {
        let mark = Some(correlation_id);
        self.boundaries.iter().rev().any(|boundary| boundary.mark == mark)
    }
}

#[cfg(test)]
mod tests;
