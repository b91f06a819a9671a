//! What `colonel show --by` says: layers, steps, phases and ranges, from one pass over the kernels of each process.

use std::collections::BTreeMap;

use arrow_array::{Array as _, RecordBatch};
use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::analysis::classes::{ClassTotals, Classes, Kind, Part, PartTotals};
use crate::analysis::columns::{EntryMap, i32s, i64s, texts, u32s};
use crate::analysis::durations::{DurationCounts, DurationStats};
use crate::analysis::phases::{Phase, Rhythm, Said, by_rhythm};
use crate::analysis::ranges::{RangeSummary, Ranges};
use crate::analysis::steps::{Cut, Item, Layer, Splitter};
use crate::schema::manifest::Problem;
use crate::session::{BY_STRUCTURE, Selection, Session, SessionError, is_before_layers, now_ns};

const COLUMNS: [&str; 11] = [
    "start_ns",
    "end_ns",
    "pid",
    "device_id",
    "window",
    "name",
    "layer",
    "layer_source",
    "nvtx_path",
    "grid_x",
    "launch_nvtx_path",
];

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
        let (scans, problems) = session.layered_kernels(&COLUMNS)?;
        let mut summary = Self {
            problems,
            ..Self::default()
        };
        let mut fold = Fold::default();
        for mut scan in scans {
            for batch in scan.by_ref() {
                match batch {
                    Ok(batch) => fold.add(&selection.map_or_else(|| batch.clone(), |s| s.filter(&batch))),
                    Err(error) => summary.problems.push(Problem {
                        code: "table_file_broken".to_owned(),
                        message: format!("part of `kernels` could not be read: {error}"),
                        time_ns: now_ns(),
                    }),
                }
            }
            summary.problems.extend(scan.into_problems());
        }
        fold.finish(&mut summary);
        Ok(summary)
    }
}

/// Texts by number.
#[derive(Debug, Default)]
struct Texts {
    numbers: FxHashMap<String, u32>,
    texts: Vec<String>,
}

