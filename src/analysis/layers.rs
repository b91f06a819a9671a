//! What `colonel show --by` says: layers, steps, phases and ranges, from one pass over the kernels of each process.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use serde::Serialize;

use crate::analysis::RunMap;
use crate::analysis::classes::{ClassTotals, Classes, Kind, Part, PartTotals, duration};
use crate::analysis::durations::{DurationCounts, DurationStats};
use crate::analysis::items::{COLUMNS, ItemReader, each_batch};
use crate::analysis::phases::Phase;
use crate::analysis::ranges::{RangeSummary, Ranges};
use crate::analysis::steps::Splitter;
use crate::schema::manifest::Problem;
use crate::session::{BY_STRUCTURE, Selection, Session, SessionError};

/// The slowest kernel of a part, by its mean.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SlowestKernel {
    /// Demangled name.
    pub name: String,
    /// Kernels.
    pub count: u64,
    /// Their time, ns.
    pub total_ns: i64,
}

/// A part of a step: layers that are alike, or what lies around them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartSummary {
    /// `before`, `after` or `between` the layers, or the part's name that ranges give; null for numbered layers.
    pub name: Option<String>,
    /// The first of the numbered layers.
    pub first_layer: Option<u32>,
    /// The last of them. All between are alike: the same kernels, as often.
    pub last_layer: Option<u32>,
    /// Kernels of all steps.
    pub kernels: u64,
    /// Sum of their durations, ns.
    pub kernels_ns: i64,
    /// Part of the time of the class's kernels, 0 to 1.
    pub share: f64,
    /// Time in kernels of one such layer in one step.
    pub per_step: DurationStats,
    /// The kernel whose mean is the largest.
    pub slowest: SlowestKernel,
}

/// Steps of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepClass {
    /// Process.
    pub pid: u32,
    /// CUDA ordinal in it.
    pub device_id: u32,
    /// Phase.
    pub phase: Phase,
    /// What says so: `nvtx` or `structure`.
    pub phase_source: &'static str,
    /// Requests, where ranges say so.
    pub batch: Option<u64>,
    /// The graph that holds the layers of all its steps, if one does.
    pub graph_id: Option<u32>,
    /// Steps.
    pub steps: u64,
    /// Kernels.
    pub kernels: u64,
    /// Sum of their durations, ns.
    pub kernels_ns: i64,
    /// A step from the start of its first kernel to the end of its last.
    pub durations: DurationStats,
    /// Time of a step in which a kernel ran.
    pub busy: DurationStats,
    /// Launch gaps: waits between two kernels of a step.
    pub gaps: Option<DurationStats>,
    /// Waits before a step, since the step before it in the same window.
    pub between: Option<DurationStats>,
    /// Parts, in order.
    pub parts: Vec<PartSummary>,
}

/// Kernels of a phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PhaseSummary {
    /// Phase.
    pub phase: Phase,
    /// Steps.
    pub steps: u64,
    /// Kernels.
    pub kernels: u64,
    /// Sum of their durations, ns.
    pub kernels_ns: i64,
    /// Part of the time of all kernels, 0 to 1.
    pub share: f64,
    /// Steps together, ns.
    pub steps_ns: i64,
    /// A step from the start of its first kernel to the end of its last; null without steps.
    pub durations: Option<DurationStats>,
    /// Time in which a kernel ran, ns.
    pub busy_ns: i64,
}

/// The whole.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LayerSummary {
    /// Kernels.
    pub kernel_count: u64,
    /// Sum of their durations, ns.
    pub kernels_ns: i64,
    /// Kernels whose layer ranges say.
    pub layered_by_nvtx: u64,
    /// Kernels whose layer structure says.
    pub layered_by_structure: u64,
    /// Steps by kind: the kind with most time first.
    pub classes: Vec<StepClass>,
    /// Phases.
    pub phases: Vec<PhaseSummary>,
    /// As a tree: a range before those within it, of neighbours the longest in total first.
    pub ranges: Vec<RangeSummary>,
    /// What was found broken while reading.
    pub problems: Vec<Problem>,
}

