//! The JSON files of a session: `session.json`, written by the launcher only, and `processes/PID-START.json`,
//! written by that guest only.
//!
//! Unknown fields are ignored and absent ones take defaults, so that minor versions read each other.
//! A reader refuses a larger major.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Version of the session format. The major grows when an old reader would misread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// Readers refuse a larger one.
    pub major: u32,
    /// Grows with each added field or table.
    pub minor: u32,
}

/// What this build writes.
pub const FORMAT: Format = Format { major: 1, minor: 3 };

/// Name of the session's own file.
pub const SESSION_FILE: &str = "session.json";
/// Folder of the guests' files.
pub const PROCESSES_DIR: &str = "processes";

/// `session.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Format of the whole folder.
    pub format: Format,
    /// 8 hex digits, also the folder's name.
    pub id: String,
    /// `--name`.
    #[serde(default)]
    pub name: Option<String>,
    /// Version of colonel that wrote it.
    pub colonel: String,
    /// Commit of that build.
    #[serde(default)]
    pub commit: String,
    /// Where its life is.
    pub state: SessionState,
    /// Made, Unix ns.
    pub created_ns: i64,
    /// Command ended, Unix ns.
    #[serde(default)]
    pub ended_ns: Option<i64>,
    /// The command, non-UTF-8 replaced.
    pub command: Vec<String>,
    /// Working directory of the command.
    pub cwd: String,
    /// `cupti`, `nsys` or `ncu`.
    pub evaluator: String,
    /// `generic` or `vllm`.
    pub flavor: String,
    /// Gate of the guests.
    pub gate: String,
    /// Extra record kinds.
    #[serde(default)]
    pub trace: Vec<String>,
    /// Ran under gpu-sim.
    #[serde(default)]
    pub simulated: bool,
    /// NVIDIA's profiler, where one recorded.
    #[serde(default)]
    pub profiler: Option<Profiler>,
    /// Versions of what the command's python will import, such as `vllm` and `torch`, and its own, `python`; empty
    /// where they were not asked for or not found.
    #[serde(default)]
    pub software: BTreeMap<String, String>,
    /// The machine.
    #[serde(default)]
    pub host: Host,
    /// Who writes this file, while the session runs.
    #[serde(default)]
    pub launcher: Option<ProcessId>,
    /// How the command ended.
    #[serde(default)]
    pub exit: Option<Exit>,
    /// The guests' files as they were at sealing.
    #[serde(default)]
    pub processes: Vec<Process>,
    /// Rows a table, at sealing.
    #[serde(default)]
    pub rows: BTreeMap<String, u64>,
    /// All losses, at sealing.
    #[serde(default)]
    pub losses: Vec<Loss>,
    /// How the samples of hardware counters became rows; null without any.
    #[serde(default)]
    pub evaluation: Option<Evaluation>,
    /// What went wrong in the launcher, or was found at sealing.
    #[serde(default)]
    pub problems: Vec<Problem>,
}

/// What it took to turn raw samples into rows of `counters`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Samples that became rows.
    pub samples: u64,
    /// Samples outside of every window, or without a length.
    pub left_out: u64,
    /// Rows.
    pub rows: u64,
    /// Processes that shared the work.
    pub shards: u32,
    /// CPU time of all, ns.
    pub cpu_ns: u64,
    /// From begin to end, ns.
    pub wall_ns: u64,
}

impl Evaluation {
    /// Adds that of another file.
    pub fn add(&mut self, other: &Evaluation) {
        self.samples += other.samples;
        self.left_out += other.left_out;
        self.rows += other.rows;
        self.shards = self.shards.max(other.shards);
        self.cpu_ns += other.cpu_ns;
        self.wall_ns += other.wall_ns;
    }
}

/// NVIDIA's profiler that recorded a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profiler {
    /// The program.
    pub path: PathBuf,
    /// What it says of itself.
    #[serde(default)]
    pub release: Option<String>,
    /// All that was started, the command included.
    #[serde(default)]
    pub command: Vec<String>,
    /// Its reports, below the session's folder.
    #[serde(default)]
    pub reports: Vec<String>,
    /// Time from the command's end until they had been read, ns.
    #[serde(default)]
    pub collect_ns: Option<u64>,
}

/// Where a session's life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// The command runs, or the launcher died with it.
    Running,
    /// Ended, tables as the guests wrote them.
    Sealed,
    /// Ended, tables sorted and merged.
    Compacted,
}

/// The machine that ran it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// Kernel release.
    pub kernel: String,
    /// CPUs online.
    pub cpus: u32,
}

/// What names a process of a machine for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot, as in /proc/PID/stat.
    pub start_ticks: u64,
}

/// How the command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, unless killed.
    pub code: Option<i32>,
    /// Signal that killed it.
    pub signal: Option<i32>,
}

