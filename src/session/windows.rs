//! Windows as stretches of time that nest and overlap: which lies within which, how long they are together, and which
//! of them a user means.

use std::collections::BTreeSet;

use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt32Type;
use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;

use crate::schema::manifest::{Session as Manifest, Window};
use crate::session::SessionError;

/// Windows that an error lists.
const LISTED: usize = 10;

/// Whether the inner window lies within the outer one of the same process. Each lies within itself.
pub fn is_within(inner: &Window, outer: &Window) -> bool {
    inner.number >= outer.number && inner.start_ns >= outer.start_ns && end_of(inner) <= end_of(outer)
}

/// Where a window ends; one that was not closed has no end.
pub fn end_of(window: &Window) -> i64 {
    window.end_ns.unwrap_or(i64::MAX)
}

/// Time in which any of a process's windows was open; those not closed were until `end_ns`.
pub fn covered_ns<'a>(windows: impl IntoIterator<Item = &'a Window>, end_ns: i64) -> u64 {
    let mut intervals: Vec<_> = windows
        .into_iter()
        .map(|window| (window.start_ns, window.end_ns.unwrap_or(end_ns)))
        .collect();
    intervals.sort_unstable();
    let (mut covered, mut reached) = (0_u64, i64::MIN);
    for (start, end) in intervals {
        covered += u64::try_from(end.saturating_sub(start.max(reached))).unwrap_or(0);
        reached = reached.max(end);
    }
    covered
}

/// The windows that a user means, in all processes, with those within them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    asked: String,
    /// Process and number.
    windows: BTreeSet<(u32, u32)>,
}

impl Selection {
    /// By number, else by name.
    pub fn find(manifest: &Manifest, asked: &str) -> Result<Self, SessionError> {
        let number: Option<u32> = asked.parse().ok();
        let by_number = Self::matching(manifest, asked, |window| Some(window.number) == number);
        let found = if by_number.windows.is_empty() {
            Self::matching(manifest, asked, |window| window.name.as_deref() == Some(asked))
        } else {
            by_number
        };
        if found.windows.is_empty() {
            return Err(SessionError::NoSuchWindow {
                id: manifest.id.clone(),
                asked: asked.to_owned(),
                known: known(manifest),
            });
        }
        Ok(found)
    }

    fn matching(manifest: &Manifest, asked: &str, is_meant: impl Fn(&Window) -> bool) -> Self {
        let mut windows = BTreeSet::new();
        for process in &manifest.processes {
            let mut in_order: Vec<&Window> = process.windows.iter().collect();
            in_order.sort_by_key(|window| (window.start_ns, window.number));
            // Those meant that are still open when the next one opens.
            let mut open: Vec<&Window> = Vec::new();
            for window in in_order {
                open.retain(|before| end_of(before) >= window.start_ns);
                if is_meant(window) {
                    open.push(window);
                }
                if open.iter().any(|outer| is_within(window, outer)) {
                    windows.insert((process.pid, window.number));
                }
            }
        }
        Self {
            asked: asked.to_owned(),
            windows,
        }
    }

    /// What was asked for: a number or a name.
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// All of them, as process and number.
    pub fn windows(&self) -> &BTreeSet<(u32, u32)> {
        &self.windows
    }

    /// Whether a window is one of them.
    pub fn contains(&self, pid: u32, window: u32) -> bool {
        self.windows.contains(&(pid, window))
    }

    /// The rows of these windows, of a batch that has the columns `pid` and `window`.
    pub fn filter(&self, batch: &RecordBatch) -> RecordBatch {
        let numbers = |name| {
            let column = batch.column_by_name(name)?;
            Some(column.as_primitive::<UInt32Type>().values())
        };
        let (Some(pids), Some(windows)) = (numbers("pid"), numbers("window")) else {
            return batch.clone();
        };
        // Rows come in long runs of one window.
        let mut last = None;
        let kept = pids.iter().zip(windows).map(|(&pid, &window)| match last {
            Some((key, kept)) if key == (pid, window) => kept,
            _ => {
                let kept = self.contains(pid, window);
                last = Some(((pid, window), kept));
                kept
            }
        });
        let kept = BooleanArray::from(kept.collect::<Vec<bool>>());
        // The mask is as long as the batch, which is all that could be wrong.
        filter_record_batch(batch, &kept).unwrap_or_else(|_| batch.slice(0, 0))
    }
}

/// The windows that there are, in words.
fn known(manifest: &Manifest) -> String {
    let windows = manifest.processes.iter().flat_map(|process| &process.windows);
    let described: BTreeSet<(u32, Option<&str>)> = windows.map(|w| (w.number, w.name.as_deref())).collect();
    if described.is_empty() {
        return "it has none".to_owned();
    }
    let mut words: Vec<String> = described
        .iter()
        .take(LISTED)
        .map(|(number, name)| name.map_or_else(|| number.to_string(), |name| format!("{number} (`{name}`)")))
        .collect();
    if described.len() > LISTED {
        words.push(format!("and {} more", described.len() - LISTED));
    }
    format!("there are {}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nested_and_open_windows_lie_within_others() {
        let outer = Window::of_region(1, 0, Some(100));
        let open = Window::of_region(3, 60, None);
        assert!(is_within(&outer, &outer));
        assert!(is_within(&Window::of_region(2, 10, Some(100)), &outer));
        assert!(!is_within(&Window::of_region(2, 10, Some(101)), &outer));
        assert!(!is_within(&open, &outer) && is_within(&open, &Window::of_region(2, 50, None)));
        let twins = (Window::of_region(1, 5, Some(9)), Window::of_region(2, 5, Some(9)));
        assert!(is_within(&twins.1, &twins.0) && !is_within(&twins.0, &twins.1));
    }

    proptest! {
        #[test]
        fn time_in_several_windows_counts_once(intervals in prop::collection::vec((0..100_i64, prop::option::of(0..30_i64)), 0..12)) {
            let windows: Vec<_> = intervals
                .iter()
                .zip(1..)
                .map(|(&(start, length), number)| Window::of_region(number, start, length.map(|length| start + length)))
                .collect();
            let mut open = [false; 200];
            for window in &windows {
                let end = window.end_ns.unwrap_or(150);
                (window.start_ns..end).for_each(|ns| open[usize::try_from(ns).unwrap()] = true);
            }
            prop_assert_eq!(covered_ns(&windows, 150), open.iter().filter(|&&open| open).count() as u64);
        }
    }
}
