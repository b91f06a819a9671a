//! Settings of NVIDIA's profilers, each defined once: from [`KNOBS`] come the options of `colonel run`, the keys of the
//! config files, the environment's variables and their checks.

use std::path::PathBuf;
use std::time::Duration;

use super::settings::Choice;

/// All of them, typed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Knobs {
    /// Of nsys.
    pub nsys: NsysKnobs,
    /// Of ncu.
    pub ncu: NcuKnobs,
}

/// Settings of nsys. What is none or empty is left to nsys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NsysKnobs {
    /// The program, where it is not to be looked for.
    pub path: Option<PathBuf>,
    /// `--trace`.
    pub trace: Vec<NsysTrace>,
    /// Whether NVTX is added to that, or taken out of it.
    pub enable_nvtx: Option<bool>,
    /// When it records.
    pub capture_range: Option<NsysRange>,
    /// `--capture-range-end`.
    pub capture_range_end: NsysRangeEnd,
    /// `--cuda-graph-trace`.
    pub graph_trace: Option<GraphLevel>,
    /// `--trace-fork-before-exec`.
    pub trace_forks: Option<bool>,
    /// How long it may write nothing once the command has ended.
    pub report_timeout: Duration,
}

impl Default for NsysKnobs {
    fn default() -> Self {
        Self {
            path: None,
            trace: Vec::new(),
            enable_nvtx: None,
            capture_range: None,
            capture_range_end: NsysRangeEnd::default(),
            graph_trace: None,
            trace_forks: None,
            // It tells each percent of a report.
            report_timeout: Duration::from_secs(300),
        }
    }
}

/// Settings of ncu. What is none or empty is left to ncu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NcuKnobs {
    /// The program, where it is not to be looked for.
    pub path: Option<PathBuf>,
    /// `--set`.
    pub set: Option<String>,
    /// `--section`, each.
    pub sections: Vec<String>,
    /// `--metrics`.
    pub metrics: Vec<String>,
    /// `--replay-mode`.
    pub replay_mode: Option<ReplayMode>,
    /// `--graph-profiling`.
    pub graph_profiling: Option<GraphLevel>,
    /// `--profile-from-start`; none: as the gate says.
    pub profile_from_start: Option<bool>,
    /// `--target-processes`.
    pub target_processes: Option<NcuTargets>,
    /// `--launch-count`: launches that are profiled, each by running it several times.
    pub launch_count: Option<u32>,
    /// `--launch-skip`.
    pub launch_skip: Option<u32>,
    /// `--kernel-name`.
    pub kernel: Option<String>,
    /// `--cache-control`.
    pub cache_control: Option<CacheControl>,
    /// `--clock-control`.
    pub clock_control: Option<ClockControl>,
    /// How long it may take until a kernel has been profiled.
    pub start_timeout: Duration,
    /// How long it may take from there to the next.
    pub stall_timeout: Duration,
}

impl Default for NcuKnobs {
    fn default() -> Self {
        Self {
            path: None,
            set: None,
            sections: Vec::new(),
            metrics: Vec::new(),
            replay_mode: None,
            graph_profiling: None,
            profile_from_start: None,
            target_processes: None,
            launch_count: None,
            launch_skip: None,
            kernel: None,
            cache_control: None,
            clock_control: None,
            // A cold engine takes a minute before ncu slows it down.
            start_timeout: Duration::from_secs(300),
            stall_timeout: Duration::from_secs(60),
        }
    }
}

/// One setting.
#[derive(Debug)]
pub struct Knob {
    /// Its key in config files; with dashes, its option.
    pub name: &'static str,
    /// What it takes, for help.
    pub takes: &'static str,
    /// What it means.
    pub about: &'static str,
    set: fn(&mut Knobs, &str) -> Result<(), String>,
}

