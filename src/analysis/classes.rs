//! Steps of one kind: the same graph, or the same kernels launched with the same grid; or what their ranges say.

use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};

use rustc_hash::{FxHashMap, FxHasher};

use crate::analysis::durations::DurationCounts;
use crate::analysis::phases::{Phase, Rhythm, Said, by_rhythm};
use crate::analysis::steps::{Cut, Item, Layer};

/// What makes steps alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Ranges name it.
    Said(Said),
    /// One graph holds its layers.
    Graph(u32),
    /// Names of its layers' kernels, hashed, and the grid of the most frequent one, which grows with the tokens.
    Kernels(u64, i32),
}

/// Part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// Without a layer, before the first numbered one.
    Before,
    /// A numbered layer.
    Layer(u32),
    /// A part that ranges name.
    Named(u32),
    /// Without a layer, between numbered ones.
    Between,
    /// Without a layer, behind the last numbered one.
    After,
}

/// What the kernels of a part come to.
#[derive(Debug, Clone, Default)]
pub(crate) struct PartTotals {
    pub(crate) kernels: u64,
    pub(crate) kernels_ns: i64,
    /// Time a step.
    pub(crate) per_step: DurationCounts,
    /// Count and time of each name.
    pub(crate) names: FxHashMap<u32, (u64, i64)>,
    /// Kernels of the step before its first one, of all steps.
    pub(crate) ahead: u64,
    /// Steps with it.
    pub(crate) steps: u64,
    now_ns: i64,
    is_touched: bool,
}

/// Steps of one kind on one device.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClassTotals {
    pub(crate) steps: u64,
    pub(crate) kernels: u64,
    pub(crate) kernels_ns: i64,
    /// From the first start to the last end.
    pub(crate) durations: DurationCounts,
    /// Time in which a kernel ran.
    pub(crate) busy: DurationCounts,
    /// Waits between two kernels within a step.
    pub(crate) gaps: DurationCounts,
    /// Waits between the step before, of the same window, and this one.
    pub(crate) between: DurationCounts,
    pub(crate) parts: BTreeMap<Part, PartTotals>,
    /// The graph that holds the layers of all its steps, if one does.
    pub(crate) graph: Option<u32>,
    /// Most steps in a row.
    pub(crate) streak: u64,
}

/// Classes of one device, with what the last step was.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    pub(crate) totals: BTreeMap<Kind, ClassTotals>,
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    kind: Kind,
    end_ns: i64,
    window: u32,
    streak: u64,
}

impl Classes {
    /// Adds what was cut off; kernels of no step to `other`, count and time. Gives the kind of a step.
    pub(crate) fn take(&mut self, cut: &Cut, said: &[Option<Said>], other: &mut (u64, i64)) -> Option<Kind> {
        match cut {
            Cut::Step(items) => self.add(items, |path| said.get(path as usize).copied().flatten()),
            Cut::Other(items) => {
                other.0 += items.len() as u64;
                other.1 = items.iter().map(duration).fold(other.1, i64::saturating_add);
                None
            }
        }
    }

    /// Phases of all kinds: ranges say them, else how the steps follow each other.
    pub(crate) fn phases(&self) -> BTreeMap<Kind, Phase> {
        let unnamed = || {
            let all = self.totals.iter();
            all.filter(|(kind, _)| !matches!(kind, Kind::Said(_)))
        };
        let rhythm = |(_, totals): (_, &ClassTotals)| Rhythm {
            streak: totals.streak,
            median_ns: totals.busy.stats().map_or(0, |busy| busy.median_ns),
        };
        let guessed = by_rhythm(&unnamed().map(rhythm).collect::<Vec<_>>());
        let mut phases: BTreeMap<_, _> = unnamed().map(|(kind, _)| *kind).zip(guessed).collect();
        phases.extend(self.totals.keys().filter_map(|kind| match kind {
            Kind::Said(said) => Some((*kind, said.phase)),
            _ => None,
        }));
        phases
    }

    /// Adds a step. `said` gives what the path of a number says.
    fn add(&mut self, step: &[Item], said: impl Fn(u32) -> Option<Said>) -> Option<Kind> {
        let first = step.first()?;
        let graph = graph_of(step);
        let kind = kind_of(step, graph, said);
        let class = self.totals.entry(kind).or_default();
        class.graph = graph.filter(|_| class.steps == 0 || class.graph == graph);
        let end_ns = class.add(step);
        let mut streak = 1;
        if let Some(last) = &self.last {
            if last.window == first.window {
                class.between.add(first.start_ns.saturating_sub(last.end_ns).max(0));
            }
            if last.kind == kind {
                streak += last.streak;
            }
        }
        class.streak = class.streak.max(streak);
        self.last = Some(Last {
            kind,
            end_ns,
            window: step.last().map_or(first.window, |item| item.window),
            streak,
        });
        Some(kind)
    }
}

