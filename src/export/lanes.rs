//! Slices of a track must nest. Kernels of one stream may overlap, those of parallel branches of a graph and with
//! programmatic dependent launch; so may ranges of two NVTX domains. Those that do go into lanes beside each other.

/// Finds the lane of each slice. Slices must come in order of start.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// When what is open in each lane ends, the innermost last.
    open_ns: Vec<Vec<i64>>,
}

impl Lanes {
    /// The first lane that is free then; with `nests`, or in which something lasts longer.
    pub(super) fn place(&mut self, start_ns: i64, end_ns: i64, nests: bool) -> usize {
        let has_room = |open: &mut Vec<i64>| {
            while open.pop_if(|end| *end <= start_ns).is_some() {}
            open.last().is_none_or(|&end| nests && end_ns <= end)
        };
        let lane = self.open_ns.iter_mut().position(has_room);
        let lane = lane.unwrap_or_else(|| {
            self.open_ns.push(Vec::new());
            self.open_ns.len() - 1
        });
        self.open_ns[lane].push(end_ns);
        lane
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_overlaps_in_a_lane_and_no_lane_is_wasted(
            mut slices in prop::collection::vec((0_i64..500, 0_i64..50), 1..200)
        ) {
            slices.sort_unstable();
            let mut lanes = Lanes::default();
            let mut placed: Vec<Vec<(i64, i64)>> = Vec::new();
            for (start, length) in slices {
                let lane = lanes.place(start, start + length, false);
                if lane == placed.len() {
                    // Each lane before it was taken.
                    prop_assert!(placed.iter().all(|lane| lane.last().is_some_and(|&(_, end)| end > start)));
                    placed.push(Vec::new());
                }
                placed[lane].push((start, start + length));
            }
            for lane in placed {
                prop_assert!(lane.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            }
        }
    }

    #[test]
    fn what_lies_in_another_shares_its_lane_if_it_may() {
        let placed = |nests| {
            let mut lanes = Lanes::default();
            [(0, 10), (2, 8), (3, 9), (8, 10), (10, 12)].map(|(start, end)| lanes.place(start, end, nests))
        };
        assert_eq!(placed(true), [0, 0, 1, 0, 0]);
        assert_eq!(placed(false), [0, 1, 2, 1, 0]);
    }
}
