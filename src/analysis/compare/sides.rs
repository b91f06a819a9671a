//! What two sessions have in common: whether steps can be compared, and of which phases.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bootstrap::LEAST_STEPS;
use super::cells::Cell;
use super::gather::{KindSteps, Side};
use crate::analysis::phases::Phase;
use crate::schema::manifest::{Problem, Session as Manifest};

pub(crate) const WHY_NCU: &str = "ncu runs each kernel by itself, so there are no steps, and no order in time";
const WHY_FEW_STEPS: &str = "it takes six steps of a phase at least in both sessions";
const WHY_FEW_LAUNCHES: &str = "one session has no steps, and there are too few launches for blocks of time";

/// What times are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Both have steps.
    Step,
    /// One has none.
    Launch,
}

/// Steps of a phase in both sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PhaseSteps {
    /// Phase; null where both sessions' phases are not the same, and all steps are taken together.
    pub phase: Option<Phase>,
    /// Of the first session.
    pub a: u64,
    /// Of the second.
    pub b: u64,
    /// Whether times a step are of them, too.
    pub is_compared: bool,
}

/// What a session cost in wall time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// From the making of the session to the command's end, its profiler's start and end included, ns; null where it
    /// did not end in order.
    pub run_ns: Option<u64>,
    /// From there until the profiler's report had been read, ns; null where there was none to read.
    pub collect_ns: Option<u64>,
}

impl Cost {
    pub(crate) fn of(manifest: &Manifest) -> Self {
        let ended = manifest.ended_ns;
        Self {
            run_ns: ended.and_then(|ended| u64::try_from(ended - manifest.created_ns).ok()),
            collect_ns: manifest.profiler.as_ref().and_then(|profiler| profiler.collect_ns),
        }
    }
}

/// Time in kernels of a step, or the mean of several in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepTime {
    /// Since the session's first such step, ns.
    pub after_ns: i64,
    /// Time in kernels, ns.
    pub kernels_ns: i64,
}

/// How two sessions are compared.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) unit: Unit,
    pub(crate) phases: Vec<PhaseSteps>,
    pub(crate) why_no_interval: Option<&'static str>,
}

impl Plan {
    pub(crate) fn of(sides: [&Side; 2]) -> Self {
        if sides.iter().any(|side| side.steps() == 0) {
            let least = usize::try_from(LEAST_STEPS).unwrap_or(usize::MAX);
            let has_few = |side: &&Side| side.launch_cells().len() < least;
            return Self {
                unit: Unit::Launch,
                phases: Vec::new(),
                why_no_interval: sides.iter().any(has_few).then_some(WHY_FEW_LAUNCHES),
            };
        }
        let mut phases = BTreeMap::<Phase, [u64; 2]>::new();
        for (place, side) in sides.iter().enumerate() {
            for kind in &side.kinds {
                phases.entry(kind.phase).or_default()[place] += kind.steps;
            }
        }
        let both = |least: u64| {
            let phases = phases.iter();
            let phase = |(&phase, &[a, b]): (&Phase, &[u64; 2])| PhaseSteps {
                phase: Some(phase),
                a,
                b,
                is_compared: a.min(b) >= least,
            };
            phases.map(phase).collect::<Vec<_>>()
        };
        let all = PhaseSteps {
            phase: None,
            a: sides[0].steps(),
            b: sides[1].steps(),
            is_compared: true,
        };
        let is_any = |phases: &Vec<PhaseSteps>| phases.iter().any(|phase| phase.is_compared);
        let has_enough = all.a.min(all.b) >= LEAST_STEPS;
        // Phases that both have, if there are enough of their steps; else all steps together, if they are enough; else what
        // there is, without an interval.
        let (phases, is_enough) = match () {
            () if is_any(&both(LEAST_STEPS)) => (both(LEAST_STEPS), true),
            () if has_enough || !is_any(&both(1)) => (vec![all], has_enough),
            () => (both(1), false),
        };
        Self {
            unit: Unit::Step,
            phases,
            why_no_interval: (!is_enough).then_some(WHY_FEW_STEPS),
        }
    }

