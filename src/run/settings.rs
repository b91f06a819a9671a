//! The launcher's settings: what `colonel run` was asked to do, checked, without clap.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::evaluators::EvaluatorKind;
use super::flavors::Flavor;
use super::knobs::Knobs;
use crate::schema::counters;
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

/// What is taken of the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Every kernel, and counters where they are asked for.
    #[default]
    Full,
    /// Kernels in short windows now and then, and counters all the time where they are asked for.
    Sampled,
    /// Hardware counters alone: no record, no subscriber.
    Counters,
}

impl Choice for Mode {
    const WHAT: &'static str = "mode";
    const ALL: &'static [(&'static str, Self)] = &[
        ("full", Self::Full),
        ("sampled", Self::Sampled),
        ("counters", Self::Counters),
    ];
}

/// When kernels are recorded under [`Mode::Sampled`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bursts {
    /// Of one.
    pub length: Duration,
    /// From the start of one to the start of the next, in the mean.
    pub every: Duration,
}

impl Bursts {
    /// Shorter ones hold no step of a model.
    pub const SHORTEST: Duration = Duration::from_millis(1);
}

impl Default for Bursts {
    fn default() -> Self {
        Self {
            length: Duration::from_millis(20),
            every: Duration::from_secs(1),
        }
    }
}

/// Hardware counters to sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// Sets and metrics, as they are written on the command line.
    pub metrics: String,
    /// Time between two samples; none: the guest's own.
    pub interval: Option<Duration>,
    /// Leave the raw samples when they were evaluated.
    pub keep_samples: bool,
}

impl Counters {
    /// Shortest and longest interval between samples.
    const INTERVALS: [Duration; 2] = [Duration::from_micros(5), Duration::from_secs(1)];

    /// Reads sets and metrics as they are written on the command line.
    pub fn parse(text: &str) -> Result<String, String> {
        let (wanted, unknown) = counters::wanted(text);
        match unknown.as_slice() {
            [] if wanted.is_empty() => Err(format!(
                "names no metric: write `{}`, sets or metrics",
                counters::DEFAULT
            )),
            [] => Ok(text.to_owned()),
            unknown => Err(format!(
                "`{}` is neither a set ({}) nor a metric: `colonel counters` lists them, and NVIDIA's own names, such as \
                 `idc__requests.sum`, are taken, too",
                unknown.join(","),
                counters::sets().join(", ")
            )),
        }
    }

    /// Reads the time between two samples.
    pub fn parse_interval(text: &str) -> Result<Duration, String> {
        let [shortest, longest] = Self::INTERVALS;
        let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
        if (shortest..=longest).contains(&interval) {
            Ok(interval)
        } else {
            Err(format!("`{text}` is not between {shortest:?} and {longest:?}"))
        }
    }
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
    /// What is taken of the GPU.
    pub mode: Mode,
    /// When, under [`Mode::Sampled`].
    pub bursts: Bursts,
    /// Hardware counters.
    pub counters: Option<Counters>,
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
    fn counters_are_checked_before_the_command_starts() {
        assert_eq!(Counters::parse("dram,sm_active").unwrap(), "dram,sm_active");
        let error = Counters::parse("dram,bananas").unwrap_err();
        assert!(
            error.contains("`bananas`") && error.contains("dram, tensor, sm"),
            "{error}"
        );
        assert!(Counters::parse("").is_err());
        assert_eq!(Counters::parse_interval("20us"), Ok(Duration::from_micros(20)));
        assert!(
            Counters::parse_interval("1us")
                .unwrap_err()
                .contains("between 5µs and 1s")
        );
        assert!(Counters::parse_interval("often").is_err());
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