impl Texts {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.numbers.insert(text.to_owned(), number);
        self.texts.push(text.to_owned());
        number
    }

    fn get(&self, number: u32) -> String {
        self.texts.get(number as usize).cloned().unwrap_or_default()
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
    names: Texts,
    layers: Texts,
    paths: Texts,
    /// What each path says.
    said: Vec<Option<Said>>,
    entries: [EntryMap; 4],
    devices: BTreeMap<(u32, u32), Device>,
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
        let [name_map, layer_map, path_map, launch_map] = &mut self.entries;
        let (names, layers) = (texts(batch, 5), texts(batch, 6));
        let (paths, launches) = (texts(batch, 8), texts(batch, 10));
        let name_map = name_map.of(names, |text| self.names.number(text));
        let layer_map = layer_map.of(layers, |text| self.layers.number(text));
        let said = &mut self.said;
        let mut number = |text: &str| {
            let number = self.paths.number(text);
            if number as usize == said.len() {
                said.push(Said::by(text));
            }
            number
        };
        let path_map = path_map.of(paths, &mut number);
        let launch_map = launch_map.of(launches, &mut number);
        let says = |path: &u32| self.said[*path as usize].is_some();
        let numbered: Vec<Layer> = layer_map
            .iter()
            .map(|&number| {
                let text = self.layers.texts[number as usize].as_str();
                match text.parse() {
                    Ok(layer) => Layer::Number(layer),
                    Err(_) if is_before_layers(text) => Layer::Before(number),
                    Err(_) => Layer::After(number),
                }
            })
            .collect();
        let sources = texts(batch, 7).downcast_dict::<arrow_array::StringArray>();
        let graphs = batch.column_by_name("graph_id").map(|column| {
            use arrow_array::cast::AsArray as _;
            column.as_primitive::<arrow_array::types::UInt32Type>()
        });
        let (starts, ends) = (i64s(batch, 0), i64s(batch, 1));
        let (pids, devices, windows) = (u32s(batch, 2), u32s(batch, 3), u32s(batch, 4));
        let grids = i32s(batch, 9);
        for row in 0..batch.num_rows() {
            let layer = layers.key(row).map_or(Layer::None, |key| numbered[key]);
            if layer != Layer::None {
                let source = sources.as_ref().filter(|sources| sources.is_valid(row));
                match source.map(|sources| arrow_array::ArrayAccessor::value(sources, row)) {
                    Some(BY_STRUCTURE) => self.by_structure += 1,
                    _ => self.by_nvtx += 1,
                }
            }
            let path = paths.key(row).map(|key| path_map[key]);
            let launch = launches.key(row).map(|key| launch_map[key]);
            let item = Item {
                start_ns: starts[row],
                end_ns: ends[row],
                name: names.key(row).map_or(u32::MAX, |key| name_map[key]),
                layer,
                graph: graphs.and_then(|graphs| graphs.is_valid(row).then(|| graphs.value(row))),
                grid_x: grids[row],
                // A graph may have been captured in any step.
                path: launch.filter(says).or(path.filter(says)),
                window: windows[row],
            };
            let duration = item.end_ns.saturating_sub(item.start_ns);
            self.kernels += 1;
            self.kernels_ns = self.kernels_ns.saturating_add(duration);
            self.ranges.add(launch, path, duration);
            let device = self.devices.entry((pids[row], devices[row])).or_default();
            if let Some(cut) = device.splitter.push(item) {
                device.classes.take(cut, &self.said, &mut self.other);
            }
        }
    }

    fn finish(mut self, summary: &mut LayerSummary) {
        let total = self.kernels_ns.max(1) as f64;
        (summary.kernel_count, summary.kernels_ns) = (self.kernels, self.kernels_ns);
        (summary.layered_by_nvtx, summary.layered_by_structure) = (self.by_nvtx, self.by_structure);
        for ((pid, device_id), mut device) in std::mem::take(&mut self.devices) {
            if let Some(cut) = std::mem::take(&mut device.splitter).finish() {
                device.classes.take(cut, &self.said, &mut self.other);
            }
            let classes = self.summarize(pid, device_id, device.classes);
            summary.classes.extend(classes);
        }
        summary
            .classes
            .sort_by_key(|class| (class.pid, class.device_id, std::cmp::Reverse(class.durations.total_ns)));
        summary.phases = phases(&summary.classes, &self.phases, self.other, total);
        summary.ranges = self.ranges.tree(|path| self.paths.get(path), total);
    }

    fn summarize(&mut self, pid: u32, device_id: u32, classes: Classes) -> Vec<StepClass> {
        let unnamed: Vec<_> = classes
            .totals
            .iter()
            .filter(|(kind, _)| !matches!(kind, Kind::Said(_)))
            .collect();
        let rhythms: Vec<_> = unnamed
            .iter()
            .map(|(_, totals)| Rhythm {
                streak: totals.streak,
                median_ns: totals.busy.stats().map_or(0, |busy| busy.median_ns),
            })
            .collect();
        let guessed: BTreeMap<Kind, Phase> = unnamed
            .iter()
            .map(|(kind, _)| **kind)
            .zip(by_rhythm(&rhythms))
            .collect();
        let phase = |kind: &Kind| match kind {
            Kind::Said(said) => said.phase,
            other => guessed[other],
        };
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
                Part::Named(name) => Some(self.layers.get(*name)),
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
                        .then_with(|| self.names.get(**b).cmp(&self.names.get(**a)))
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
                    name: self.names.get(name_number),
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

impl Classes {
    fn take(&mut self, cut: Cut, said: &[Option<Said>], other: &mut (u64, i64)) {
        match cut {
            Cut::Step(items) => self.add(&items, |path| said.get(path as usize).copied().flatten()),
            Cut::Other(items) => {
                other.0 += items.len() as u64;
                other.1 = items
                    .iter()
                    .map(crate::analysis::classes::duration)
                    .fold(other.1, i64::saturating_add);
            }
        }
    }
}
