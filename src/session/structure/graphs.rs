//! Layers of a CUDA graph's nodes: the sequence is the same in every launch, so it is looked at once.

use std::collections::BTreeMap;

use crate::session::structure::names::Names;
use crate::session::structure::passes::{Pass, passes};

/// Launches that nodes are taken from: a record of the first one may be lost.
const LAUNCHES: u32 = 2;

/// A graph whose nodes are being collected.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// Name of each node, and its rank among the starts of the first launch.
    nodes: BTreeMap<u64, (u32, usize)>,
    launch: Option<i64>,
    launches: u32,
}

impl Graph {
    /// Adds a node. False when there were enough launches, and this one is of a later one.
    pub(crate) fn push(&mut self, launch: i64, node: u64, name: u32) -> bool {
        if self.launch != Some(launch) {
            if self.launches == LAUNCHES {
                return false;
            }
            self.launch = Some(launch);
            self.launches += 1;
        }
        let rank = self.nodes.len();
        self.nodes.entry(node).or_insert((name, rank));
        true
    }

    /// The layer of each node that has one, and how many layers there are; `None` where the graph does not repeat. Nodes
    /// are numbered as they were captured; a graph built otherwise may only show its order as it runs.
    pub(crate) fn layers(&self, names: &Names) -> Option<(Vec<(u64, u16)>, u16)> {
        let captured: Vec<_> = self
            .nodes
            .iter()
            .map(|(&node, &(name, rank))| (rank, node, name))
            .collect();
        let mut run = captured.clone();
        run.sort_unstable();
        let (by_number, by_start) = (longest_pass(&captured, names), longest_pass(&run, names));
        let length = |pass: &Option<Pass>| pass.as_ref().map_or(0, |pass| pass.end() - pass.start());
        let (order, pass) = if length(&by_start) > length(&by_number) {
            (run, by_start?)
        } else {
            (captured, by_number?)
        };
        let mut layers = Vec::new();
        for (layer, border) in (0..).zip(pass.borders.windows(2)) {
            layers.extend(order[border[0]..border[1]].iter().map(|&(_, node, _)| (node, layer)));
        }
        Some((layers, u16::try_from(pass.layers()).unwrap_or(u16::MAX)))
    }
}

/// The pass with most kernels, if these are at least half of all: else the graph is a piece of a step.
fn longest_pass(nodes: &[(usize, u64, u32)], names: &Names) -> Option<Pass> {
    let text: Vec<u32> = nodes.iter().map(|&(_, _, name)| name).collect();
    let longest = passes(&text, names, true)
        .into_iter()
        .max_by_key(|pass| pass.end() - pass.start())?;
    (2 * (longest.end() - longest.start()) >= text.len()).then_some(longest)
}