impl ClassTotals {
    /// Gives the end of the step's last kernel.
    fn add(&mut self, step: &[Item]) -> i64 {
        let is_numbered = |item: &Item| matches!(item.layer, Layer::Number(_));
        let first = step.iter().position(is_numbered).unwrap_or(0);
        let last = step.iter().rposition(is_numbered).unwrap_or(0);
        let start_ns = step.first().map_or(0, |item| item.start_ns);
        let (mut end_ns, mut busy_ns) = (start_ns, 0_i64);
        let mut touched = Vec::new();
        for (at, item) in step.iter().enumerate() {
            let gap = item.start_ns.saturating_sub(end_ns);
            if gap > 0 {
                self.gaps.add(gap);
            }
            busy_ns = busy_ns.saturating_add(item.end_ns.saturating_sub(item.start_ns.max(end_ns)).max(0));
            end_ns = end_ns.max(item.end_ns);
            let key = match item.layer {
                Layer::Number(layer) => Part::Layer(layer),
                Layer::Before(name) | Layer::After(name) => Part::Named(name),
                Layer::None if at < first => Part::Before,
                Layer::None if at > last => Part::After,
                Layer::None => Part::Between,
            };
            let part = self.parts.entry(key).or_default();
            if !part.is_touched {
                part.is_touched = true;
                part.ahead += at as u64;
                part.steps += 1;
                touched.push(key);
            }
            part.add(item);
            self.kernels_ns = self.kernels_ns.saturating_add(duration(item));
        }
        for key in touched {
            self.parts.entry(key).or_default().end_step();
        }
        self.steps += 1;
        self.kernels += step.len() as u64;
        self.durations.add(end_ns.saturating_sub(start_ns));
        self.busy.add(busy_ns);
        end_ns
    }
}

impl PartTotals {
    fn add(&mut self, item: &Item) {
        let duration = duration(item);
        self.kernels += 1;
        self.kernels_ns = self.kernels_ns.saturating_add(duration);
        self.now_ns = self.now_ns.saturating_add(duration);
        let (count, total_ns) = self.names.entry(item.name).or_default();
        *count += 1;
        *total_ns = total_ns.saturating_add(duration);
    }

    fn end_step(&mut self) {
        self.per_step.add(std::mem::take(&mut self.now_ns));
        self.is_touched = false;
    }
}

pub(crate) fn duration(item: &Item) -> i64 {
    item.end_ns.saturating_sub(item.start_ns)
}

fn numbered(step: &[Item]) -> impl Iterator<Item = &Item> {
    step.iter().filter(|item| matches!(item.layer, Layer::Number(_)))
}

/// The graph that all layers are of.
fn graph_of(step: &[Item]) -> Option<u32> {
    let mut graphs = numbered(step).map(|item| item.graph);
    let first = graphs.next().flatten()?;
    graphs.all(|graph| graph == Some(first)).then_some(first)
}

fn kind_of(step: &[Item], graph: Option<u32>, said: impl Fn(u32) -> Option<Said>) -> Kind {
    // The layers' own ranges first: what lies around them may be of the step before.
    let mut asked = None;
    for item in numbered(step).chain(step) {
        let Some(path) = item.path.filter(|path| asked != Some(*path)) else {
            continue;
        };
        if let Some(said) = said(path) {
            return Kind::Said(said);
        }
        asked = Some(path);
    }
    if let Some(graph) = graph {
        return Kind::Graph(graph);
    }
    let layers = numbered(step).map(|item| item.layer).max();
    let layers = match layers {
        Some(Layer::Number(last)) => last as usize + 1,
        _ => 1,
    };
    let mut counts = FxHashMap::<u32, (usize, i32)>::default();
    for item in numbered(step) {
        counts.entry(item.name).or_insert((0, item.grid_x)).0 += 1;
    }
    // What most layers have: a kernel from elsewhere makes no new class.
    let mut common: Vec<_> = counts
        .into_iter()
        .filter(|&(_, (count, _))| 2 * count >= layers)
        .map(|(name, (count, grid))| (name, count, grid))
        .collect();
    common.sort_unstable();
    let grid = common
        .iter()
        .max_by_key(|&&(name, count, _)| (count, std::cmp::Reverse(name)));
    let grid = grid.map_or(0, |&(_, _, grid)| grid);
    let mut hasher = FxHasher::default();
    common.iter().for_each(|(name, _, _)| name.hash(&mut hasher));
    Kind::Kernels(hasher.finish(), grid)
}