impl LayerSummary {
    /// Reads the kernels, of the selected windows only if there is a selection.
    pub fn of(session: &Session, selection: Option<&Selection>) -> Result<Self, SessionError> {
        let mut fold = Fold::default();
        let problems = each_batch(session, selection, &COLUMNS, |batch| fold.add(batch))?;
        let mut summary = Self {
            problems,
            ..Self::default()
        };
        fold.finish(&mut summary);
        Ok(summary)
    }
}

/// One device of a process.
#[derive(Debug, Default)]
struct Device {
    splitter: Splitter,
    classes: Classes,
}

#[derive(Debug, Default)]
struct Fold {
    reader: ItemReader,
    devices: RunMap<(u32, u32), Device>,
    /// Kernels of no step: count and time.
    other: (u64, i64),
    ranges: Ranges,
    phases: BTreeMap<Phase, DurationCounts>,
    kernels: u64,
    kernels_ns: i64,
    by_nvtx: u64,
    by_structure: u64,
}

impl Fold {
    fn add(&mut self, batch: &RecordBatch) {
        let mut reader = std::mem::take(&mut self.reader);
        reader.each(batch, |kernel, said| {
            match kernel.is_by_structure {
                Some(true) => self.by_structure += 1,
                Some(false) => self.by_nvtx += 1,
                None => {}
            }
            let duration = duration(&kernel.item);
            self.kernels += 1;
            self.kernels_ns = self.kernels_ns.saturating_add(duration);
            self.ranges.add(kernel.launch, kernel.path, duration);
            let device = self.devices.of((kernel.pid, kernel.device_id));
            if let Some(cut) = device.splitter.push(kernel.item) {
                device.classes.take(&cut, said, &mut self.other);
            }
        });
        self.reader = reader;
    }

    fn finish(mut self, summary: &mut LayerSummary) {
        let total = self.kernels_ns.max(1) as f64;
        (summary.kernel_count, summary.kernels_ns) = (self.kernels, self.kernels_ns);
        (summary.layered_by_nvtx, summary.layered_by_structure) = (self.by_nvtx, self.by_structure);
        std::mem::take(&mut self.devices).each_mut(|&(pid, device_id), device| {
            if let Some(cut) = std::mem::take(&mut device.splitter).finish() {
                device.classes.take(&cut, self.reader.said(), &mut self.other);
            }
            let classes = self.summarize(pid, device_id, &device.classes);
            summary.classes.extend(classes);
        });
        summary
            .classes
            .sort_by_key(|class| (class.pid, class.device_id, std::cmp::Reverse(class.durations.total_ns)));
        summary.phases = phases(&summary.classes, &self.phases, self.other, total);
        summary.ranges = self.ranges.tree(|path| self.reader.paths.get(path), total);
    }

    fn summarize(&mut self, pid: u32, device_id: u32, classes: &Classes) -> Vec<StepClass> {
        let phases = classes.phases();
        let phase = |kind: &Kind| phases[kind];
        for (kind, totals) in &classes.totals {
            self.phases.entry(phase(kind)).or_default().merge(&totals.durations);
        }
        let class = |(kind, totals): (&Kind, &ClassTotals)| {
            let (phase_source, batch) = match kind {
                Kind::Said(said) => ("nvtx", said.batch),
                _ => (BY_STRUCTURE, None),
            };
            let phase = phase(kind);
            Some(StepClass {
                pid,
                device_id,
                phase,
                phase_source,
                batch,
                graph_id: totals.graph,
                steps: totals.steps,
                kernels: totals.kernels,
                kernels_ns: totals.kernels_ns,
                durations: totals.durations.stats()?,
                busy: totals.busy.stats()?,
                gaps: totals.gaps.stats(),
                between: totals.between.stats(),
                parts: self.parts(totals),
            })
        };
        classes.totals.iter().filter_map(class).collect()
    }

