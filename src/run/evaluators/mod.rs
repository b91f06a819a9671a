//! Evaluators: which profiler. Each says what is started and in which environment, and fills the session afterwards;
//! launching, waiting and sealing are the same for all.

mod cupti;
mod ncu;
mod ncu_watch;
mod no_kernels;
mod nsys;
mod silence;
mod tool;
mod watch;

use std::ffi::OsString;
use std::path::Path;
use std::process::Child;

use super::RunError;
use super::command::Streams;
use super::environment::{CUDA_INJECTION, Environment, Inherited};
use super::profilers;
use super::runtime::RuntimeFolder;
use super::settings::{Choice, Settings};
use crate::schema::env as variables;
use crate::schema::manifest::{Exit, Session as Manifest};
use crate::session::SessionWriter;

use cupti::CuptiEvaluator;
use ncu::NcuEvaluator;
use nsys::NsysEvaluator;

/// A profiler.
pub(crate) trait Evaluator {
    /// Name in the session.
    fn name(&self) -> &'static str;

    /// Adds to the command's environment what makes the profiler record into the session.
    fn environment(
        &self,
        settings: &Settings,
        runtime: &RuntimeFolder,
        inherited: Inherited<'_>,
        environment: &mut Environment,
    ) -> Result<(), RunError> {
        let _ = (settings, runtime, inherited);
        // Where colonel itself is the command of one.
        environment.set_or_remove(variables::COMMAND, None);
        Ok(())
    }

    /// What is started for the command, and where it talks.
    fn command(&self, session: &mut SessionWriter, command: &[OsString]) -> Result<(Vec<OsString>, Streams), RunError>;

    /// Looks after what was started, until the watch is ended.
    fn watch(&self, session: &Path, started: &Child) -> Option<Watch> {
        let _ = (session, started);
        None
    }

    /// Fills the session, once what was started has ended; `watched` is what came of the watch. What is wrong is a problem
    /// of the session. Returns how the command ended.
    fn collect(&self, session: &mut SessionWriter, exit: Exit, watched: Watched) -> Exit;
}

pub(crate) use watch::{Watch, Watched};

/// The evaluators there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluatorKind {
    /// Ours: CUPTI in the process.
    Cupti,
    /// NVIDIA's Nsight Systems.
    Nsys,
    /// NVIDIA's Nsight Compute.
    Ncu,
}

impl Choice for EvaluatorKind {
    const WHAT: &'static str = "evaluator";
    const ALL: &'static [(&'static str, Self)] = &[
        ("cupti", Self::Cupti),
        ("nsys", Self::Nsys),
        ("ncu", Self::Ncu),
        ("auto", Self::Cupti),
    ];
}

impl EvaluatorKind {
    /// The evaluator itself, or why it can't work here.
    pub(crate) fn ready(self, settings: &Settings, inherited: Inherited<'_>) -> Result<Box<dyn Evaluator>, RunError> {
        refuse_other_injection(settings.replace_injection, inherited)?;
        Ok(match self {
            Self::Cupti => Box::new(CuptiEvaluator::find()?),
            Self::Nsys => Box::new(NsysEvaluator::find(settings)?),
            Self::Ncu => Box::new(NcuEvaluator::find(settings)?),
        })
    }
}

/// Why a session without kernels has none, and what to do; further lines go on.
pub fn why_no_kernels(manifest: &Manifest) -> String {
    match manifest.evaluator.as_str() {
        "nsys" | "ncu" => tool::why_no_kernels(manifest),
        _ => no_kernels::why_no_kernels(manifest),
    }
}

/// What the other evaluators would need, for where our guest could not record.
pub(crate) fn other_evaluators() -> String {
    let here = |name| match profilers::newest(name) {
        profilers::Tool {
            path: Some(_), release, ..
        } => format!(
            "{name} {} is here",
            release.unwrap_or_else(|| "of unknown release".to_owned())
        ),
        _ => format!("{name} is not here"),
    };
    format!(
        "`--evaluator nsys` brings a libcupti of its own ({}); `--evaluator ncu` needs permission for the GPU's hardware \
         counters, and runs a few kernels many times over ({}); like colonel, both need that no other profiler is active in \
         the program",
        here("nsys"),
        here("ncu")
    )
}

/// The driver loads one injection: that of another tool, or one of ours.
fn refuse_other_injection(replace: bool, inherited: Inherited<'_>) -> Result<(), RunError> {
    match inherited(CUDA_INJECTION).filter(|value| !value.is_empty()) {
        Some(other) if !replace => Err(RunError::InjectionTaken {
            path: other.into(),
            ours: inherited(variables::SESSION).is_some(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_evaluators_are_named_with_what_each_needs() {
        let text = other_evaluators();
        for words in [
            "`--evaluator nsys` brings a libcupti",
            "(nsys ",
            "`--evaluator ncu` needs permission",
            "(ncu ",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn an_injection_that_is_there_is_named() {
        let taken = |name: &str| (name == CUDA_INJECTION).then(|| OsString::from("/opt/nsight/libinjection.so"));
        let error = refuse_other_injection(false, &taken).unwrap_err();
        assert_eq!(error.exit_code(), 125);
        let message = error.to_string();
        assert!(message.contains("`/opt/nsight/libinjection.so`,"), "{message}");
        assert!(message.contains("--replace-injection"), "{message}");
        refuse_other_injection(true, &taken).unwrap();

        let nested = |name: &str| {
            [CUDA_INJECTION, variables::SESSION]
                .contains(&name)
                .then(|| OsString::from("/g.so"))
        };
        let message = refuse_other_injection(false, &nested).unwrap_err().to_string();
        assert!(message.contains("by an outer `colonel run`"), "{message}");
    }
}
