//! What other profilers recorded, put into a session's own tables: reports of nsys that were exported to SQLite, the raw
//! page of ncu, and traces of Kineto.
//!
//! An [`Ingest`] writes what a guest would have written, and nothing else: `session.json` is the caller's, who seals the
//! session afterwards.

mod error;
mod kineto;
pub mod ncu;
mod nsys;
mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::schema::manifest::{FORMAT, Loss, Problem, Process, ProcessId, ProcessState, Window};
use crate::session::{Recorder, SessionError};

pub use error::IngestError;

/// A session that is filled from reports. Each report is a window.
#[derive(Debug)]
pub struct Ingest {
    recorder: Recorder,
    gate: String,
    window: u32,
    processes: BTreeMap<u32, Process>,
    /// GPUs that have a row: process and ordinal.
    devices: BTreeSet<(u32, u32)>,
    problems: Vec<Problem>,
}

impl Ingest {
    /// For the session in this folder. `gate` is what opened the windows: `process`, `profiler` or `nvtx:NAME`.
    pub fn new(session: &Path, gate: &str) -> Self {
        Self {
            recorder: Recorder::new(session),
            gate: gate.to_owned(),
            window: 0,
            processes: BTreeMap::new(),
            devices: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    /// Writes the processes' files; returns what the reports warn of.
    pub fn finish(mut self) -> Result<Vec<Problem>, SessionError> {
        for process in self.processes.values_mut() {
            process.rows = self.recorder.rows_of(id_of(process.pid));
            process.ended_ns = process.windows.last().and_then(|window| window.end_ns);
            self.recorder.write_process(process)?;
        }
        Ok(self.problems)
    }

    fn problem(&mut self, code: &str, message: String, time_ns: i64) {
        let code = code.to_owned();
        self.problems.push(Problem { code, message, time_ns });
    }

    /// Notes that a process took part in the report that is being read, which covers this time.
    fn take_part(&mut self, pid: u32, name: &str, span_ns: (i64, i64)) {
        let (gate, number) = (&self.gate, self.window);
        let process = self.processes.entry(pid).or_insert_with(|| Process {
            format: FORMAT,
            pid,
            start_ticks: id_of(pid).start_ticks,
            ppid: 0,
            exe: String::new(),
            command: vec![name.to_owned()],
            started_ns: span_ns.0,
            ended_ns: None,
            state: ProcessState::Ended,
            gate: gate.clone(),
            gate_by: None,
            cupti: None,
            driver_version: None,
            attached_ns: None,
            windows: Vec::new(),
            rows: BTreeMap::new(),
            outside_windows: 0,
            counters: Vec::new(),
            losses: Vec::new(),
            problems: Vec::new(),
            control: None,
        });
        process.windows.push(Window {
            number,
            start_ns: span_ns.0,
            end_ns: Some(span_ns.1),
            trigger: gate.split(':').next().unwrap_or_default().to_owned(),
            name: None,
            sealed_ns: Some(span_ns.1),
            sampled: false,
        });
    }

    /// Notes when the report that is being read ends for a process.
    fn end_window(&mut self, pid: u32, end_ns: i64) {
        let windows = self.processes.get_mut(&pid).map(|process| &mut process.windows);
        if let Some(window) = windows.and_then(|windows| windows.last_mut()) {
            (window.end_ns, window.sealed_ns) = (Some(end_ns), Some(end_ns));
        }
    }

    /// Counts records that could not become rows.
    fn lose(&mut self, pid: u32, kind: &str, reason: &str, count: u64, time_ns: i64) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        let mut known = process.losses.iter_mut();
        if let Some(loss) = known.find(|loss| loss.kind == kind && loss.reason == reason) {
            loss.count = loss.count.map(|so_far| so_far + count);
            loss.last_ns = time_ns;
            return;
        }
        process.losses.push(Loss {
            pid: Some(pid),
            kind: kind.to_owned(),
            reason: reason.to_owned(),
            count: Some(count),
            first_ns: time_ns,
            last_ns: time_ns,
        });
    }
}

/// Reports do not say when a process started; no living process started at boot's first tick.
fn id_of(pid: u32) -> ProcessId {
    ProcessId { pid, start_ticks: 0 }
}
