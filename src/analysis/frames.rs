//! What a piece of work counts for: its own window, each window that this one lies within, and the stretch of time that
//! overlapping windows cover together. Idle time is counted by stretch, so no time counts twice, and none between
//! windows.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::schema::manifest::{Process, Window};
use crate::session::{Selection, end_of, is_within};

/// What time is taken of, in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Frame {
    /// A window with those within it.
    Window(u32),
    /// Windows that overlap, none of which holds the others; by the number of the first.
    Stretch(u32),
}

/// Process, device, window: what a row says of where it is from.
pub(crate) type Origin = (u32, u32, u32);

/// Start and end, Unix ns; no end where a window was not closed.
pub(crate) type Bounds = (i64, Option<i64>);

/// Frames of all windows that count.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    of_window: BTreeMap<(u32, u32), Vec<Frame>>,
    /// Frames that cover a process's windows without overlap.
    stretches: BTreeMap<(u32, Frame), Bounds>,
    /// Windows that no process file tells of do not count.
    only_known: bool,
}

impl Frames {
    /// Of the selected windows whose records were taken, of all of these without a selection.
    pub(crate) fn new(processes: &[Process], selection: Option<&Selection>) -> Self {
        Self::among(processes, selection, |window| !window.sampled)
    }

    /// The same for what is taken in every window.
    pub(crate) fn of_all(processes: &[Process], selection: Option<&Selection>) -> Self {
        Self::among(processes, selection, |_| true)
    }

    fn among(processes: &[Process], selection: Option<&Selection>, is_meant: fn(&Window) -> bool) -> Self {
        // Two processes of a session can have had the same pid, one after the other.
        let mut by_pid = BTreeMap::<u32, BTreeMap<u32, &Window>>::new();
        for process in processes {
            let counts = |window: &&Window| selection.is_none_or(|s| s.contains(process.pid, window.number));
            let windows = process.windows.iter().filter(|window| is_meant(window)).filter(counts);
            let known = by_pid.entry(process.pid).or_default();
            known.extend(windows.map(|window| (window.number, window)));
        }
        let mut frames = Self {
            only_known: selection.is_some(),
            ..Self::default()
        };
        for (pid, windows) in by_pid {
            let mut windows: Vec<&Window> = windows.into_values().collect();
            windows.sort_by_key(|window| (window.start_ns, window.number));
            let mut rest = windows.as_slice();
            while let Some(end) = stretch_length(rest) {
                frames.add_stretch(pid, &rest[..end]);
                rest = &rest[end..];
            }
        }
        frames
    }

    /// Windows that overlap, in order of start.
    fn add_stretch(&mut self, pid: u32, windows: &[&Window]) {
        let Some(&first) = windows.first() else { return };
        let mut open: Vec<&Window> = Vec::new();
        for &window in windows {
            open.retain(|before| end_of(before) >= window.start_ns);
            open.push(window);
            let holding = open.iter().filter(|outer| is_within(window, outer));
            let frames = holding.map(|outer| Frame::Window(outer.number)).collect();
            self.of_window.insert((pid, window.number), frames);
        }
        let end_ns = windows.iter().map(|window| end_of(window)).max();
        let bounds = (first.start_ns, end_ns.filter(|&end| end < i64::MAX));
        let mut frame = Frame::Window(first.number);
        if !windows.iter().all(|window| is_within(window, first)) {
            frame = Frame::Stretch(first.number);
            for window in windows {
                self.of_window.entry((pid, window.number)).or_default().push(frame);
            }
        }
        self.stretches.insert((pid, frame), bounds);
    }

    /// What a row of this window counts for.
    pub(crate) fn of(&self, pid: u32, window: u32) -> Cow<'_, [Frame]> {
        match self.of_window.get(&(pid, window)) {
            Some(frames) => Cow::Borrowed(frames),
            None if self.only_known => Cow::Borrowed(&[]),
            None => Cow::Owned(vec![Frame::Window(window)]),
        }
    }

    /// The bounds of a frame that is a stretch of its own.
    pub(crate) fn stretch(&self, pid: u32, frame: Frame) -> Option<Bounds> {
        self.stretches.get(&(pid, frame)).copied()
    }
}

/// How many of the windows, in order of start, the first stretch has.
fn stretch_length(windows: &[&Window]) -> Option<usize> {
    let mut reached = end_of(windows.first()?);
    let ends = windows.iter().position(|window| {
        let is_apart = window.start_ns > reached;
        reached = reached.max(end_of(window));
        is_apart
    });
    Some(ends.unwrap_or(windows.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(windows: &[(i64, Option<i64>)]) -> Frames {
        let folder = tempfile::tempdir().unwrap();
        let mut guest = crate::session::synthetic::SyntheticGuest::new(folder.path(), 7);
        let template = guest.process.windows[0].clone();
        guest.process.windows = windows
            .iter()
            .zip(1..)
            .map(|(&(start_ns, end_ns), number)| Window {
                number,
                start_ns,
                end_ns,
                ..template.clone()
            })
            .collect();
        Frames::new(&[guest.process], None)
    }

    #[test]
    fn nested_windows_are_one_stretch_by_the_outer_one() {
        use Frame::Window;
        let frames = frames(&[
            (0, Some(100)),
            (10, Some(50)),
            (20, Some(30)),
            (60, Some(100)),
            (200, None),
        ]);
        assert_eq!(*frames.of(7, 1), [Window(1)]);
        assert_eq!(*frames.of(7, 3), [Window(1), Window(2), Window(3)]);
        assert_eq!(*frames.of(7, 4), [Window(1), Window(4)]);
        assert_eq!(frames.stretch(7, Window(1)), Some((0, Some(100))));
        assert_eq!(frames.stretch(7, Window(2)), None);
        assert_eq!(frames.stretch(7, Window(5)), Some((200, None)));
        assert_eq!(*frames.of(7, 9), [Window(9)], "of a process file that is broken");
    }

    #[test]
    fn windows_that_overlap_are_a_stretch_of_their_own() {
        use Frame::{Stretch, Window};
        let frames = frames(&[(0, Some(10)), (5, Some(20)), (6, Some(9)), (21, Some(30))]);
        assert_eq!(*frames.of(7, 1), [Window(1), Stretch(1)]);
        assert_eq!(*frames.of(7, 3), [Window(1), Window(2), Window(3), Stretch(1)]);
        assert_eq!(frames.stretch(7, Stretch(1)), Some((0, Some(20))));
        assert_eq!(frames.stretch(7, Window(1)), None);
        assert_eq!(*frames.of(7, 4), [Window(4)]);
    }
}
