//! Windows of capture, and the question which one a record belongs to.
//!
//! A record belongs to the window in which its work was *launched*, however late it ran. Launch order is read from
//! CUPTI's correlation ids: one counter for the whole process, marked as a window opens and closes. Ids are 32 bits
//! and wrap, so they decide only near a boundary; farther away the record's own time does, and everywhere where no
//! mark could be had.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::inject::guest::lock;
use crate::schema::manifest;

/// Distance from a boundary beyond which no queued work reaches and time alone decides.
const NEAR_NS: i64 = 60_000_000_000;

/// One start/stop pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) window: manifest::Window,
    /// Last correlation id given out before it opened.
    pub(crate) opened_at: Option<u32>,
    /// Last correlation id given out before it closed.
    pub(crate) closed_at: Option<u32>,
}

impl Span {
    fn holds(&self, correlation_id: u32, start_ns: i64) -> bool {
        let after_start = match self.opened_at {
            Some(mark) if correlation_id != 0 && (start_ns - self.window.start_ns).abs() < NEAR_NS => {
                is_later(correlation_id, mark)
            }
            _ => start_ns >= self.window.start_ns,
        };
        let before_end = match (self.window.end_ns, self.closed_at) {
            (None, _) => true,
            (Some(end_ns), Some(mark)) if correlation_id != 0 && (start_ns - end_ns).abs() < NEAR_NS => {
                !is_later(correlation_id, mark)
            }
            (Some(end_ns), _) => start_ns <= end_ns,
        };
        after_start && before_end
    }
}

fn is_later(id: u32, mark: u32) -> bool {
    id.wrapping_sub(mark).cast_signed() > 0
}

/// Every window of this process.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    spans: Mutex<Vec<Span>>,
    version: AtomicU64,
}

impl Windows {
    /// Opens the next window.
    pub(crate) fn open(&self, start_ns: i64, mark: Option<u32>, trigger: &str, name: Option<String>) -> u32 {
        let mut spans = lock(&self.spans);
        let number = u32::try_from(spans.len()).unwrap_or(u32::MAX).saturating_add(1);
        let window = manifest::Window {
            number,
            start_ns,
            end_ns: None,
            trigger: trigger.to_owned(),
            name,
            sealed_ns: None,
        };
        spans.push(Span {
            window,
            opened_at: mark,
            closed_at: None,
        });
        self.version.fetch_add(1, Ordering::Release);
        number
    }

    /// Closes the open window, if one is.
    pub(crate) fn close(&self, end_ns: i64, mark: Option<u32>) -> Option<u32> {
        let mut spans = lock(&self.spans);
        let span = spans.last_mut().filter(|span| span.window.end_ns.is_none())?;
        span.window.end_ns = Some(end_ns);
        span.closed_at = mark;
        self.version.fetch_add(1, Ordering::Release);
        Some(span.window.number)
    }

    /// Windows that have closed.
    pub(crate) fn closed(&self) -> usize {
        lock(&self.spans)
            .iter()
            .take_while(|span| span.window.end_ns.is_some())
            .count()
    }

    /// Windows before the first that is not on disk.
    pub(crate) fn first_unsealed(&self) -> usize {
        lock(&self.spans)
            .iter()
            .take_while(|span| span.window.sealed_ns.is_some())
            .count()
    }

    /// The first `closed` windows are on disk.
    pub(crate) fn sealed(&self, closed: usize, now_ns: i64) {
        for span in lock(&self.spans).iter_mut().take(closed) {
            span.window.sealed_ns.get_or_insert(now_ns);
        }
    }

    /// Number of the newest window.
    pub(crate) fn newest(&self) -> Option<u32> {
        lock(&self.spans).last().map(|span| span.window.number)
    }

    /// For the process file.
    pub(crate) fn manifest(&self) -> Vec<manifest::Window> {
        lock(&self.spans).iter().map(|span| span.window.clone()).collect()
    }
}

/// The writer's own copy, renewed when a window opened or closed.
#[derive(Debug, Default)]
pub(crate) struct WindowFinder {
    spans: Vec<Span>,
    version: u64,
}

