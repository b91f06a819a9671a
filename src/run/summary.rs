//! What is said when the command has ended: on stderr in a few lines, and as JSON for `--json FILE`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::words::{bytes, counted, grouped, nanoseconds};
use crate::schema::manifest::{
    BURST, Exit, Loss, Problem, Process, ProcessState, Profiler, Sampled, Session as Manifest, SessionState, Window,
};
use crate::session::covered_ns;

/// Why there is no kernel where none was asked for.
pub(crate) const COUNTERS_ALONE: &str = "hardware counters alone were asked for (`--mode counters`)";

/// Version of the JSON: grows when a field changes its meaning.
pub const JSON_VERSION: u32 = 1;

/// A session in short.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// [`JSON_VERSION`].
    pub version: u32,
    /// Session id.
    pub session: String,
    /// `--name`.
    pub name: Option<String>,
    /// Session folder, absolute.
    pub path: PathBuf,
    /// Session folder as shown to the user.
    #[serde(skip)]
    pub shown: PathBuf,
    /// Where the session's life is.
    pub state: SessionState,
    /// How the command ended.
    pub exit: Option<Exit>,
    /// What `colonel run` exits with.
    pub exit_code: u8,
    /// From the session's making to the command's end.
    pub duration_ns: u64,
    /// Ran under gpu-sim.
    pub simulated: bool,
    /// NVIDIA's profiler, where one recorded.
    pub profiler: Option<Profiler>,
    /// Processes that initialised CUDA.
    pub processes: Vec<ProcessSummary>,
    /// Windows: the most that one process had.
    pub windows: u64,
    /// Time in windows, also where several were open counted once: the longest of one process.
    pub window_ns: u64,
    /// Short windows within these that alone were recorded, of the process with the most; 0 unless sampled.
    pub bursts: u64,
    /// Time that they cover, ns, of the process with the most; 0 unless sampled.
    pub burst_ns: u64,
    /// Rows a table.
    pub rows: BTreeMap<String, u64>,
    /// Records lost, as far as counted.
    pub lost: u64,
    /// Whether some loss could not be counted.
    pub lost_uncounted: bool,
    /// What was lost, by kind and reason.
    pub losses: Vec<Loss>,
    /// What went wrong.
    pub problems: Vec<ProblemSummary>,
    /// Hardware counters that were sampled, a device of a process each.
    pub counters: Vec<Sampled>,
    /// Why there is no kernel; null if there is one.
    pub why_no_kernels: Option<String>,
    /// Size on disk.
    pub bytes: u64,
}

/// Windows that a gate opened.
fn asked_for(process: &Process) -> impl Iterator<Item = &Window> {
    process.windows.iter().filter(|window| window.trigger != BURST)
}

/// Those within them that `--mode sampled` records.
fn bursts(process: &Process) -> impl Iterator<Item = &Window> {
    process.windows.iter().filter(|window| window.trigger == BURST)
}

/// A process in short.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessSummary {
    /// Process id.
    pub pid: u32,
    /// Short name, from its command line.
    pub name: String,
    /// GPUs that it used, by product name.
    pub gpus: Vec<String>,
    /// What the guest did last.
    pub state: ProcessState,
    /// Its windows.
    pub windows: Vec<Window>,
    /// Time from CUDA's start to the first touch of CUPTI; null if it was never touched.
    pub armed_ns: Option<u64>,
    /// Rows sealed by its guest, a table.
    pub rows: BTreeMap<String, u64>,
}

/// A problem, and whose.
#[derive(Debug, Clone, Serialize)]
pub struct ProblemSummary {
    /// Process; null for the launcher's own.
    pub pid: Option<u32>,
    /// Short and stable.
    pub code: String,
    /// In words.
    pub message: String,
}

/// What a manifest does not hold.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Session folder, absolute.
    pub path: PathBuf,
    /// Session folder as the user would write it.
    pub shown: PathBuf,
    /// GPUs of each process.
    pub gpus: BTreeMap<u32, Vec<String>>,
    /// Size on disk.
    pub bytes: u64,
    /// What `colonel run` exits with.
    pub exit_code: u8,
    /// The evaluator's word on a session without kernels.
    pub why_no_kernels: Option<String>,
}

