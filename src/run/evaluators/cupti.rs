//! The default evaluator: the guest in every CUDA process, recording through CUPTI.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::super::RunError;
use super::super::command::Streams;
use super::super::environment::{CUDA_INJECTION, Environment, Inherited, LD_PRELOAD, NVTX_INJECTION};
use super::super::guest::find_guest;
use super::super::runtime::RuntimeFolder;
use super::super::settings::{Gate, Settings, Trace};
use super::{Evaluator, Watched};
use crate::schema::env as variables;
use crate::schema::manifest::Exit;
use crate::session::SessionWriter;

/// With this path NVTX looks for no injection.
const NO_NVTX: &str = "./.";

/// Records with `libcolonel_guest.so`.
#[derive(Debug)]
pub(crate) struct CuptiEvaluator {
    guest: PathBuf,
}

impl CuptiEvaluator {
    /// Finds the guest.
    pub(super) fn find() -> Result<Self, RunError> {
        Ok(Self { guest: find_guest()? })
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
            environment.set(variables::TRACE, with_nvtx(environment.get(variables::TRACE)));
            environment.set_or_remove(variables::NVTX_CHAIN, other_nvtx(inherited));
        } else if inherited(variables::SESSION).is_some() {
            environment.set_or_remove(NVTX_INJECTION, inherited(variables::NVTX_CHAIN));
        }
        Ok(())
    }

    fn command(&self, _: &mut SessionWriter, command: &[OsString]) -> Result<(Vec<OsString>, Streams), RunError> {
        Ok((command.to_vec(), Streams::Inherited))
    }

    fn collect(&self, _: &mut SessionWriter, exit: Exit, _: Watched) -> Exit {
        exit
    }
}

/// Only where it is asked for: each push and pop of the program would go through the guest.
fn wants_nvtx(settings: &Settings) -> bool {
    settings.trace.contains(&Trace::Nvtx) || matches!(settings.gate, Gate::Nvtx(_))
}

/// What the guest is to record, with ranges among it: it also looks at how graphs are captured then.
fn with_nvtx(kinds: Option<&OsStr>) -> OsString {
    let kinds = kinds.unwrap_or_default().to_string_lossy();
    let nvtx = Trace::Nvtx.name();
    let others = kinds.split(',').filter(|kind| !kind.is_empty() && *kind != nvtx);
    others.chain([nvtx]).collect::<Vec<_>>().join(",").into()
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
    fn the_guest_is_told_of_ranges_whoever_wants_them() {
        assert_eq!(with_nvtx(None), "nvtx");
        assert_eq!(with_nvtx(Some(OsStr::new("api"))), "api,nvtx");
        assert_eq!(with_nvtx(Some(OsStr::new("nvtx,api"))), "api,nvtx");
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