impl WindowFinder {
    /// Takes over what changed.
    pub(crate) fn renew(&mut self, windows: &Windows) {
        let version = windows.version.load(Ordering::Acquire);
        if version != self.version {
            self.spans.clone_from(&lock(&windows.spans));
            self.version = version;
        }
    }

    /// Number of the window that a record belongs to.
    pub(crate) fn find(&self, correlation_id: u32, start_ns: i64) -> Option<u32> {
        // Beyond a window that closed long before, no earlier one can hold it: the search stays short however many
        // windows there were.
        let span = self
            .spans
            .iter()
            .rev()
            .take_while(|span| span.window.end_ns.is_none_or(|end_ns| end_ns + NEAR_NS > start_ns))
            .find(|span| span.holds(correlation_id, start_ns))?;
        Some(span.window.number)
    }

    /// True for the driver call by which a window was marked: ours, not the program's.
    pub(crate) fn is_mark(&self, correlation_id: u32) -> bool {
        let mark = Some(correlation_id);
        self.spans
            .iter()
            .rev()
            .any(|span| span.opened_at == mark || span.closed_at == mark)
    }

    /// All windows, for their table.
    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finder(windows: &Windows) -> WindowFinder {
        let mut finder = WindowFinder::default();
        finder.renew(windows);
        finder
    }

    #[test]
    fn work_launched_before_the_stop_counts_however_late_it_runs() {
        let windows = Windows::default();
        windows.open(1_000, Some(10), "profiler", None);
        windows.close(2_000, Some(20));
        windows.open(3_000, Some(30), "profiler", None);
        let finder = finder(&windows);
        assert_eq!(finder.find(15, 1_500), Some(1));
        assert_eq!(finder.find(20, 9_000), Some(1), "launched in window 1, ran in window 2");
        assert_eq!(finder.find(25, 2_500), None, "launched between the windows");
        assert_eq!(finder.find(25, 9_000), None);
        assert_eq!(finder.find(31, 9_000), Some(2));
    }

    #[test]
    fn ids_wrap() {
        let windows = Windows::default();
        windows.open(1_000, Some(u32::MAX - 1), "profiler", None);
        windows.close(2_000, Some(3));
        let finder = finder(&windows);
        assert_eq!(finder.find(u32::MAX, 1_500), Some(1));
        assert_eq!(finder.find(2, 1_500), Some(1));
        assert_eq!(finder.find(4, 1_500), None);
    }

    #[test]
    fn far_from_a_boundary_time_decides() {
        let windows = Windows::default();
        windows.open(0, Some(10), "process", None);
        // 2^31 calls later the id looks smaller than the mark.
        assert_eq!(finder(&windows).find(9, 10 * NEAR_NS), Some(1));
    }

    #[test]
    fn without_marks_time_decides() {
        let windows = Windows::default();
        windows.open(1_000, None, "manual", None);
        windows.close(2_000, None);
        let finder = finder(&windows);
        assert_eq!(finder.find(5, 999), None);
        assert_eq!(finder.find(5, 1_000), Some(1));
        assert_eq!(finder.find(5, 2_001), None);
    }

    #[test]
    fn old_windows_are_not_searched() {
        let windows = Windows::default();
        let step = NEAR_NS / 10;
        for number in 0..1_000_u32 {
            let start_ns = i64::from(number) * step;
            windows.open(start_ns, Some(number * 10), "profiler", None);
            windows.close(start_ns + step / 2, Some(number * 10 + 5));
        }
        let finder = finder(&windows);
        assert_eq!(finder.find(9_993, 999 * step + 1), Some(1_000));
        assert_eq!(
            finder.find(13, step + 1),
            Some(2),
            "also the early ones while their records come"
        );
        assert_eq!(finder.find(9_998, 999 * step + step * 3 / 4), None);
        assert!(finder.is_mark(9_995) && !finder.is_mark(9_996));
    }

    #[test]
    fn close_without_open_is_nothing() {
        let windows = Windows::default();
        assert_eq!(windows.close(1, None), None);
        assert_eq!(windows.open(2, None, "manual", None), 1);
        assert_eq!(windows.close(3, None), Some(1));
        assert_eq!(windows.close(4, None), None);
    }
}