impl Knob {
    /// The knob of that name.
    pub fn named(name: &str) -> Result<&'static Self, String> {
        KNOBS.iter().find(|knob| knob.name == name).ok_or_else(|| {
            let known: Vec<&str> = KNOBS.iter().map(|knob| knob.name).collect();
            format!("unknown setting `{name}` (known: {})", known.join(", "))
        })
    }

    /// The variable that sets it.
    pub fn variable(&self) -> String {
        format!("COLONEL_{}", self.name.to_uppercase())
    }

    /// The option of `colonel run`, without its dashes in front.
    pub fn option(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Sets it, or says what was expected.
    pub fn set(&self, knobs: &mut Knobs, value: &str) -> Result<(), String> {
        (self.set)(knobs, value.trim())
    }

    /// Says what is wrong with a value.
    pub fn check(&self, value: &str) -> Result<(), String> {
        self.set(&mut Knobs::default(), value)
    }
}

macro_rules! knobs {
    ($( $name:literal $takes:literal $about:literal => $tool:ident.$field:ident by $parse:expr; )*) => {
        /// Every setting, in the order of help.
        pub const KNOBS: &[Knob] = &[ $( Knob {
            name: $name,
            takes: $takes,
            about: $about,
            set: |knobs, value| {
                knobs.$tool.$field = $parse(value)?;
                Ok(())
            },
        }, )* ];
    };
}

knobs! {
    "nsys_path" "FILE" "nsys itself; without it the newest on the PATH and in /opt/nvidia is taken" => nsys.path by path;
    "nsys_trace" "KINDS" "What nsys records, comma-separated: `cuda`, `nvtx`, `osrt`, `cublas`, `cudnn`, …" => nsys.trace by choices;
    "nsys_enable_nvtx" "on|off" "Whether nsys records NVTX ranges, whatever its trace says" => nsys.enable_nvtx by switch;
    "nsys_capture_range" "WHAT" "When nsys records: `none` (always), `cudaProfilerApi` or `nvtx`; without it as the gate says" => nsys.capture_range by choice;
    "nsys_capture_range_end" "WHAT" "What the end of the range does: `stop` (later ranges are ignored), `repeat` (each range is a window), `repeat:N`, `none`" => nsys.capture_range_end by NsysRangeEnd::parse;
    "nsys_cuda_graph_trace" "LEVEL" "CUDA graphs by `node` (each kernel) or by `graph` (a launch as a whole)" => nsys.graph_trace by choice;
    "nsys_trace_fork_before_exec" "on|off" "Whether nsys follows processes that fork without exec, as vLLM's do" => nsys.trace_forks by switch;
    "nsys_report_timeout" "TIME" "Stop nsys where it has written nothing for this long after the command ended" => nsys.report_timeout by time;
    "ncu_path" "FILE" "ncu itself; without it the newest on the PATH and in /opt/nvidia is taken" => ncu.path by path;
    "ncu_set" "SET" "Set of sections, such as `basic`, `detailed`, `full` (`ncu --list-sets`)" => ncu.set by word;
    "ncu_section" "NAMES" "Sections, comma-separated, such as `SpeedOfLight` (`ncu --list-sections`)" => ncu.sections by words;
    "ncu_metrics" "NAMES" "Metrics, comma-separated (`ncu --query-metrics`)" => ncu.metrics by words;
    "ncu_replay_mode" "MODE" "How a kernel is run again for each pass: `kernel`, `application`, `range` or `app-range`" => ncu.replay_mode by choice;
    "ncu_graph_profiling" "LEVEL" "CUDA graphs by `node` (each kernel) or by `graph` (a launch as one workload)" => ncu.graph_profiling by choice;
    "ncu_profile_from_start" "on|off" "`off`: profile from cudaProfilerStart on; without it as the gate says" => ncu.profile_from_start by switch;
    "ncu_target_processes" "WHICH" "`all` processes, or `application-only`: the command's first" => ncu.target_processes by choice;
    "ncu_launch_count" "N|all" "Profile at most N launches, or `all`, whatever the flavor's bound" => ncu.launch_count by bound;
    "ncu_launch_skip" "N" "Leave out the first N launches" => ncu.launch_skip by count;
    "ncu_kernel" "NAME" "Profile only kernels of this name, or of a pattern: `regex:…`" => ncu.kernel by word;
    "ncu_cache_control" "WHAT" "`all`: flush the GPU's caches before each pass; `none`: leave them" => ncu.cache_control by choice;
    "ncu_clock_control" "WHAT" "`base`: hold the GPU at its base clock; `none`: leave it" => ncu.clock_control by choice;
    "ncu_start_timeout" "TIME" "Stop ncu where it has profiled no kernel after this long" => ncu.start_timeout by time;
    "ncu_stall_timeout" "TIME" "Stop ncu where no further kernel comes for this long" => ncu.stall_timeout by time;
}

