//! A finding, as rules make it and reports show it.

use serde::Serialize;

use crate::analysis::findings::evidence::Evidence;
use crate::analysis::findings::rules;
use crate::analysis::findings::sql::within;
use crate::schema::manifest::Problem;
use crate::session::{Selection, Session, SessionError};

/// How much could be won, by the part of the GPU's time that a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A quarter of the time or more.
    High,
    /// A tenth or more.
    Medium,
    /// Less.
    Low,
}

impl Severity {
    /// A quarter is more than most tunings give, a tenth is what a reader would miss.
    pub(crate) fn by_share(share: f64) -> Self {
        match share {
            share if share >= 0.25 => Self::High,
            share if share >= 0.10 => Self::Medium,
            _ => Self::Low,
        }
    }

    /// In a table.
    pub fn word(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// A number of a finding. The finding's SQL gives it in a column of this name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Name; `_ns` are nanoseconds, `_share` is a part of one.
    pub name: &'static str,
    /// Value.
    pub value: Value,
}

/// What a figure says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Exact.
    Whole(i64),
    /// The nearest float.
    Part(f64),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Whole(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Part(value)
    }
}

/// A kernel that a finding is about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AffectedKernel {
    /// Demangled name; of a pair, both with ` → ` between.
    pub name: String,
    /// Kernels, or pairs.
    pub count: u64,
    /// Their time, ns.
    pub total_ns: i64,
}

/// What a rule found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Rule.
    pub rule: &'static str,
    /// How much could be won.
    pub severity: Severity,
    /// Part of the GPU's time that it is about, 0 to 1.
    pub share: f64,
    /// In a line, with the number that matters.
    pub title: String,
    /// Why that costs time.
    pub why: &'static str,
    /// What to try.
    pub next: &'static str,
    /// The numbers.
    pub figures: Vec<Figure>,
    /// The kernels with most time in it.
    pub kernels: Vec<AffectedKernel>,
    /// DuckDB over the session's tables; one row with the figures.
    pub sql: String,
}

/// Of fewer kernels no share means anything.
const LEAST_KERNELS: u64 = 100;

/// All findings of a session, the gravest first.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Findings {
    /// What was found.
    pub findings: Vec<Finding>,
    /// Rules that looked.
    pub rules: usize,
    /// Kernels that they looked at.
    pub kernel_count: u64,
    /// Steps that they looked at.
    pub step_count: u64,
    /// What was found broken while reading.
    pub problems: Vec<Problem>,
}

impl Findings {
    /// Reads the session, of the selected windows only if there is a selection.
    pub fn of(session: &Session, selection: Option<&Selection>) -> Result<Self, SessionError> {
        Ok(Self::by(Evidence::of(session, selection, &mut |_, _| {})?, selection))
    }

    /// What the rules say of this, which is of these windows.
    pub fn by(evidence: Evidence, selection: Option<&Selection>) -> Self {
        let has_enough = evidence.kernel_count() >= LEAST_KERNELS;
        let rules = rules::ALL.iter().filter(|_| has_enough);
        let mut findings: Vec<_> = rules.flat_map(|rule| rule(&evidence)).collect();
        if let Some(selection) = selection {
            findings
                .iter_mut()
                .for_each(|finding| finding.sql = within(&finding.sql, selection));
        }
        findings.sort_by(|a, b| {
            let by_share = b.share.total_cmp(&a.share);
            a.severity.cmp(&b.severity).then(by_share).then(a.rule.cmp(b.rule))
        });
        Self {
            findings,
            rules: rules::ALL.len(),
            kernel_count: evidence.kernel_count(),
            step_count: evidence.steps.len() as u64,
            problems: evidence.problems,
        }
    }
}

/// Names the figures of a finding.
macro_rules! figures {
    ($($name:ident),+ $(,)?) => {
        vec![$($crate::analysis::findings::finding::Figure { name: stringify!($name), value: $name.into() }),+]
    };
}
pub(crate) use figures;