impl Summary {
    /// From a sealed session's manifest.
    pub fn new(manifest: &Manifest, around: Surroundings) -> Self {
        let ended_ns = manifest.ended_ns.unwrap_or(manifest.created_ns);
        let processes: Vec<ProcessSummary> = manifest
            .processes
            .iter()
            .map(|process| ProcessSummary {
                pid: process.pid,
                name: process_name(process),
                gpus: around.gpus.get(&process.pid).cloned().unwrap_or_default(),
                state: process.state,
                windows: process.windows.clone(),
                armed_ns: process.attached_ns.map(|attached| span(process.started_ns, attached)),
                rows: process.rows.clone(),
            })
            .collect();
        let most = |of: &dyn Fn(&Process) -> u64| manifest.processes.iter().map(of).max().unwrap_or(0);
        let end_of = |process: &Process| process.ended_ns.unwrap_or(ended_ns);
        Self {
            version: JSON_VERSION,
            session: manifest.id.clone(),
            name: manifest.name.clone(),
            path: around.path,
            shown: around.shown,
            state: manifest.state,
            exit: manifest.exit.clone(),
            exit_code: around.exit_code,
            duration_ns: span(manifest.created_ns, ended_ns),
            simulated: manifest.simulated,
            profiler: manifest.profiler.clone(),
            windows: most(&|process| asked_for(process).count() as u64),
            window_ns: most(&|process| covered_ns(asked_for(process), end_of(process))),
            bursts: most(&|process| bursts(process).count() as u64),
            burst_ns: most(&|process| covered_ns(bursts(process), end_of(process))),
            processes,
            rows: manifest.rows.clone(),
            lost: manifest.losses.iter().filter_map(|loss| loss.count).sum(),
            lost_uncounted: manifest.losses.iter().any(|loss| loss.count.is_none()),
            losses: manifest.losses.clone(),
            problems: all_problems(manifest),
            counters: manifest
                .processes
                .iter()
                .flat_map(|process| process.counters.clone())
                .collect(),
            why_no_kernels: around.why_no_kernels,
            bytes: around.bytes,
        }
    }

    /// Kernels recorded.
    pub fn kernels(&self) -> u64 {
        self.rows.get("kernels").copied().unwrap_or(0)
    }

    /// The closing lines. `list_option` is what `colonel show` needs to find the session, such as
    /// ` --sessions-dir D`.
    pub fn render(&self, list_option: &str) -> String {
        let mut lines = Vec::new();
        match (self.kernels(), self.samples()) {
            (0, None) => self.render_without_kernels(&mut lines),
            (0, Some(samples)) => {
                lines.push(self.headline());
                lines.push(format!("{samples}  {}", bytes(self.bytes)));
                if self.why_no_kernels.as_deref() != Some(COUNTERS_ALONE) {
                    self.render_without_kernels(&mut lines);
                }
            }
            (_, samples) => {
                lines.push(self.headline());
                lines.push(self.figures());
                lines.extend(samples);
            }
        }
        lines.extend(self.profiler.as_ref().and_then(|profiler| self.reports(profiler)));
        lines.extend(self.warnings());
        if self.rows.values().any(|&rows| rows > 0) {
            lines.push(self.next(list_option));
        }
        let mut text = String::from("colonel: ");
        text += &lines.join("\n").replace('\n', "\n         ");
        text.push('\n');
        text
    }

    /// The reports of NVIDIA's profiler, which its own programs open.
    fn reports(&self, profiler: &Profiler) -> Option<String> {
        let first = profiler.reports.first()?;
        let more = match profiler.reports.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let took = profiler
            .collect_ns
            .map_or(String::new(), |ns| format!(", read in {}", nanoseconds(ns)));
        let release = profiler
            .release
            .as_deref()
            .and_then(|release| release.split('-').next());
        let release = release.map_or(String::new(), |release| format!(" {release}"));
        let name = profiler.path.file_name().unwrap_or_default().display();
        Some(format!(
            "by {name}{release}: {}{more}{took}",
            self.shown.join(first).display()
        ))
    }

