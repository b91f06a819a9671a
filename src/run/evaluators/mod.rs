//! Evaluators: which profiler. Each says what the command's environment needs, and what is worth saying afterwards;
//! launching, waiting and sealing are the same for all.

mod cupti;
mod no_kernels;

use super::RunError;
use super::environment::{Environment, Inherited};
use super::runtime::RuntimeFolder;
use super::settings::{Choice, Settings};
use crate::schema::manifest::Session as Manifest;

pub use cupti::CuptiEvaluator;

/// A profiler.
pub trait Evaluator {
    /// Name in the session.
    fn name(&self) -> &'static str;

    /// Adds to the command's environment what makes the profiler record into the session.
    fn environment(
        &self,
        settings: &Settings,
        runtime: &RuntimeFolder,
        inherited: Inherited<'_>,
        environment: &mut Environment,
    ) -> Result<(), RunError>;

    /// Why a session without kernels has none, and what to do: in full sentences, none if it can't tell.
    fn why_no_kernels(&self, manifest: &Manifest) -> Option<String>;
}

/// The evaluators there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluatorKind {
    /// Ours: CUPTI in the process.
    Cupti,
}

impl Choice for EvaluatorKind {
    const WHAT: &'static str = "evaluator";
    const ALL: &'static [(&'static str, Self)] = &[("cupti", Self::Cupti), ("auto", Self::Cupti)];
}

impl EvaluatorKind {
    /// Parses a name; the planned ones are not there yet, which is another answer than "unknown".
    pub fn parse_name(name: &str) -> Result<Self, String> {
        match name {
            "nsys" | "ncu" => Err(format!("evaluator `{name}` is not there yet (known: cupti, auto)")),
            _ => Self::parse(name),
        }
    }
}
