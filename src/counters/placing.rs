//! Which window a sample lies in.

use std::collections::BTreeMap;

use crate::schema::manifest::Window;

/// Windows of a process, by time.
#[derive(Debug, Default)]
pub(super) struct Placing {
    /// From this time on, this window is the one opened last of those that are open.
    holders: Vec<(i64, Option<u32>)>,
}

impl Placing {
    pub(super) fn new(windows: &[Window]) -> Self {
        let opened = windows.iter().map(|window| (window.start_ns, true, window.number));
        let closed = windows
            .iter()
            .filter_map(|window| Some((window.end_ns?, false, window.number)));
        let mut turns: Vec<(i64, bool, u32)> = opened.chain(closed).collect();
        turns.sort_unstable_by_key(|(time, ..)| *time);
        let mut open = BTreeMap::<u32, i32>::new();
        let mut holders: Vec<(i64, Option<u32>)> = Vec::with_capacity(turns.len());
        for (time, opens, number) in turns {
            // One that opens and closes at once may do so in either order.
            *open.entry(number).or_default() += if opens { 1 } else { -1 };
            open.retain(|_, count| *count != 0);
            let holder = open
                .iter()
                .rev()
                .find(|(_, count)| **count > 0)
                .map(|(number, _)| *number);
            match holders.last_mut() {
                Some((same, last)) if *same == time => *last = holder,
                _ => holders.push((time, holder)),
            }
        }
        Self { holders }
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
