//! Slices of a track must nest, and kernels of one stream may overlap: those of parallel branches of a graph, and with
//! programmatic dependent launch. Those that do go into lanes beside each other.

/// Finds the lane of each slice. Slices must come in order of start.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// When each lane is free again.
    free_ns: Vec<i64>,
}

impl Lanes {
    /// The first lane that is free then.
    pub(super) fn place(&mut self, start_ns: i64, end_ns: i64) -> usize {
        let lane = self.free_ns.iter().position(|&free| free <= start_ns);
        let lane = lane.unwrap_or_else(|| {
            self.free_ns.push(0);
            self.free_ns.len() - 1
        });
        self.free_ns[lane] = end_ns;
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
                let lane = lanes.place(start, start + length);
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
}
