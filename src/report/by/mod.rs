//! `colonel show --by`: the kernels of a session by layer, step, phase or NVTX range. One file a view.

mod layer;
mod nvtx;
mod phase;
mod step;

use std::fmt::Write as _;

use serde::Serialize;

use crate::analysis::{LayerSummary, PhaseSummary, RangeSummary, SessionSummary, StepClass};
use crate::report::names::shortened;
use crate::report::show::{JSON_VERSION, sum_up};
use crate::run::ProblemSummary;
use crate::run::words::counted;
use crate::schema::manifest::Loss;
use crate::session::Session;

/// A view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Layers of the model, of each kind of step.
    Layer,
    /// Kinds of steps.
    Step,
    /// Prefill and decode.
    Phase,
    /// Ranges.
    Nvtx,
}

/// The view as text, for a terminal of some width; `limit` kinds of steps or ranges at most.
pub fn by_text(session: &Session, by: By, summary: &LayerSummary, limit: Option<usize>, width: usize) -> String {
    let manifest = session.manifest();
    let command = manifest.command.join(" ").replace('\n', " ");
    let mut text = format!("session {}  {}\n", manifest.id, shortened(&command, 100));
    let run = sum_up(session, &as_read(summary));
    for line in run.warnings() {
        let _ = writeln!(text, "{line}");
    }
    if summary.kernel_count == 0 {
        let why = run.why_no_kernels.as_deref().unwrap_or("the session does not say why");
        let _ = writeln!(text, "\nno kernels: {why}");
        return text;
    }
    let limit = limit.unwrap_or(usize::MAX);
    text += &match by {
        By::Nvtx => nvtx::view(summary, limit, width),
        _ if summary.classes.is_empty() => format!("\n{NO_LAYERS}\n"),
        By::Layer => layer::view(summary, limit, width),
        By::Step => step::view(summary, limit, width),
        By::Phase => phase::view(summary, width),
    };
    text
}

const NO_LAYERS: &str = "no layers: no NVTX range names one, and the kernels do not repeat as the layers of a model do \
                         (a block of 4 kernels or more, 3 to 512 times, in a CUDA graph or in two passes at least)";

/// What the session's summary says of losses needs what was found while reading.
fn as_read(summary: &LayerSummary) -> SessionSummary {
    SessionSummary {
        kernel_count: summary.kernel_count,
        problems: summary.problems.clone(),
        ..SessionSummary::default()
    }
}

/// What steps are told apart by: `decode, batch 4`, `decode, graph 104`.
fn kind(class: &StepClass) -> String {
    let mut text = class.phase.word().to_owned();
    if let Some(batch) = class.batch {
        let _ = write!(text, ", batch {batch}");
    }
    if let Some(graph) = class.graph_id {
        let _ = write!(text, ", graph {graph}");
    }
    text
}

fn and_more(count: usize, noun: &str) -> String {
    match count {
        0 => String::new(),
        count => format!("and {} more: --limit 0 shows all\n", counted(count as u64, noun)),
    }
}

/// `colonel show --by … --json`. Counts and sums are exact integers, times in ns.
#[derive(Debug, Serialize)]
pub struct ByJson<'a> {
    version: u32,
    id: &'a str,
    by: By,
    window: Option<&'a str>,
    lost: u64,
    losses: &'a [Loss],
    problems: Vec<ProblemSummary>,
    kernel_count: u64,
    kernels_ns: i64,
    layered_by_nvtx: u64,
    layered_by_structure: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<&'a [StepClass]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phases: Option<&'a [PhaseSummary]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ranges: Option<Vec<&'a RangeSummary>>,
}

impl<'a> ByJson<'a> {
    /// With `limit` kinds of steps or ranges at most.
    pub fn new(
        session: &'a Session,
        by: By,
        summary: &'a LayerSummary,
        window: Option<&'a str>,
        limit: Option<usize>,
    ) -> Self {
        let run = sum_up(session, &as_read(summary));
        let limit = limit.unwrap_or(usize::MAX);
        Self {
            version: JSON_VERSION,
            id: &session.manifest().id,
            by,
            window,
            lost: run.lost,
            losses: &session.manifest().losses,
            problems: run.problems,
            kernel_count: summary.kernel_count,
            kernels_ns: summary.kernels_ns,
            layered_by_nvtx: summary.layered_by_nvtx,
            layered_by_structure: summary.layered_by_structure,
            steps: matches!(by, By::Layer | By::Step).then(|| &summary.classes[..limit.min(summary.classes.len())]),
            phases: (by == By::Phase).then_some(&summary.phases),
            ranges: (by == By::Nvtx).then(|| RangeSummary::longest(&summary.ranges, limit)),
        }
    }
}