    /// What was lost and what went wrong, a line each: they come before any figure.
    pub fn warnings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.render_losses(&mut lines);
        self.render_problems(&mut lines);
        lines
    }

    /// How many windows there were, how long, and what of them was recorded.
    pub fn windows_in_words(&self, between: &str) -> String {
        let mut words = format!(
            "{}{between}{}",
            counted(self.windows, "window"),
            nanoseconds(self.window_ns)
        );
        if self.bursts > 0 {
            words += &format!(
                ", of which {} with {} recorded",
                counted(self.bursts, "burst"),
                nanoseconds(self.burst_ns)
            );
        }
        words
    }

    fn headline(&self) -> String {
        let mut line = format!("session {}", self.session);
        if let Some(name) = &self.name {
            line += &format!(" ({name})");
        }
        line += &format!("  {}  {}", self.windows_in_words(", "), self.who());
        if self.simulated {
            line += "  simulated";
        }
        line
    }

    /// The captured process with its GPU, or how many there were.
    fn who(&self) -> String {
        let captured: Vec<_> = self
            .processes
            .iter()
            .filter(|process| !process.windows.is_empty())
            .collect();
        let mut gpus: Vec<&str> = captured
            .iter()
            .flat_map(|p| p.gpus.iter().map(String::as_str))
            .collect();
        gpus.sort_unstable();
        gpus.dedup();
        let who = match captured.as_slice() {
            [] => return "no process".to_owned(),
            [one] => format!("{} (pid {})", one.name, one.pid),
            several if several.len() <= 4 => {
                let pids: Vec<String> = several.iter().map(|process| process.pid.to_string()).collect();
                format!("{} processes (pids {})", several.len(), pids.join(", "))
            }
            several => format!("{} processes", several.len()),
        };
        if gpus.is_empty() {
            who
        } else {
            format!("{who}, {}", gpus.join(" and "))
        }
    }

    fn figures(&self) -> String {
        let lost = match (self.lost_uncounted, self.lost) {
            (false, lost) => format!("{} lost", grouped(lost)),
            (true, 0) => "an unknown number lost".to_owned(),
            (true, lost) => format!("{} lost and more", grouped(lost)),
        };
        let mut line = format!("{}  {lost}  {}", counted(self.kernels(), "kernel"), bytes(self.bytes));
        let armed = self
            .processes
            .iter()
            .filter_map(|process| process.armed_ns)
            .max()
            .unwrap_or(0);
        // Under gate `process` the wait is a moment, and nobody asked for it.
        if armed >= 1_000_000_000 {
            line += &format!("  armed {} at no cost", nanoseconds(armed));
        }
        line
    }

    /// `51,244 samples of 16 hardware counters every 20 us  0 lost`; none where none are in the table.
    fn samples(&self) -> Option<String> {
        let first = self
            .counters
            .first()
            .filter(|_| self.rows.get("counters").is_some_and(|rows| *rows > 0))?;
        let sum = |figure: fn(&Sampled) -> u64| self.counters.iter().map(figure).sum::<u64>();
        let longest = self.counters.iter().map(|device| device.interval_ns).max();
        Some(format!(
            "{} of {} every {}  {} lost",
            counted(sum(|device| device.samples), "sample"),
            counted(first.metrics.len() as u64, "hardware counter"),
            nanoseconds(longest.unwrap_or_default()),
            grouped(sum(|device| device.lost_samples))
        ))
    }

    fn render_without_kernels(&self, lines: &mut Vec<String>) {
        let why = self.why_no_kernels.as_deref().unwrap_or("the session does not say why");
        lines.push(format!("session {}  no kernels: {why}", self.session));
        let other: Vec<String> = self
            .rows
            .iter()
            .filter(|(table, rows)| **rows > 0 && ["memcpys", "memsets", "api_calls"].contains(&table.as_str()))
            .map(|(table, rows)| counted(*rows, &noun(table)))
            .collect();
        if !other.is_empty() {
            lines.push(format!("but {}", other.join(", ")));
        }
    }

    /// A line for each reason, the table that lost most first.
    fn render_losses(&self, lines: &mut Vec<String>) {
        let mut reasons: BTreeMap<&str, BTreeMap<&str, Lost>> = BTreeMap::new();
        for loss in &self.losses {
            let lost = reasons.entry(&loss.reason).or_default().entry(&loss.kind).or_default();
            lost.count += loss.count.unwrap_or(0);
            lost.uncounted |= loss.count.is_none();
        }
        for (reason, tables) in reasons {
            let mut tables: Vec<(&str, Lost)> = tables.into_iter().collect();
            tables.sort_by_key(|(table, lost)| (*table != "kernels", std::cmp::Reverse(lost.count)));
            let lost: Vec<String> = tables.iter().map(|(table, lost)| lost.in_words(table)).collect();
            lines.push(format!("! {} lost: {}", lost.join(", "), reason_in_words(reason)));
        }
    }

    fn render_problems(&self, lines: &mut Vec<String>) {
        // The same library is missing for every worker: once is enough.
        let mut said: Vec<&str> = Vec::new();
        for problem in &self.problems {
            let message = problem.message.as_str();
            let in_reason =
                self.kernels() == 0 && self.why_no_kernels.as_ref().is_some_and(|why| why.contains(message));
            if said.contains(&message) || in_reason {
                continue;
            }
            said.push(message);
            let others = self.problems.iter().filter(|other| other.message == message).count() - 1;
            let whose = match (problem.pid, others) {
                (None, _) => String::new(),
                (Some(pid), 0) => format!("pid {pid}: "),
                (Some(pid), others) => format!("pid {pid} and {others} more: "),
            };
            lines.push(format!("! {whose}{message}"));
        }
    }

    fn next(&self, list_option: &str) -> String {
        let counters = if self.kernels() == 0 && self.samples().is_some() {
            " --counters"
        } else {
            ""
        };
        let mut next = format!("next: colonel show{counters}{list_option}");
        if self.kernels() > 0 {
            next += &format!(
                "   pl.scan_parquet(\"{}\")",
                self.shown.join("kernels/**/*.parquet").display()
            );
        }
        next
    }

    /// What `--json FILE` gets.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}

