//! A step in short: what the rules look at. Cut as `colonel show --by step` cuts; `sql.rs` says the same in SQL.

use serde::Serialize;

use crate::analysis::steps::{Item, Layer};

/// A step of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Process.
    pub pid: u32,
    /// CUDA ordinal in it.
    pub device_id: u32,
    /// Start of its first kernel, Unix ns.
    pub start_ns: i64,
    /// End of its last, Unix ns.
    pub end_ns: i64,
    /// Kernels.
    pub kernels: u64,
    /// Waits between two of them.
    pub gaps: u64,
    /// Those together, ns.
    pub gap_ns: i64,
    /// The graph that holds its layers, if one does.
    pub graph_id: Option<u32>,
    /// Median of its layers' grids in x, which grows with the tokens.
    pub grid_x: i32,
    /// Wait since the end of the step before, in the same window, ns.
    pub wait_ns: Option<i64>,
}

/// Steps with equal keys do the same work: as many kernels, of the same graph, on as many tokens.
pub(crate) type WorkKey = (u32, u32, Option<u32>, u64, i32);

impl Step {
    /// From the start of the first kernel to the end of the last, ns.
    pub fn length_ns(&self) -> i64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    pub(crate) fn work(&self) -> WorkKey {
        (self.pid, self.device_id, self.graph_id, self.kernels, self.grid_x)
    }
}

/// Makes the steps of one device.
#[derive(Debug, Default)]
pub(crate) struct StepMaker {
    /// End and window of the last one.
    last: Option<(i64, u32)>,
}

impl StepMaker {
    pub(crate) fn make(&mut self, (pid, device_id): (u32, u32), items: &[Item]) -> Option<Step> {
        let (first, last) = (items.first()?, items.last()?);
        let (mut end_ns, mut gaps, mut gap_ns) = (first.start_ns, 0, 0_i64);
        for item in items {
            let gap = item.start_ns.saturating_sub(end_ns);
            if gap > 0 {
                gaps += 1;
                gap_ns = gap_ns.saturating_add(gap);
            }
            end_ns = end_ns.max(item.end_ns);
        }
        let numbered = || items.iter().filter(|item| matches!(item.layer, Layer::Number(_)));
        let graph_id = numbered().next().and_then(|item| item.graph);
        let graph_id = graph_id.filter(|&graph| numbered().all(|item| item.graph == Some(graph)));
        let mut grids: Vec<i32> = numbered().map(|item| item.grid_x).collect();
        let middle = grids.len().div_ceil(2).saturating_sub(1);
        let grid_x = match grids.is_empty() {
            true => 0,
            false => *grids.select_nth_unstable(middle).1,
        };
        let wait_ns = self.last.filter(|&(_, window)| window == first.window);
        let wait_ns = wait_ns.map(|(before_ns, _)| first.start_ns.saturating_sub(before_ns).max(0));
        self.last = Some((end_ns, last.window));
        Some(Step {
            pid,
            device_id,
            start_ns: first.start_ns,
            end_ns,
            kernels: items.len() as u64,
            gaps,
            gap_ns,
            graph_id,
            grid_x,
            wait_ns,
        })
    }
}
