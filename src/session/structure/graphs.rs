//! Layers of a CUDA graph's nodes: the sequence is the same in every launch, so it is looked at once.

use std::collections::BTreeMap;

use crate::session::structure::Spot;
use crate::session::structure::anchors::numbered;
use crate::session::structure::names::Names;
use crate::session::structure::passes::{Pass, passes};

/// Launches that nodes are taken from: a record of the first one may be lost.
const LAUNCHES: u32 = 2;

/// A node.
#[derive(Debug, Clone, Copy)]
struct Node {
    number: u64,
    name: u32,
    /// The layer that ranges say.
    said: Option<u16>,
    /// Among the starts of the first launch.
    rank: usize,
}

/// A graph whose nodes are being collected.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: BTreeMap<u64, Node>,
    launch: Option<i64>,
    launches: u32,
}

impl Graph {
    /// Adds a node. False when there were enough launches, and this one is of a later one.
    pub(crate) fn push(&mut self, launch: i64, number: u64, name: u32, said: Option<u16>) -> bool {
        if self.launch != Some(launch) {
            if self.launches == LAUNCHES {
                return false;
            }
            self.launch = Some(launch);
            self.launches += 1;
        }
        let rank = self.nodes.len();
        let node = Node {
            number,
            name,
            said,
            rank,
        };
        self.nodes.entry(number).or_insert(node);
        true
    }

    /// The place of each node that has one, and how many layers there are; `None` where the graph does not repeat. Nodes
    /// are numbered as they were captured; a graph built otherwise may only show its order as it runs.
    pub(crate) fn layers(&self, names: &Names) -> Option<(Vec<(u64, Spot)>, u16)> {
        let captured: Vec<Node> = self.nodes.values().copied().collect();
        let mut run = captured.clone();
        run.sort_unstable_by_key(|node| node.rank);
        let (by_number, by_start) = (longest_pass(&captured, names), longest_pass(&run, names));
        let length = |pass: &Option<Pass>| pass.as_ref().map_or(0, |pass| pass.end() - pass.start());
        let (order, pass) = if length(&by_start) > length(&by_number) {
            (run, by_start?)
        } else {
            (captured, by_number?)
        };
        let numbered = numbered(&pass, |at| order[at].said, |at| names.is_norm(order[at].name));
        let ends = numbered.starts.iter().skip(1).map(|&(start, _)| start);
        let mut spots = Vec::new();
        for (&(start, layer), end) in numbered.starts.iter().zip(ends.chain([numbered.end])) {
            let Some(layer) = layer else { continue };
            spots.extend(order[start..end].iter().map(|node| (node.number, Spot::Layer(layer))));
        }
        let behind = order.get(numbered.end).filter(|node| names.is_norm(node.name));
        spots.extend(behind.map(|node| (node.number, Spot::FinalNorm)));
        Some((spots, u16::try_from(numbered.starts.len()).unwrap_or(u16::MAX)))
    }
}

/// The pass with most kernels, if these are at least half of all: else the graph is a piece of a step.
fn longest_pass(nodes: &[Node], names: &Names) -> Option<Pass> {
    let text: Vec<u32> = nodes.iter().map(|node| node.name).collect();
    let longest = passes(&text, names, &[], true)
        .into_iter()
        .max_by_key(|pass| pass.end() - pass.start())?;
    (2 * (longest.end() - longest.start()) >= text.len()).then_some(longest)
}