/// Records of one table lost for one reason.
#[derive(Debug, Clone, Copy, Default)]
struct Lost {
    count: u64,
    uncounted: bool,
}

impl Lost {
    fn in_words(self, table: &str) -> String {
        let noun = noun(table);
        match (self.count, self.uncounted) {
            (0, true) => format!("an unknown number of {noun}s"),
            (count, true) => format!("at least {}", counted(count, &noun)),
            (count, false) => counted(count, &noun),
        }
    }
}

/// What a row of a table is called: `kernel`, `api call`.
fn noun(table: &str) -> String {
    table.strip_suffix('s').unwrap_or(table).replace('_', " ")
}

/// The words for a reason of the table `losses`.
fn reason_in_words(reason: &str) -> &str {
    match reason {
        "buffers_exhausted" => "colonel's buffers were full",
        "dropped_by_cupti" => "CUPTI dropped them",
        "invalid_timestamp" => "their timestamps were zero or reversed",
        "unknown_kind" => "of a kind that this colonel does not know",
        "truncated_buffer" => "a buffer ended in the middle of a record",
        "write_failed" => "they could not be written to disk",
        "callbacks_replaced" => {
            "another CUPTI client (torch profiler?) took over the buffers; close it, then run again"
        }
        "hardware_buffer_full" => "the hardware had no room for more samples",
        "not_sealed" => "the process was killed before they were on disk",
        "file_unreadable" => "their file is damaged or gone",
        other => other,
    }
}

fn all_problems(manifest: &Manifest) -> Vec<ProblemSummary> {
    let summary = |pid: Option<u32>, problem: &Problem| ProblemSummary {
        pid,
        code: problem.code.clone(),
        message: problem.message.clone(),
    };
    let of_processes = manifest.processes.iter().flat_map(|process| {
        process
            .problems
            .iter()
            .map(move |problem| summary(Some(process.pid), problem))
    });
    of_processes
        .chain(manifest.problems.iter().map(|problem| summary(None, problem)))
        .collect()
}

/// A name to know a process by: `python serve.py`, `VLLM::EngineCore`, `a.out`.
pub(crate) fn process_name(process: &Process) -> String {
    let base = |word: &str| {
        Path::new(word)
            .file_name()
            .map_or(word.to_owned(), |name| name.display().to_string())
    };
    let Some(program) = process.command.first().filter(|word| !word.is_empty()) else {
        return base(&process.exe);
    };
    let name = base(program);
    let arguments = &process.command[1..];
    let script = match arguments.iter().position(|word| !word.starts_with('-')) {
        Some(at) if at > 0 && arguments[at - 1] == "-m" => Some(format!("-m {}", arguments[at])),
        Some(at) if at > 0 && arguments[at - 1] == "-c" => None,
        Some(at) => Some(base(&arguments[at])),
        None => None,
    };
    match script {
        Some(script) if name.starts_with("python") => format!("{name} {script}"),
        _ => name,
    }
}

fn span(start_ns: i64, end_ns: i64) -> u64 {
    u64::try_from(end_ns.saturating_sub(start_ns)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
