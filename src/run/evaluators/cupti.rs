//! The default evaluator: the guest in every CUDA process, recording through CUPTI.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::super::RunError;
use super::super::environment::{CUDA_INJECTION, Environment, Inherited, LD_PRELOAD, NVTX_INJECTION};
use super::super::guest::find_guest;
use super::super::runtime::RuntimeFolder;
use super::super::settings::{Gate, Settings, Trace};
use super::Evaluator;
use super::no_kernels::why_no_kernels;
use crate::schema::env as variables;
use crate::schema::manifest::Session as Manifest;

/// With this path NVTX looks for no injection.
const NO_NVTX: &str = "./.";

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
        settings: &Settings,
        runtime: &RuntimeFolder,
        inherited: Inherited<'_>,
        environment: &mut Environment,
    ) -> Result<(), RunError> {
        let guest = runtime.linkable(&self.guest, LD_PRELOAD)?;
        environment.set(CUDA_INJECTION, &guest);
        environment.prepend(LD_PRELOAD, &guest, inherited);
        if wants_nvtx(settings) || annotates_vllm(environment, inherited) {
            environment.set(NVTX_INJECTION, &guest);
            environment.set_or_remove(variables::NVTX_CHAIN, other_nvtx(inherited));
        } else if inherited(variables::SESSION).is_some() {
            environment.set_or_remove(NVTX_INJECTION, inherited(variables::NVTX_CHAIN));
        }
        Ok(())
    }

    fn why_no_kernels(&self, manifest: &Manifest) -> Option<String> {
        Some(why_no_kernels(manifest))
    }
}

/// Only where it is asked for: each push and pop of the program would go through the guest.
fn wants_nvtx(settings: &Settings) -> bool {
    settings.trace.contains(&Trace::Nvtx) || matches!(settings.gate, Gate::Nvtx(_))
}

/// Whether colonel's own ranges in vLLM are wanted: by the flavor, or by the user.
fn annotates_vllm(environment: &Environment, inherited: Inherited<'_>) -> bool {
    let name = variables::VLLM_ENABLE_NVTX;
    let wanted = environment.get(name).map(OsStr::to_owned).or_else(|| inherited(name));
    wanted.is_some_and(|value| {
        let value = value.to_string_lossy().trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "false" | "no" | "off")
    })
}

/// Another tool's NVTX injection, which the guest calls first. Not the one of an outer colonel, nor the path that asks
/// for none.
fn other_nvtx(inherited: Inherited<'_>) -> Option<OsString> {
    let is_ours = inherited(variables::SESSION).is_some();
    inherited(NVTX_INJECTION).filter(|path| !is_ours && !path.is_empty() && path != NO_NVTX)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn ranges_in_vllm_are_on_unless_the_user_says_no() {
        let mut environment = Environment::default();
        assert!(!annotates_vllm(&environment, &|_| None));
        for (value, expected) in [("1", true), ("yes", true), ("", false), ("0", false), ("Off", false)] {
            assert_eq!(
                annotates_vllm(&environment, &|_| Some(value.into())),
                expected,
                "{value}"
            );
        }
        environment.set(variables::VLLM_ENABLE_NVTX, "1");
        assert!(annotates_vllm(&environment, &|_| None));
    }

    #[test]
    fn another_nvtx_injection_is_passed_on() {
        let inherited = |value: &'static str, session: bool| {
            move |name: &str| match name {
                NVTX_INJECTION => Some(OsString::from(value)),
                variables::SESSION if session => Some("/s".into()),
                _ => None,
            }
        };
        assert_eq!(
            other_nvtx(&inherited("/opt/tool.so", false)),
            Some("/opt/tool.so".into())
        );
        assert_eq!(other_nvtx(&inherited("/outer/guest.so", true)), None);
        assert_eq!(other_nvtx(&inherited("", false)), None);
        assert_eq!(other_nvtx(&inherited(NO_NVTX, false)), None);
        assert_eq!(other_nvtx(&|_| None), None);
    }
}
