//! For machines. Counts and sums are exact integers, times in ns, changes parts of A.

use serde::Serialize;

use super::Compared;
use crate::analysis::compare::{By, Change, ComparedRow, Cost, CountedRow, Method, PhaseSteps, Unit, Verdict};
use crate::report::show::JSON_VERSION;

/// `colonel compare --json`.
#[derive(Debug, Serialize)]
pub struct CompareJson<'a> {
    version: u32,
    by: By,
    sessions: [Side<'a>; 2],
    unit: Unit,
    phases: &'a [PhaseSteps],
    method: Option<Method>,
    why_no_interval: Option<&'a str>,
    warnings: &'a [String],
    /// Of the time in kernels.
    verdict: Verdict,
    in_all: InAll<'a>,
    equal_launches: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernels: Option<&'a [ComparedRow]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<&'a [ComparedRow]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<&'a [ComparedRow]>,
    #[serde(skip_serializing_if = "<[CountedRow]>::is_empty")]
    counters: &'a [CountedRow],
}

#[derive(Debug, Serialize)]
struct InAll<'a> {
    kernels: &'a Change,
    steps: Option<&'a Change>,
}

#[derive(Debug, Serialize)]
struct Side<'a> {
    id: &'a str,
    window: Option<&'a str>,
    evaluator: &'a str,
    release: Option<&'a str>,
    kernels: u64,
    #[serde(flatten)]
    cost: Cost,
}

impl<'a> CompareJson<'a> {
    /// All rows, unless limited.
    pub fn new(compared: Compared<'a>) -> Self {
        let comparison = compared.comparison;
        let side = |place: usize| {
            let session = compared.sessions[place];
            let manifest = session.manifest();
            let profiler = manifest.profiler.as_ref();
            Side {
                id: &manifest.id,
                window: compared.windows[place],
                evaluator: &manifest.evaluator,
                release: profiler.and_then(|profiler| profiler.release.as_deref()),
                kernels: session.rows("kernels"),
                cost: comparison.cost[place],
            }
        };
        let rows = &comparison.rows[..compared.shown()];
        let of = |by: By| (comparison.by == by).then_some(rows);
        Self {
            version: JSON_VERSION,
            by: comparison.by,
            sessions: [side(0), side(1)],
            unit: comparison.unit,
            phases: &comparison.phases,
            method: comparison.method,
            why_no_interval: comparison.why_no_interval.as_deref(),
            warnings: &comparison.warnings,
            verdict: comparison.verdict(),
            in_all: InAll {
                kernels: &comparison.kernels_in_all,
                steps: comparison.steps_in_all.as_ref(),
            },
            equal_launches: comparison.equal_launches,
            kernels: of(By::Kernel),
            layers: of(By::Layer),
            steps: of(By::Step),
            counters: compared.counted,
        }
    }
}
