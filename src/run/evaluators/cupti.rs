//! The default evaluator: the guest in every CUDA process, recording through CUPTI.

use std::path::{Path, PathBuf};

use super::super::RunError;
use super::super::environment::{CUDA_INJECTION, Environment, Inherited, LD_PRELOAD};
use super::super::guest::find_guest;
use super::super::runtime::RuntimeFolder;
use super::super::settings::{Gate, Settings};
use super::Evaluator;
use crate::schema::env as variables;
use crate::schema::manifest::{Process, ProcessState, Session as Manifest};

/// Records with `libcolonel_guest.so`.
#[derive(Debug)]
pub struct CuptiEvaluator {
    guest: PathBuf,
}

impl CuptiEvaluator {
    /// Finds the guest, and refuses where another tool's library has its place.
    pub fn new(replace_injection: bool, inherited: Inherited<'_>) -> Result<Self, RunError> {
        if let Some(other) = inherited(CUDA_INJECTION).filter(|value| !value.is_empty())
            && !replace_injection
        {
            return Err(RunError::InjectionTaken {
                path: other.into(),
                ours: inherited(variables::SESSION).is_some(),
            });
        }
        Ok(Self::with_guest(find_guest()?))
    }

    /// With a guest that was found already.
    pub fn with_guest(guest: PathBuf) -> Self {
        Self { guest }
    }

    /// The guest's file.
    pub fn guest(&self) -> &Path {
        &self.guest
    }
}

impl Evaluator for CuptiEvaluator {
    fn name(&self) -> &'static str {
        "cupti"
    }

    fn environment(
        &self,
        _settings: &Settings,
        runtime: &RuntimeFolder,
        inherited: Inherited<'_>,
        environment: &mut Environment,
    ) -> Result<(), RunError> {
        let guest = runtime.linkable(&self.guest, LD_PRELOAD)?;
        environment.set(CUDA_INJECTION, &guest);
        environment.prepend(LD_PRELOAD, &guest, inherited);
        Ok(())
    }

    fn why_no_kernels(&self, manifest: &Manifest) -> Option<String> {
        if manifest.processes.is_empty() {
            return Some("no process of this command initialised CUDA".to_owned());
        }
        if let Some(off) = manifest
            .processes
            .iter()
            .find(|process| process.state == ProcessState::Off)
        {
            let message = off
                .problems
                .last()
                .map_or("it does not say why", |problem| problem.message.as_str());
            return Some(format!("pid {} could not be recorded: {message}", off.pid));
        }
        if manifest.losses.iter().any(|loss| loss.kind == "kernels") {
            return Some("every kernel that was recorded is lost".to_owned());
        }
        if !manifest.processes.iter().all(|process| process.windows.is_empty()) {
            return Some("nothing was launched on a GPU while a window was open".to_owned());
        }
        Some(why_no_window(&manifest.gate, &manifest.processes))
    }
}

fn why_no_window(gate: &str, processes: &[Process]) -> String {
    let who = match processes {
        [one] => format!("pid {} initialised CUDA, but", one.pid),
        several => format!("{} processes initialised CUDA, but", several.len()),
    };
    let by_callback = processes
        .iter()
        .any(|process| process.gate_by.as_deref() == Some("callback"));
    if gate == Gate::Profiler.name() {
        let mut text = format!(
            "{who} no window opened: cudaProfilerStart was not called\n\
             call torch.cuda.profiler.start() and stop() around what is to be recorded, or take `--gate process`"
        );
        if !by_callback {
            text +=
                "\na program that calls it through ctypes, cuda-python or a static cudart needs `--gate-by callback`";
        }
        text
    } else if gate == Gate::Manual.name() {
        format!("{who} no window opened: open one with `colonel start` while the command runs")
    } else {
        format!("{who} ended before the window opened: take a shorter `--after`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn an_injection_that_is_there_is_named() {
        let taken = |name: &str| (name == CUDA_INJECTION).then(|| OsString::from("/opt/nsight/libinjection.so"));
        let error = CuptiEvaluator::new(false, &taken).unwrap_err();
        assert_eq!(error.exit_code(), 125);
        let message = error.to_string();
        assert!(message.contains("`/opt/nsight/libinjection.so`,"), "{message}");
        assert!(message.contains("--replace-injection"), "{message}");

        let nested = |name: &str| {
            [CUDA_INJECTION, variables::SESSION]
                .contains(&name)
                .then(|| OsString::from("/g.so"))
        };
        let message = CuptiEvaluator::new(false, &nested).unwrap_err().to_string();
        assert!(message.contains("by an outer `colonel run`"), "{message}");
    }
}