/// `processes/PID-START.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Format of this file.
    pub format: Format,
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot, as in /proc/PID/stat: with the pid it names a process for good.
    pub start_ticks: u64,
    /// Parent.
    pub ppid: u32,
    /// /proc/self/exe.
    #[serde(default)]
    pub exe: String,
    /// Command line, non-UTF-8 replaced.
    #[serde(default)]
    pub command: Vec<String>,
    /// CUDA initialised, Unix ns.
    pub started_ns: i64,
    /// The guest finished in order, Unix ns. Null: it runs, or was cut off.
    #[serde(default)]
    pub ended_ns: Option<i64>,
    /// What the guest does.
    pub state: ProcessState,
    /// Gate in force.
    pub gate: String,
    /// How cudaProfilerStart/Stop is seen: `preload` or `callback`; null where the gate does not need it.
    #[serde(default)]
    pub gate_by: Option<String>,
    /// The libcupti in use, once attached.
    #[serde(default)]
    pub cupti: Option<Cupti>,
    /// Driver's CUDA version (13000 for 13.0).
    #[serde(default)]
    pub driver_version: Option<u32>,
    /// Time that CUPTI was first touched, Unix ns. Null: never, so armed for free.
    #[serde(default)]
    pub attached_ns: Option<i64>,
    /// Windows so far.
    #[serde(default)]
    pub windows: Vec<Window>,
    /// Rows sealed so far, a table.
    #[serde(default)]
    pub rows: BTreeMap<String, u64>,
    /// Records that came outside every window and were let go, as they should.
    #[serde(default)]
    pub outside_windows: u64,
    /// Losses so far.
    #[serde(default)]
    pub losses: Vec<Loss>,
    /// Hardware counters, a device that is or was sampled.
    #[serde(default)]
    pub counters: Vec<Sampled>,
    /// Why something could not be had.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// Control socket.
    #[serde(default)]
    pub control: Option<PathBuf>,
}

/// What a guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// Waits for its gate; no record is taken.
    Armed,
    /// A window is open.
    Capturing,
    /// Out for good; `problems` says why.
    Off,
    /// Finished in order.
    Ended,
}

/// The libcupti in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cupti {
    /// File.
    pub path: String,
    /// CUPTI_API_VERSION.
    pub api_version: u32,
    /// How it was found: `mapped`, `env`, `beside_cudart`, `soname` or `cuda_home`.
    pub found: String,
}

/// How a device's hardware counters are sampled, and what it came to so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampled {
    /// CUDA device ordinal.
    pub device_id: u32,
    /// The chip, as CUPTI names it.
    pub chip: String,
    /// Metrics that are sampled.
    pub metrics: Vec<String>,
    /// Metrics that were asked for and are not: the chip lacks them, or they need a pass of their own.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// Interval that was asked for, ns.
    pub asked_interval_ns: u64,
    /// Interval in force, ns: longer where samples came faster than they could be stored.
    pub interval_ns: u64,
    /// Bytes of the hardware's buffer.
    pub hardware_buffer_bytes: u64,
    /// Bytes of a counter data image, and samples that it holds.
    pub image_bytes: u64,
    /// See `image_bytes`.
    pub image_samples: u32,
    /// Samples stored.
    #[serde(default)]
    pub samples: u64,
    /// Samples that the hardware's buffer had no room for.
    #[serde(default)]
    pub lost_samples: u64,
    /// Raw data written.
    #[serde(default)]
    pub raw_bytes: u64,
    /// CPU time that our thread took for all devices, ns.
    #[serde(default)]
    pub cpu_ns: u64,
}

/// A window, see the table `windows`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// From 1.
    pub number: u32,
    /// Opened, Unix ns.
    pub start_ns: i64,
    /// Closed, Unix ns.
    #[serde(default)]
    pub end_ns: Option<i64>,
    /// `process`, `profiler`, `manual`, `region`, `nvtx` or, of `--mode sampled`, `burst`.
    pub trigger: String,
    /// Name given.
    #[serde(default)]
    pub name: Option<String>,
    /// All that was complete when it closed is on disk, Unix ns. Null in a process that was killed: some of it is not.
    #[serde(default)]
    pub sealed_ns: Option<i64>,
    /// Records were taken in the windows of trigger `burst` within it alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sampled: bool,
}

#[cfg(test)]
impl Window {
    /// Of a region, for tests.
    pub(crate) fn of_region(number: u32, start_ns: i64, end_ns: Option<i64>) -> Self {
        Self {
            number,
            start_ns,
            end_ns,
            trigger: "region".to_owned(),
            name: None,
            sealed_ns: None,
            sampled: false,
        }
    }
}

/// What opens the windows of `--mode sampled`.
pub const BURST: &str = "burst";

/// Records that did not become rows, see the table `losses`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Process; null when not of one.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Table, or `records`.
    pub kind: String,
    /// Reason, from the list in `tables`.
    pub reason: String,
    /// Records; null where nobody can tell.
    pub count: Option<u64>,
    /// First seen, Unix ns.
    pub first_ns: i64,
    /// Last seen, Unix ns.
    pub last_ns: i64,
}

/// Something that could not be had, in words for its reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Short and stable, for machines: `no_cupti`, `other_subscriber`, …
    pub code: String,
    /// What was wrong, what was expected, what to do next.
    pub message: String,
    /// Noticed, Unix ns.
    #[serde(default)]
    pub time_ns: i64,
}

impl Problem {
    /// Code of a session whose durations from ncu are far longer than the work's.
    pub const NCU_DURATIONS_INFLATED: &str = "ncu_durations_inflated";
}

/// `processes/PID-START.progress`: rewritten in place for each buffer, in fixed width, so that a killed process leaves
/// the number of records that were not sealed yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Records received that become rows, a table.
    pub received: BTreeMap<String, u64>,
    /// Rows sealed, a table.
    pub sealed: BTreeMap<String, u64>,
}
