//! A difference in figures and in a word.

use serde::Serialize;

use super::bootstrap::{Estimate, Spread, relative};

/// What differs by less is no difference, however sure it is: GPUs drift by as much from minute to minute.
pub(crate) const SMALLEST: f64 = 0.01;

/// The second session against the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Less than 1 %, or within what chance does.
    NoDifference,
    /// It takes longer.
    Slower,
    /// It takes less time.
    Faster,
    /// There is no interval.
    CannotTell,
}

impl Verdict {
    /// In a table.
    pub fn word(self) -> &'static str {
        match self {
            Self::NoDifference => "no difference",
            Self::Slower => "slower",
            Self::Faster => "faster",
            Self::CannotTell => "can't tell",
        }
    }

    pub(crate) fn of(estimate: &Estimate, is_by_chance: bool) -> Self {
        match estimate {
            Estimate { interval: None, .. } => Self::CannotTell,
            Estimate { relative, .. } if is_by_chance || relative.abs() < SMALLEST => Self::NoDifference,
            Estimate { relative, .. } if *relative > 0.0 => Self::Slower,
            _ => Self::Faster,
        }
    }
}

/// A time of both sessions, and the difference from the first to the second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Change {
    /// Time a step (a launch, where there are no steps) in the first, ns; null where it has none.
    pub a_ns: Option<f64>,
    /// In the second.
    pub b_ns: Option<f64>,
    /// The second less the first, ns.
    pub difference_ns: Option<f64>,
    /// That over the first.
    pub relative: Option<f64>,
    /// Lower bound of its interval.
    pub low: Option<f64>,
    /// Upper bound.
    pub high: Option<f64>,
    /// In a word; null where only one has it.
    pub verdict: Option<Verdict>,
}

impl Change {
    pub(crate) fn of_one(a_ns: Option<f64>, b_ns: Option<f64>) -> Self {
        let difference = match (a_ns, b_ns) {
            (None, None) => None,
            (a, b) => Some(b.unwrap_or(0.0) - a.unwrap_or(0.0)),
        };
        Self {
            a_ns,
            b_ns,
            difference_ns: difference,
            ..Self::default()
        }
    }

    /// Of two figures with their spreads. The word is for a figure by itself.
    pub(crate) fn of_both(a: &Spread, b: &Spread) -> (Self, Option<Estimate>) {
        let mut change = Self::of_one(Some(a.value), Some(b.value));
        let estimate = relative(a, b);
        if let Some(estimate) = &estimate {
            change.relative = Some(estimate.relative);
            (change.low, change.high) = estimate.interval.map(|(low, high, _)| (low, high)).unzip();
            let chance = estimate.interval.map(|(_, _, chance)| chance);
            change.verdict = Some(Verdict::of(estimate, chance > Some(0.05)));
        }
        (change, estimate)
    }
}

/// What `--fail-on-regression` asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Regression {
    /// The interval of the time in kernels reaches no further than the limit, and that of the steps does not lie beyond it.
    No,
    /// One of both lies beyond it as a whole.
    Yes,
    /// The interval of the time in kernels has the limit within it, or there is none.
    CannotTell,
}
