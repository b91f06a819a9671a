//! What the launcher asks of the guest, read once from the environment.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::inject::bursts::Bursts;
use crate::inject::nvtx::Filter;
use crate::schema::counters::{self, Wanted};
use crate::schema::env;
use crate::schema::ranges::{PREFIX, RangePattern};

/// What opens a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GateKind {
    /// The process's whole life.
    Process,
    /// cudaProfilerStart/Stop.
    Profiler,
    /// The control socket.
    Manual,
    /// NVTX ranges.
    Nvtx,
}

impl GateKind {
    /// Its name in the environment and the session.
    pub(crate) fn name(self) -> &'static str {
        match self {
            GateKind::Process => "process",
            GateKind::Profiler => "profiler",
            GateKind::Manual => "manual",
            GateKind::Nvtx => "nvtx",
        }
    }
}

/// How cudaProfilerStart/Stop is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GateBy {
    /// Our symbols shadow the runtime's.
    Preload,
    /// A CUPTI callback, which makes graph launches dearer from cuInit on.
    Callback,
    /// Preload where a shared libcudart is mapped at cuInit, else callback.
    Auto,
}

/// From one burst to the next, where nothing else is asked for.
const BURST_EVERY: Duration = Duration::from_secs(1);

/// Hardware counters to sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CountersConfig {
    pub(crate) metrics: Vec<Wanted>,
    pub(crate) interval: Duration,
}

/// The guest's settings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) session: PathBuf,
    pub(crate) gate: GateKind,
    /// The ranges of gate `nvtx`.
    pub(crate) ranges: Option<Filter>,
    /// Whether each end of an NVTX range is placed among the launches.
    pub(crate) nvtx_marks: bool,
    pub(crate) gate_by: GateBy,
    pub(crate) after: Option<Duration>,
    pub(crate) length: Option<Duration>,
    /// Whether kernels and the like are recorded.
    pub(crate) records: bool,
    /// They are in bursts alone.
    pub(crate) bursts: Option<Bursts>,
    pub(crate) counters: Option<CountersConfig>,
    pub(crate) trace_api: bool,
    /// NVTX calls us, or will once the program uses it.
    pub(crate) trace_nvtx: bool,
    pub(crate) cupti: Option<PathBuf>,
    pub(crate) runtime: Option<PathBuf>,
    pub(crate) log: bool,
    pub(crate) dump_buffers: Option<PathBuf>,
    /// What was not understood; the session says it, the host never sees it.
    pub(crate) complaints: Vec<String>,
}

impl Config {
    /// Reads the process's environment. `None`: no session, so nothing to do.
    pub(crate) fn from_environment() -> Option<Config> {
        Config::parse(|name| std::env::var_os(name))
    }

    /// The gate as it was asked for.
    pub(crate) fn gate_name(&self) -> String {
        match &self.ranges {
            Some(ranges) => format!("{PREFIX}{}", ranges.text()),
            None => self.gate.name().to_owned(),
        }
    }