    /// Parts in order, neighbours that are alike as one.
    fn parts(&self, class: &ClassTotals) -> Vec<PartSummary> {
        let mut grouped = Vec::<(Part, Part, PartTotals)>::new();
        let mut in_order: Vec<_> = class.parts.iter().collect();
        in_order.sort_by(|(_, a), (_, b)| {
            let place = |part: &PartTotals, steps: u64| u128::from(part.ahead) * u128::from(steps);
            place(a, b.steps).cmp(&place(b, a.steps))
        });
        for (&key, totals) in in_order {
            match (key, grouped.last_mut()) {
                (Part::Layer(layer), Some((_, last, group)))
                    if layer > 0 && *last == Part::Layer(layer - 1) && are_alike(&class.parts[last], totals) =>
                {
                    *last = key;
                    merge(group, totals);
                }
                _ => grouped.push((key, key, totals.clone())),
            }
        }
        let class_ns = class.kernels_ns.max(1) as f64;
        let summary = |(first, last, totals): &(Part, Part, PartTotals)| {
            let number = |part: &Part| match part {
                Part::Layer(layer) => Some(*layer),
                _ => None,
            };
            let name = match first {
                Part::Layer(_) => None,
                Part::Named(name) => Some(self.reader.layers.get(*name)),
                Part::Before => Some("before the layers".to_owned()),
                Part::Between => Some("between layers".to_owned()),
                Part::After => Some("after the layers".to_owned()),
            };
            let slowest = totals
                .names
                .iter()
                .max_by(|(a, (a_count, a_ns)), (b, (b_count, b_ns))| {
                    let (a_mean, b_mean) = (
                        i128::from(*a_ns) * i128::from(*b_count),
                        i128::from(*b_ns) * i128::from(*a_count),
                    );
                    // Of two with the same mean, the first by name.
                    a_mean
                        .cmp(&b_mean)
                        .then_with(|| self.reader.names.get(**b).cmp(&self.reader.names.get(**a)))
                });
            let (&name_number, &(count, total_ns)) = slowest?;
            Some(PartSummary {
                name,
                first_layer: number(first),
                last_layer: number(last),
                kernels: totals.kernels,
                kernels_ns: totals.kernels_ns,
                share: totals.kernels_ns as f64 / class_ns,
                per_step: totals.per_step.stats()?,
                slowest: SlowestKernel {
                    name: self.reader.names.get(name_number),
                    count,
                    total_ns,
                },
            })
        };
        grouped.iter().filter_map(summary).collect()
    }
}

/// Whether two layers have the same kernels, as often; one in a hundred may be missing.
fn are_alike(a: &PartTotals, b: &PartTotals) -> bool {
    let covers = |a: &PartTotals, b: &PartTotals| {
        let rare = a.kernels.max(b.kernels) / 100;
        a.names.iter().all(|(name, &(count, _))| {
            let other = b.names.get(name).map_or(0, |&(count, _)| count);
            count.abs_diff(other) <= rare
        })
    };
    covers(a, b) && covers(b, a)
}

fn merge(group: &mut PartTotals, more: &PartTotals) {
    group.kernels += more.kernels;
    group.kernels_ns = group.kernels_ns.saturating_add(more.kernels_ns);
    group.per_step.merge(&more.per_step);
    for (&name, &(count, total_ns)) in &more.names {
        let known = group.names.entry(name).or_default();
        known.0 += count;
        known.1 = known.1.saturating_add(total_ns);
    }
}

fn phases(
    classes: &[StepClass],
    durations: &BTreeMap<Phase, DurationCounts>,
    other: (u64, i64),
    total: f64,
) -> Vec<PhaseSummary> {
    let mut phases = BTreeMap::<Phase, PhaseSummary>::new();
    let empty = |phase| PhaseSummary {
        phase,
        steps: 0,
        kernels: 0,
        kernels_ns: 0,
        share: 0.0,
        steps_ns: 0,
        durations: durations.get(&phase).and_then(DurationCounts::stats),
        busy_ns: 0,
    };
    for class in classes {
        let phase = phases.entry(class.phase).or_insert_with(|| empty(class.phase));
        phase.steps += class.steps;
        phase.kernels += class.kernels;
        phase.kernels_ns = phase.kernels_ns.saturating_add(class.kernels_ns);
        phase.steps_ns = phase.steps_ns.saturating_add(class.durations.total_ns);
        phase.busy_ns = phase.busy_ns.saturating_add(class.busy.total_ns);
    }
    if other.0 > 0 {
        let phase = phases.entry(Phase::Other).or_insert_with(|| empty(Phase::Other));
        phase.kernels += other.0;
        phase.kernels_ns = phase.kernels_ns.saturating_add(other.1);
    }
    let mut phases: Vec<_> = phases.into_values().collect();
    phases
        .iter_mut()
        .for_each(|phase| phase.share = phase.kernels_ns as f64 / total);
    phases
}