    /// Time in kernels of the steps that are compared.
    pub(crate) fn step_times(&self, side: &Side) -> Vec<StepTime> {
        let cells = in_order(self.compared().flat_map(|phase| side.cells_of(phase.phase)));
        let first_ns = cells.first().map_or(0, |cell| cell.start_ns);
        let time = |cell: &Cell| StepTime {
            after_ns: cell.start_ns.saturating_sub(first_ns),
            kernels_ns: cell.kernels_ns / i64::try_from(cell.steps).unwrap_or(i64::MAX).max(1),
        };
        cells.iter().map(time).collect()
    }

    /// The phases whose steps are compared; null for all together.
    pub(crate) fn compared(&self) -> impl Iterator<Item = &PhaseSteps> {
        self.phases.iter().filter(|phase| phase.is_compared)
    }
}

impl Side {
    /// Kinds of steps of a phase, of all for none.
    pub(crate) fn kinds_of(&self, phase: Option<Phase>) -> impl Iterator<Item = &KindSteps> {
        let is_of = move |kind: &&KindSteps| phase.is_none_or(|phase| kind.phase == phase);
        self.kinds.iter().filter(is_of)
    }

    /// Their cells in the order of time, of all processes and devices.
    pub(crate) fn cells_of(&self, phase: Option<Phase>) -> Vec<Cell> {
        in_order(self.kinds_of(phase).flat_map(|kind| kind.cells.iter().cloned()))
    }

    /// All launches in the order of time.
    pub(crate) fn launch_cells(&self) -> Vec<Cell> {
        let of_steps = self.kinds.iter().flat_map(|kind| &kind.cells);
        in_order(of_steps.chain(&self.others).cloned())
    }
}

pub(crate) fn in_order(cells: impl Iterator<Item = Cell>) -> Vec<Cell> {
    let mut cells: Vec<Cell> = cells.collect();
    cells.sort_by_key(|cell| cell.start_ns);
    cells
}

/// What makes two sessions differ whatever the program does.
pub(crate) fn warnings(manifests: [&Manifest; 2], sides: [&Side; 2]) -> Vec<String> {
    let mut warnings = Vec::new();
    let [a, b] = sides.map(|side| side.gpus.iter().cloned().collect::<Vec<_>>().join(", "));
    if a != b && !a.is_empty() && !b.is_empty() {
        warnings.push(format!("the GPUs differ: {a} in A, {b} in B"));
    }
    if manifests.iter().any(|manifest| manifest.evaluator == "ncu") {
        warnings.push(
            "ncu runs each kernel alone, at its base clock and with cold caches: its times are longer".to_owned(),
        );
    }
    for (name, manifest) in ["A", "B"].iter().zip(manifests) {
        let mut problems = manifest.problems.iter();
        if problems.any(|problem| problem.code == Problem::NCU_DURATIONS_INFLATED) {
            warnings.push(format!(
                "{name}'s times are not those of the work: ncu measured it by graph or by range, which makes them 30 to 50 \
                 times as long"
            ));
        }
    }
    if manifests[0].simulated != manifests[1].simulated {
        warnings.push("one of both was simulated by gpu-sim, the other was not".to_owned());
    }
    let has_steps = sides.iter().all(|side| side.steps() > 0);
    for (name, side) in ["A", "B"].iter().zip(sides) {
        let rows = side.others.iter().flat_map(|cell| &cell.rows);
        let outside: u64 = rows.map(|row| row.launches).sum();
        if has_steps && outside > 0 {
            warnings.push(format!(
                "{outside} launches of {name} belong to no step: they are in counts and totals only"
            ));
        }
    }
    for (name, manifest) in ["A", "B"].iter().zip(manifests) {
        let lost = manifest.losses.iter().filter(|loss| loss.kind == "kernels");
        let lost: u64 = lost.filter_map(|loss| loss.count).sum();
        if lost > 0 {
            let noun = if lost == 1 { "kernel" } else { "kernels" };
            warnings.push(format!("{name} has lost {lost} {noun}, so its totals are too small"));
        }
    }
    warnings
}
