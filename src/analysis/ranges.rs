//! Kernels by the ranges that they lie in, as a tree: those open at the launch, and within them those in which a graph's
//! node was captured.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::analysis::RunMap;
use crate::analysis::durations::{DurationCounts, DurationStats};

/// The kernels within a range.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RangeSummary {
    /// The range and those around it, outermost first, joined by `/`; null for kernels within none.
    pub nvtx_path: Option<String>,
    /// Ranges around it.
    pub depth: usize,
    /// Part of the time of all kernels, 0 to 1.
    pub share: f64,
    /// Kernels in it and in no range within it,
    pub own_kernels: u64,
    /// and their time, ns.
    pub own_ns: i64,
    /// Durations of all kernels within it.
    #[serde(flatten)]
    pub durations: DurationStats,
}

impl RangeSummary {
    /// The longest in total, `limit` at most, in the same order: a range is never without those around it.
    pub fn longest(ranges: &[Self], limit: usize) -> Vec<&Self> {
        let mut chosen: Vec<usize> = (0..ranges.len()).collect();
        chosen.sort_by_key(|&at| (Reverse(ranges[at].durations.total_ns), at));
        chosen.truncate(limit);
        chosen.sort_unstable();
        chosen.into_iter().map(|at| &ranges[at]).collect()
    }
}

/// Collects durations by path.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    /// Numbers of the paths at launch and at capture.
    by_paths: RunMap<(Option<u32>, Option<u32>), DurationCounts>,
}

#[derive(Debug, Default)]
struct Node {
    own: (u64, i64),
    all: DurationCounts,
}

impl Ranges {
    /// Adds a kernel. One that was launched alone has the same path twice.
    pub(crate) fn add(&mut self, launch: Option<u32>, path: Option<u32>, duration_ns: i64) {
        let launch = launch.filter(|_| launch != path);
        self.by_paths.of((launch, path)).add(duration_ns);
    }

    /// The tree, `text` giving a path by its number.
    pub(crate) fn tree(&self, text: impl Fn(u32) -> String, total_ns: f64) -> Vec<RangeSummary> {
        let mut nodes = BTreeMap::<Option<String>, Node>::new();
        for (&(launch, path), durations) in self.by_paths.iter() {
            let paths: Vec<String> = [launch, path].into_iter().flatten().map(&text).collect();
            let whole = (!paths.is_empty()).then(|| paths.join("/"));
            if let Some(whole) = &whole {
                for (end, _) in whole.match_indices('/') {
                    nodes
                        .entry(Some(whole[..end].to_owned()))
                        .or_default()
                        .all
                        .merge(durations);
                }
            }
            let node = nodes.entry(whole).or_default();
            node.all.merge(durations);
            if let Some(own) = durations.stats() {
                node.own = (node.own.0 + own.count, node.own.1.saturating_add(own.total_ns));
            }
        }
        let ranges = nodes.into_iter().filter_map(|(nvtx_path, node)| {
            let durations = node.all.stats()?;
            Some(RangeSummary {
                depth: nvtx_path.as_deref().map_or(0, |path| path.matches('/').count()),
                nvtx_path,
                share: durations.total_ns as f64 / total_ns,
                own_kernels: node.own.0,
                own_ns: node.own.1,
                durations,
            })
        });
        in_order(ranges.collect())
    }
}

/// A range before those within it, of neighbours the longest in total first.
fn in_order(ranges: Vec<RangeSummary>) -> Vec<RangeSummary> {
    let totals: FxHashMap<Option<&str>, i64> = ranges
        .iter()
        .map(|range| (range.nvtx_path.as_deref(), range.durations.total_ns))
        .collect();
    let key = |range: &RangeSummary| -> Vec<(Reverse<i64>, Option<String>)> {
        let Some(path) = &range.nvtx_path else {
            return vec![(Reverse(range.durations.total_ns), None)];
        };
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        let place = |end: usize| (Reverse(totals[&Some(&path[..end])]), Some(path[..end].to_owned()));
        ends.map(place).collect()
    };
    let mut keyed: Vec<_> = ranges.iter().map(|range| (key(range), range.clone())).collect();
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    keyed.into_iter().map(|(_, range)| range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(kernels: &[(Option<u32>, Option<u32>, i64)]) -> Vec<RangeSummary> {
        let texts = ["decode", "decode/forward", "layer 0", "layer 1/mlp", "a//b"];
        let mut ranges = Ranges::default();
        kernels
            .iter()
            .for_each(|&(launch, path, ns)| ranges.add(launch, path, ns));
        ranges.tree(|path| texts[path as usize].to_owned(), 100.0)
    }

    #[test]
    fn ranges_are_a_tree_with_totals() {
        let ranges = tree(&[
            (Some(1), Some(2), 10),
            (Some(1), Some(3), 30),
            (Some(0), Some(0), 5),
            (None, None, 50),
            (None, Some(4), 1),
            (Some(1), None, 4),
        ]);
        let lines: Vec<_> = ranges
            .iter()
            .map(|range| {
                let path = range.nvtx_path.as_deref().unwrap_or("-");
                (
                    path,
                    range.depth,
                    range.durations.total_ns,
                    range.own_ns,
                    range.own_kernels,
                )
            })
            .collect();
        assert_eq!(
            lines,
            [
                ("-", 0, 50, 50, 1),
                ("decode", 0, 49, 5, 1),
                ("decode/forward", 1, 44, 4, 1),
                ("decode/forward/layer 1", 2, 30, 0, 0),
                ("decode/forward/layer 1/mlp", 3, 30, 30, 1),
                ("decode/forward/layer 0", 2, 10, 10, 1),
                ("a", 0, 1, 0, 0),
                ("a/", 1, 1, 0, 0),
                ("a//b", 2, 1, 1, 1),
            ]
        );
        let longest: Vec<_> = RangeSummary::longest(&ranges, 4);
        let totals: Vec<i64> = longest.iter().map(|range| range.durations.total_ns).collect();
        assert_eq!(totals, [50, 49, 44, 30]);
        assert_eq!(longest[3].depth, 2, "not the range within it, which is as long");
        assert!(tree(&[]).is_empty());
    }
}
