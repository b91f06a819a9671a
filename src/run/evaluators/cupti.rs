//! The default evaluator: the guest in every CUDA process, recording through CUPTI.

use std::path::{Path, PathBuf};

use super::super::RunError;
use super::super::environment::{CUDA_INJECTION, Environment, Inherited, LD_PRELOAD};
use super::super::guest::find_guest;
use super::super::runtime::RuntimeFolder;
use super::super::settings::Settings;
use super::Evaluator;
use super::no_kernels::why_no_kernels;
use crate::schema::env as variables;
use crate::schema::manifest::Session as Manifest;

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
        Some(why_no_kernels(manifest))
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
