//! The launcher's settings: what `colonel run` was asked to do, checked, without clap.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::evaluators::EvaluatorKind;
use super::flavors::Flavor;
use super::knobs::Knobs;
use crate::schema::ranges::{PREFIX, RangePattern};
use crate::session::SessionsDir;

/// A setting with a fixed list of names.
pub trait Choice: Sized + Copy + PartialEq + 'static {
    /// What it is, for "unknown WHAT".
    const WHAT: &'static str;
    /// Every choice with its name.
    const ALL: &'static [(&'static str, Self)];

    /// Its name.
    fn word(self) -> &'static str {
        let known = Self::ALL.iter().find(|(_, choice)| *choice == self);
        known.map_or("", |(name, _)| name)
    }

    /// The choice of that name, or an error that lists them.
    fn parse(name: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, choice)| *choice)
            .ok_or_else(|| {
                let known: Vec<&str> = Self::ALL.iter().map(|(known, _)| *known).collect();
                format!("unknown {} `{name}` (known: {})", Self::WHAT, known.join(", "))
            })
    }
}

/// What opens a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// The process's whole life.
    Process,
    /// cudaProfilerStart and cudaProfilerStop.
    Profiler,
    /// `colonel start` and `colonel stop`.
    Manual,
    /// NVTX ranges of that name and domain.
    Nvtx(RangePattern),
}

impl Gate {
    /// Those without a pattern.
    const NAMED: [Self; 3] = [Self::Process, Self::Profiler, Self::Manual];

    /// Reads a gate as it is written on the command line.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(pattern) = text.strip_prefix(PREFIX) {
            return RangePattern::parse(pattern).map(Self::Nvtx);
        }
        let known = Self::NAMED.into_iter().find(|gate| gate.name() == text);
        known.ok_or_else(|| {
            let known = Self::NAMED.map(|gate| gate.name().into_owned()).join(", ");
            format!("unknown gate `{text}` (known: {known}, nvtx:NAME[@DOMAIN])")
        })
    }

    /// Its name in the environment and the session.
    pub fn name(&self) -> Cow<'static, str> {
        match self {
            Self::Process => "process".into(),
            Self::Profiler => "profiler".into(),
            Self::Manual => "manual".into(),
            Self::Nvtx(pattern) => format!("{PREFIX}{pattern}").into(),
        }
    }
}

/// How cudaProfilerStart is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateBy {
    /// By interposed symbols: free while armed.
    Preload,
    /// By a CUPTI callback: also where the symbols can't be interposed, at a cost.
    Callback,
    /// The guest looks which of both it needs.
    Auto,
}

impl Choice for GateBy {
    const WHAT: &'static str = "way to see the gate";
    const ALL: &'static [(&'static str, Self)] = &[
        ("preload", Self::Preload),
        ("callback", Self::Callback),
        ("auto", Self::Auto),
    ];
}

impl GateBy {
    /// Its name in the environment.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preload => "preload",
            Self::Callback => "callback",
            Self::Auto => "auto",
        }
    }
}

/// A record kind beyond the default ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// Calls of the CUDA runtime and driver.
    Api,
    /// NVTX ranges.
    Nvtx,
}

impl Choice for Trace {
    const WHAT: &'static str = "record kind";
    const ALL: &'static [(&'static str, Self)] = &[("api", Self::Api), ("nvtx", Self::Nvtx)];
}

impl Trace {
    /// Its name in the environment and the session.
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Nvtx => "nvtx",
        }
    }
}

/// All that `colonel run` was asked to do.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name for the session.
    pub name: Option<String>,
    /// Kind of workload.
    pub flavor: &'static Flavor,
    /// What opens a window.
    pub gate: Gate,
    /// How cudaProfilerStart is seen.
    pub gate_by: GateBy,
    /// Delay between the trigger and the window.
    pub after: Option<Duration>,
    /// Longest window.
    pub window: Option<Duration>,
    /// More record kinds.
    pub trace: Vec<Trace>,
    /// Which profiler.
    pub evaluator: EvaluatorKind,
    /// Settings of nsys and ncu.
    pub knobs: Knobs,
    /// Working directory of the command.
    pub cwd: Option<PathBuf>,
    /// Where sessions are.
    pub sessions: SessionsDir,
    /// Run under gpu-sim.
    pub sim: bool,
    /// Compact the session in the end.
    pub analyze: bool,
    /// Take the place of another CUDA injection.
    pub replace_injection: bool,
    /// The command; never empty.
    pub command: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_agree<T: Choice + PartialEq + std::fmt::Debug>(name: fn(T) -> &'static str) {
        for (known, choice) in T::ALL {
            assert_eq!(name(*choice), *known);
            assert_eq!(T::parse(known).as_ref(), Ok(choice));
        }
    }

    #[test]
    fn every_choice_parses_from_its_own_name() {
        names_agree(GateBy::name);
        names_agree(Trace::name);
    }

    #[test]
    fn gates_parse_from_their_names() {
        for name in ["process", "profiler", "manual", "nvtx:step", "nvtx:layer*@vllm"] {
            assert_eq!(Gate::parse(name).unwrap().name(), name);
        }
        assert_eq!(
            Gate::parse("nvtx").unwrap_err(),
            "unknown gate `nvtx` (known: process, profiler, manual, nvtx:NAME[@DOMAIN])"
        );
        assert!(Gate::parse("nvtx:@vllm").unwrap_err().contains("names no range"));
    }
}