    pub(crate) fn parse(get: impl Fn(&str) -> Option<OsString>) -> Option<Config> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let text = |name: &str| get(name).map(|value| value.to_string_lossy().into_owned());
        let mut complaints = Vec::new();
        let mut complain = |name: &str, value: &str, expected: &str| {
            complaints.push(format!(
                "`{name}={value}` is not understood (expected {expected}); ignored"
            ));
        };
        let mut ranges = None;
        let gate = match text(env::GATE).as_deref() {
            None | Some("process") => GateKind::Process,
            Some("profiler") => GateKind::Profiler,
            Some("manual") => GateKind::Manual,
            Some(other) => match other.strip_prefix(PREFIX).map(RangePattern::parse) {
                Some(Ok(pattern)) => {
                    ranges = Some(Filter::new(&pattern));
                    GateKind::Nvtx
                }
                Some(Err(_)) | None => {
                    complain(env::GATE, other, "process, profiler, manual or nvtx:NAME[@DOMAIN]");
                    GateKind::Manual
                }
            },
        };
        let gate_by = match text(env::GATE_BY).as_deref() {
            None | Some("auto") => GateBy::Auto,
            Some("preload") => GateBy::Preload,
            Some("callback") => GateBy::Callback,
            Some(other) => {
                complain(env::GATE_BY, other, "preload, callback or auto");
                GateBy::Auto
            }
        };
        let mut nanoseconds = |name: &str| {
            let value = text(name)?;
            let parsed = value.parse().ok().map(Duration::from_nanos);
            if parsed.is_none() {
                complain(name, &value, "a whole number of nanoseconds");
            }
            parsed.filter(|duration| !duration.is_zero())
        };
        let (after, length) = (nanoseconds(env::AFTER), nanoseconds(env::FOR));
        let bursts = nanoseconds(env::BURST).map(|length| Bursts {
            length,
            every: nanoseconds(env::BURST_EVERY).unwrap_or(BURST_EVERY),
        });
        let interval = nanoseconds(env::COUNTERS_INTERVAL);
        let counters = text(env::COUNTERS).and_then(|words| {
            let (metrics, unknown) = counters::wanted(&words);
            if !unknown.is_empty() {
                complain(
                    env::COUNTERS,
                    &unknown.join(","),
                    "sets or metrics that `colonel counters` lists",
                );
            }
            (!metrics.is_empty()).then(|| CountersConfig {
                interval: interval.unwrap_or_else(|| counters::interval(&metrics)),
                metrics,
            })
        });
        let (mut trace_api, mut trace_nvtx) = (false, gate == GateKind::Nvtx);
        for kind in text(env::TRACE)
            .unwrap_or_default()
            .split(',')
            .filter(|kind| !kind.is_empty())
        {
            match kind {
                "api" => trace_api = true,
                // Told to NVTX itself, by its own variable.
                "nvtx" => trace_nvtx = true,
                other => complain(env::TRACE, other, "api or nvtx"),
            }
        }
        let session = PathBuf::from(get(env::SESSION)?);
        Some(Config {
            session,
            gate,
            ranges,
            nvtx_marks: text(env::NVTX_MARKS).is_none_or(|value| value != "0"),
            gate_by,
            after,
            length,
            records: text(env::RECORDS).is_none_or(|value| value != "0"),
            bursts,
            counters,
            trace_api,
            trace_nvtx,
            cupti: get(env::CUPTI).map(PathBuf::from),
            runtime: get(env::RUNTIME).map(PathBuf::from),
            log: text(env::LOG).is_some_and(|value| value != "0"),
            dump_buffers: get(env::DUMP_BUFFERS).map(PathBuf::from),
            complaints,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Option<Config> {
        Config::parse(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn no_session_means_nothing_to_do() {
        assert_eq!(parse(&[(env::GATE, "process")]), None);
        assert_eq!(parse(&[(env::SESSION, "")]), None);
    }

    #[test]
    fn what_is_not_understood_is_told_and_takes_no_record() {
        let config = parse(&[
            (env::SESSION, "/s"),
            (env::GATE, "sometimes"),
            (env::AFTER, "5s"),
            (env::TRACE, "api,x"),
        ]);
        let config = config.expect("a session is set");
        assert_eq!(config.gate, GateKind::Manual);
        assert!(config.trace_api);
        assert_eq!(config.complaints.len(), 3);
    }

    #[test]
    fn ranges_are_a_gate() {
        let parsed = |gate| parse(&[(env::SESSION, "/s"), (env::GATE, gate)]).expect("a session is set");
        let config = parsed("nvtx:step*@vllm");
        assert_eq!(
            (config.gate, config.gate_name().as_str()),
            (GateKind::Nvtx, "nvtx:step*@vllm")
        );
        assert!(config.complaints.is_empty() && config.nvtx_marks);
        let config = parsed("nvtx:@vllm");
        assert_eq!((config.gate, config.gate_name().as_str()), (GateKind::Manual, "manual"));
        assert_eq!(config.complaints.len(), 1);
    }

    #[test]
    fn counters_are_sets_and_metrics() {
        let parsed = |counters| parse(&[(env::SESSION, "/s"), (env::COUNTERS, counters)]).expect("a session is set");
        let config = parsed("tensor,bananas");
        let wanted = config.counters.expect("one of them is known");
        assert_eq!((wanted.metrics.len(), wanted.interval), (1, Duration::from_micros(100)));
        assert_eq!(config.complaints.len(), 1);
        assert_eq!(parsed("bananas").counters, None);
        let config = parse(&[(env::SESSION, "/s"), (env::RECORDS, "0")]).expect("a session is set");
        assert!(!config.records && config.counters.is_none());
    }

    #[test]
    fn times_are_nanoseconds() {
        let config = parse(&[(env::SESSION, "/s"), (env::AFTER, "1500"), (env::FOR, "0")]).expect("a session is set");
        assert_eq!(config.after, Some(Duration::from_nanos(1500)));
        assert_eq!(config.length, None);
    }
}
