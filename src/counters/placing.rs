//! Which window a sample lies in.

use crate::schema::manifest::Window;

/// Windows of a process, by time.
#[derive(Debug, Default)]
pub(super) struct Placing {
    /// From this time on, this window is the one opened last of those that are open.
    holders: Vec<(i64, Option<u32>)>,
}

impl Placing {
    pub(super) fn new(windows: &[Window]) -> Self {
        let ends = windows.iter().filter_map(|window| window.end_ns);
        let mut times: Vec<i64> = windows.iter().map(|window| window.start_ns).chain(ends).collect();
        times.sort_unstable();
        times.dedup();
        let holder = |time: i64| {
            let is_open = |window: &&Window| window.start_ns <= time && window.end_ns.is_none_or(|end| time < end);
            windows.iter().filter(is_open).map(|window| window.number).max()
        };
        Self {
            holders: times.into_iter().map(|time| (time, holder(time))).collect(),
        }
    }

    /// Number of the window, none for a sample that lies outside of all.
    pub(super) fn window_of(&self, start_ns: i64, end_ns: i64) -> Option<u32> {
        let middle = start_ns + (end_ns - start_ns) / 2;
        let after = self.holders.partition_point(|(time, _)| *time <= middle);
        self.holders.get(after.checked_sub(1)?)?.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_opened_last_has_the_sample() {
        let placing = Placing::new(&[
            Window::of_region(1, 100, Some(500)),
            Window::of_region(2, 200, Some(300)),
            Window::of_region(3, 600, None),
        ]);
        let at = |time: i64| placing.window_of(time - 5, time + 5);
        assert_eq!([at(99), at(100), at(250), at(300)], [None, Some(1), Some(2), Some(1)]);
        assert_eq!([at(500), at(600), at(9_000)], [None, Some(3), Some(3)]);
        assert_eq!(Placing::new(&[]).window_of(1, 2), None);
    }
}
