//! Kernels by name: how often, how long, with which grid and block; and by process and device.

use std::collections::BTreeMap;

use arrow_array::{Array as _, RecordBatch};
use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::analysis::columns::{EntryMap, i32s, i64s, texts, u32s};
use crate::analysis::durations::DurationCounts;
use crate::analysis::frames::Origin;

/// Grid and block of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize)]
pub struct LaunchShape {
    /// Grid, in blocks.
    pub grid: [i32; 3],
    /// Block, in threads.
    pub block: [i32; 3],
}

/// Kernels of one name.
#[derive(Debug, Clone, Default)]
pub struct KernelGroup {
    /// Durations.
    pub durations: DurationCounts,
    shapes: FxHashMap<LaunchShape, u64>,
    /// Kernels come in runs of one shape: those of the last are not in `shapes` yet.
    run: (LaunchShape, u64),
}

impl KernelGroup {
    pub(crate) fn add(&mut self, duration_ns: i64, shape: LaunchShape) {
        self.durations.add(duration_ns);
        if self.run.0 != shape {
            self.end_run();
            self.run.0 = shape;
        }
        self.run.1 += 1;
    }

    fn end_run(&mut self) {
        let (shape, count) = std::mem::take(&mut self.run);
        if count > 0 {
            *self.shapes.entry(shape).or_default() += count;
        }
    }

    fn merge(&mut self, mut other: Self) {
        self.durations.merge(&other.durations);
        other.end_run();
        for (shape, count) in other.shapes {
            *self.shapes.entry(shape).or_default() += count;
        }
    }

    /// Shapes and how often each, the most frequent first, among equals the smallest.
    pub fn shapes(&self) -> Vec<(LaunchShape, u64)> {
        let mut whole = self.clone();
        whole.end_run();
        let mut shapes: Vec<_> = whole.shapes.into_iter().collect();
        shapes.sort_by_key(|&(shape, count)| (std::cmp::Reverse(count), shape));
        shapes
    }
}

/// Kernels of one process on one device in one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelTotals {
    /// Kernels.
    pub count: u64,
    /// Sum of their durations, ns.
    pub total_ns: i64,
}

/// The fold. Batches may come in any order, and folds of parts may be merged.
#[derive(Debug, Default)]
pub struct KernelFold {
    names: FxHashMap<String, u32>,
    groups: Vec<KernelGroup>,
    entries: EntryMap,
    totals: BTreeMap<Origin, KernelTotals>,
}

impl KernelFold {
    /// Columns of `kernels` that a batch must have, in this order.
    pub const COLUMNS: [&str; 12] = [
        "name",
        "start_ns",
        "end_ns",
        "pid",
        "device_id",
        "grid_x",
        "grid_y",
        "grid_z",
        "block_x",
        "block_y",
        "block_z",
        "window",
    ];

    /// Adds a batch.
    pub fn add(&mut self, batch: &RecordBatch) {
        let names = texts(batch, 0);
        let (known, groups) = (&mut self.names, &mut self.groups);
        let map = self.entries.of(names, |name| group_of(known, groups, name));
        let unnamed = (names.null_count() > 0).then(|| group_of(known, groups, ""));
        let (starts, ends) = (i64s(batch, 1), i64s(batch, 2));
        let (pids, devices, windows) = (u32s(batch, 3), u32s(batch, 4), u32s(batch, 11));
        let shape: [&[i32]; 6] = std::array::from_fn(|axis| i32s(batch, 5 + axis));
        let mut place = Origin::default();
        let mut here = KernelTotals::default();
        for row in 0..batch.num_rows() {
            let group = match unnamed {
                Some(unnamed) if names.is_null(row) => unnamed,
                _ => map[names.keys().value(row) as usize],
            };
            let duration = ends[row].saturating_sub(starts[row]);
            groups[group as usize].add(
                duration,
                LaunchShape {
                    grid: [shape[0][row], shape[1][row], shape[2][row]],
                    block: [shape[3][row], shape[4][row], shape[5][row]],
                },
            );
            let origin = (pids[row], devices[row], windows[row]);
            if place != origin {
                add_totals(&mut self.totals, place, here);
                (place, here) = (origin, KernelTotals::default());
            }
            here.count += 1;
            here.total_ns = here.total_ns.saturating_add(duration);
        }
        add_totals(&mut self.totals, place, here);
    }

    /// Takes over another fold.
    pub fn merge(&mut self, mut other: Self) {
        for (name, index) in other.names {
            let group = group_of(&mut self.names, &mut self.groups, &name);
            self.groups[group as usize].merge(std::mem::take(&mut other.groups[index as usize]));
        }
        for (place, totals) in other.totals {
            add_totals(&mut self.totals, place, totals);
        }
    }

    /// Groups by demangled name.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &KernelGroup)> {
        self.names
            .iter()
            .map(|(name, &index)| (name.as_str(), &self.groups[index as usize]))
    }

    /// Totals by process, device and window.
    pub fn totals(&self) -> &BTreeMap<Origin, KernelTotals> {
        &self.totals
    }
}

fn group_of(names: &mut FxHashMap<String, u32>, groups: &mut Vec<KernelGroup>, name: &str) -> u32 {
    if let Some(&group) = names.get(name) {
        return group;
    }
    // A dictionary's keys are 32 bits wide, so there can't be more names.
    let group = u32::try_from(groups.len()).unwrap_or(u32::MAX);
    groups.push(KernelGroup::default());
    names.insert(name.to_owned(), group);
    group
}

fn add_totals(totals: &mut BTreeMap<Origin, KernelTotals>, place: Origin, more: KernelTotals) {
    if more.count > 0 {
        let totals = totals.entry(place).or_default();
        totals.count += more.count;
        totals.total_ns = totals.total_ns.saturating_add(more.total_ns);
    }
}