fn choice<T: Choice>(value: &str) -> Result<Option<T>, String> {
    T::parse(value).map(Some)
}

fn choices<T: Choice>(value: &str) -> Result<Vec<T>, String> {
    words(value)?.iter().map(|word| T::parse(word)).collect()
}

fn switch(value: &str) -> Result<Option<bool>, String> {
    match value.to_lowercase().as_str() {
        "on" | "yes" | "true" | "1" => Ok(Some(true)),
        "off" | "no" | "false" | "0" => Ok(Some(false)),
        _ => Err(format!("`{value}` is neither `on` nor `off`")),
    }
}

fn count(value: &str) -> Result<Option<u32>, String> {
    let count = value.parse().ok().filter(|&count| count > 0);
    count
        .map(Some)
        .ok_or_else(|| format!("`{value}` is no number from 1 to {}", u32::MAX))
}

/// A count, or none for `all`.
fn bound(value: &str) -> Result<Option<u32>, String> {
    if value == "all" {
        return Ok(None);
    }
    count(value).map_err(|why| format!("{why}, nor `all`"))
}

fn time(value: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(value)
        .or_else(|error| value.parse().map(Duration::from_secs).map_err(|_| error))
        .map_err(|_| format!("`{value}` is no time, such as `60s` or `5min`"))?;
    if time.is_zero() {
        return Err("a time of 0 would stop it at once".to_owned());
    }
    Ok(time)
}

fn word(value: &str) -> Result<Option<String>, String> {
    if value.is_empty() || value.starts_with('-') {
        return Err(format!("`{value}` is no name"));
    }
    Ok(Some(value.to_owned()))
}

fn words(value: &str) -> Result<Vec<String>, String> {
    let words = value.split(',').map(str::trim);
    words.map(|name| Ok(word(name)?.unwrap_or_default())).collect()
}

fn path(value: &str) -> Result<Option<PathBuf>, String> {
    Ok(word(value)?.map(PathBuf::from))
}

macro_rules! choice {
    ($( #[$doc:meta] $Type:ident $what:literal { $( $( #[$variant_doc:meta] )? $Variant:ident = $name:literal, )* } )*) => {
        $(
            #[$doc]
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum $Type { $( #[doc = concat!("`", $name, "`.")] $( #[$variant_doc] )? $Variant, )* }

            impl Choice for $Type {
                const WHAT: &'static str = $what;
                const ALL: &'static [(&'static str, Self)] = &[ $( ($name, Self::$Variant), )* ];
            }
        )*
    };
}

choice! {
    /// A kind of events that nsys records.
    NsysTrace "kind of events of nsys" {
        Cuda = "cuda",
        Nvtx = "nvtx",
        Osrt = "osrt",
        Cublas = "cublas",
        Cudnn = "cudnn",
        Cusparse = "cusparse",
        Cusolver = "cusolver",
        Mpi = "mpi",
        Ucx = "ucx",
        PythonGil = "python-gil",
    }
    /// When nsys records.
    NsysRange "capture range" {
        Whole = "none",
        /// From cudaProfilerStart to cudaProfilerStop.
        ProfilerApi = "cudaProfilerApi",
        Nvtx = "nvtx",
    }
    /// What one row of a CUDA graph is.
    GraphLevel "level" {
        Node = "node",
        Graph = "graph",
    }
    /// How ncu runs a kernel again for each pass.
    ReplayMode "replay mode" {
        Kernel = "kernel",
        Application = "application",
        Range = "range",
        AppRange = "app-range",
    }
    /// Processes that ncu profiles.
    NcuTargets "choice of processes" {
        ApplicationOnly = "application-only",
        All = "all",
    }
    /// What ncu does to the GPU's caches.
    CacheControl "cache control" {
        All = "all",
        None = "none",
    }
    /// What ncu does to the GPU's clocks.
    ClockControl "clock control" {
        Base = "base",
        None = "none",
    }
}

/// What the end of nsys's capture range does. nsys's own choice, `stop-shutdown`, would end the command there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NsysRangeEnd {
    /// Later ranges are ignored.
    #[default]
    Stop,
    /// Each range makes a report, at most so many.
    Repeat(Option<u32>),
    /// Ends are ignored.
    Ignored,
}

