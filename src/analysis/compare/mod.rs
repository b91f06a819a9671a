//! Two sessions side by side, whoever recorded them: which kernel, layer or kind of step takes longer, by how much, and
//! whether that may be chance.
//!
//! [`gather`] reads each session once, [`matching`] finds which rows belong together, [`bootstrap`] says how far a figure
//! is to be trusted. Where both have steps, times are those of a step, phase by phase: a session with another share of
//! prefill is none that became slower. Where one has none, times are those of a launch.

mod bootstrap;
mod cells;
mod change;
mod counted;
mod gather;
mod matching;
mod rows;
mod sides;
#[cfg(test)]
mod simulated;

use serde::Serialize;

pub use bootstrap::Method;
pub use change::{Change, Regression, Verdict};
pub use counted::{Counted, CountedRow, counted};
pub use matching::Match;
pub use rows::{ComparedRow, Launches};
pub use sides::{Cost, PhaseSteps, StepTime, Unit};

use crate::analysis::compare::gather::Side;
use crate::schema::manifest::{Problem, Session as Manifest};
use crate::session::{Selection, Session, SessionError};

/// What the rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Kernels by name.
    Kernel,
    /// Parts of the model.
    Layer,
    /// Kinds of steps.
    Step,
}

/// The whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What the rows are.
    pub by: By,
    /// What times are of.
    pub unit: Unit,
    /// Steps of each phase, in both.
    pub phases: Vec<PhaseSteps>,
    /// How intervals were made; null where there are none.
    pub method: Option<Method>,
    /// Why not.
    pub why_no_interval: Option<String>,
    /// What the reader must know of both.
    pub warnings: Vec<String>,
    /// Time in kernels: of a step; without steps that of all launches of the first session, at the means of each.
    pub kernels_in_all: Change,
    /// Length of a step; null without steps.
    pub steps_in_all: Option<Change>,
    /// The steps that were compared, in order, of a long session some together.
    pub steps: [Vec<StepTime>; 2],
    /// What contributes most to the difference first.
    pub rows: Vec<ComparedRow>,
    /// Launches of rows that both have, and as often.
    pub equal_launches: u64,
    /// Costs of both.
    pub cost: [Cost; 2],
    /// What was found broken while reading.
    pub problems: Vec<Problem>,
}

impl Comparison {
    /// Puts two sessions side by side, or two windows.
    pub fn of(sessions: [&Session; 2], windows: [Option<&Selection>; 2], by: By) -> Result<Self, SessionError> {
        let [mut a, mut b] = [
            Side::of(sessions[0], windows[0], by)?,
            Side::of(sessions[1], windows[1], by)?,
        ];
        let mut problems = std::mem::take(&mut a.problems);
        problems.append(&mut b.problems);
        problems.dedup_by(|a, b| a.message == b.message);
        let mut comparison = Self::of_sides([&a, &b], by);
        let manifests = sessions.map(Session::manifest);
        comparison.warnings = sides::warnings(manifests, [&a, &b]);
        let broken = problems.iter().map(|problem| problem.message.clone());
        comparison.warnings.extend(broken);
        comparison.cost = manifests.map(Cost::of);
        if manifests.iter().any(|manifest: &&Manifest| manifest.evaluator == "ncu") {
            comparison.why_no_interval = Some(sides::WHY_NCU.to_owned());
        }
        comparison.problems = problems;
        Ok(comparison)
    }

    fn of_sides(sides: [&Side; 2], by: By) -> Self {
        let plan = sides::Plan::of(sides);
        let mut comparison = Self {
            by,
            unit: plan.unit,
            method: plan.why_no_interval.is_none().then_some(bootstrap::METHOD),
            why_no_interval: plan.why_no_interval.map(str::to_owned),
            warnings: Vec::new(),
            kernels_in_all: Change::default(),
            steps_in_all: None,
            steps: sides.map(|side| plan.step_times(side)),
            rows: Vec::new(),
            equal_launches: 0,
            cost: [Cost::default(); 2],
            problems: Vec::new(),
            phases: plan.phases.clone(),
        };
        rows::fill(&mut comparison, sides, &plan);
        comparison
    }

    /// Of the time in kernels, in all.
    pub fn verdict(&self) -> Verdict {
        self.kernels_in_all.verdict.unwrap_or(Verdict::CannotTell)
    }

    /// Whether the second session is slower than this part of the first.
    pub fn regression(&self, limit: f64) -> Regression {
        let lies_beyond = |change: &Change| change.low.is_some_and(|low| low > limit);
        let in_all = [Some(&self.kernels_in_all), self.steps_in_all.as_ref()];
        if in_all.into_iter().flatten().any(lies_beyond) {
            return Regression::Yes;
        }
        match self.kernels_in_all.high {
            Some(high) if high <= limit => Regression::No,
            _ => Regression::CannotTell,
        }
    }
}