impl NsysRangeEnd {
    fn parse(value: &str) -> Result<Self, String> {
        match (value, value.strip_prefix("repeat:")) {
            ("stop", _) => Ok(Self::Stop),
            ("repeat", _) => Ok(Self::Repeat(None)),
            ("none", _) => Ok(Self::Ignored),
            (_, Some(times)) => Ok(Self::Repeat(count(times)?)),
            _ => Err(format!(
                "unknown end of the capture range `{value}` (known: stop, repeat, repeat:N, none)"
            )),
        }
    }

    /// As nsys takes it.
    pub fn name(self) -> String {
        match self {
            Self::Stop => "stop".to_owned(),
            Self::Repeat(None) => "repeat".to_owned(),
            Self::Repeat(Some(times)) => format!("repeat:{times}"),
            Self::Ignored => "none".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Result<Knobs, String> {
        let mut knobs = Knobs::default();
        Knob::named(name)?.set(&mut knobs, value)?;
        Ok(knobs)
    }

    #[test]
    fn values_are_typed() {
        let knobs = set("nsys_trace", "cuda, nvtx").unwrap();
        assert_eq!(knobs.nsys.trace, [NsysTrace::Cuda, NsysTrace::Nvtx]);
        let knobs = set("nsys_capture_range_end", "repeat:3").unwrap();
        assert_eq!(knobs.nsys.capture_range_end, NsysRangeEnd::Repeat(Some(3)));
        assert_eq!(set("ncu_launch_count", "20").unwrap().ncu.launch_count, Some(20));
        let mut bound = set("ncu_launch_count", "128").unwrap();
        Knob::named("ncu_launch_count").unwrap().set(&mut bound, "all").unwrap();
        assert_eq!(bound.ncu.launch_count, None, "it takes a flavor's bound away");
        assert_eq!(
            set("ncu_profile_from_start", "off").unwrap().ncu.profile_from_start,
            Some(false)
        );
        assert_eq!(
            set("ncu_stall_timeout", "2min").unwrap().ncu.stall_timeout,
            Duration::from_secs(120)
        );
        assert_eq!(
            set("ncu_stall_timeout", "90").unwrap().ncu.stall_timeout,
            Duration::from_secs(90)
        );
        assert_eq!(set("ncu_section", "A,B").unwrap().ncu.sections, ["A", "B"]);
    }

    #[test]
    fn wrong_values_are_told_with_what_was_expected() {
        for (name, value, expected) in [
            (
                "ncu_replay_mode",
                "twice",
                "unknown replay mode `twice` (known: kernel, application, range, app-range)",
            ),
            ("nsys_trace", "cuda,opengl", "unknown kind of events of nsys `opengl`"),
            ("nsys_capture_range_end", "repeat:0", "`0` is no number from 1"),
            (
                "nsys_capture_range_end",
                "stop-shutdown",
                "(known: stop, repeat, repeat:N, none)",
            ),
            ("ncu_profile_from_start", "maybe", "`maybe` is neither `on` nor `off`"),
            (
                "ncu_launch_count",
                "many",
                "`many` is no number from 1 to 4294967295, nor `all`",
            ),
            ("ncu_launch_skip", "all", "`all` is no number from 1"),
            ("ncu_start_timeout", "soon", "`soon` is no time, such as `60s`"),
            ("ncu_start_timeout", "0s", "would stop it at once"),
            ("ncu_set", "--full", "`--full` is no name"),
            ("ncu_section", "A,,B", "`` is no name"),
            ("ncu_sets", "full", "unknown setting `ncu_sets` (known: nsys_path, "),
        ] {
            let error = set(name, value).unwrap_err();
            assert!(error.contains(expected), "{name} {value}: {error}");
        }
    }

    #[test]
    fn a_name_is_also_an_option_and_a_variable() {
        let knob = Knob::named("nsys_cuda_graph_trace").unwrap();
        assert_eq!(knob.option(), "nsys-cuda-graph-trace");
        assert_eq!(knob.variable(), "COLONEL_NSYS_CUDA_GRAPH_TRACE");
    }
}
