//! `processes/PID-START.json`: what this guest is, does and could not have. Only the steward writes it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::inject::attach;
use crate::inject::descriptors;
use crate::inject::guard;
use crate::inject::guest::{Guest, lock};
use crate::inject::nvtx;
use crate::inject::preload;
use crate::schema::manifest::{FORMAT, PROCESSES_DIR, Process, ProcessState};

/// What names a process for good, and what it is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    pub(crate) start_ticks: u64,
    ppid: u32,
    exe: String,
    started_ns: i64,
}

impl Identity {
    /// Of the calling process.
    pub(crate) fn of_this_process() -> Identity {
        let stat = fs::read("/proc/self/stat").unwrap_or_default();
        let (ppid, start_ticks) = parse_stat(&stat).unwrap_or((0, 0));
        Identity {
            pid: std::process::id(),
            start_ticks,
            ppid,
            exe: fs::read_link("/proc/self/exe")
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
            started_ns: crate::inject::threads::now_ns(),
        }
    }

    /// `PID-START`, the name of its files and folders.
    pub(crate) fn folder_name(&self) -> String {
        format!("{}-{}", self.pid, self.start_ticks)
    }

    /// Its process file.
    pub(crate) fn process_path(&self, session: &Path) -> PathBuf {
        session.join(PROCESSES_DIR).join(format!("{}.json", self.folder_name()))
    }

    /// Its progress file.
    pub(crate) fn progress_path(&self, session: &Path) -> PathBuf {
        session
            .join(PROCESSES_DIR)
            .join(format!("{}.progress", self.folder_name()))
    }
}

/// The command line, read anew for each file: a vLLM worker is `VLLM::Worker` when it initialises CUDA, and
/// `VLLM::Worker_TP0` once it knows its rank. What setproctitle leaves of a longer one is zeroed.
fn command_line() -> Vec<String> {
    let command = fs::read("/proc/self/cmdline").unwrap_or_default();
    let words = command.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Parent and start time of /proc/PID/stat; the name in parentheses may hold anything.
fn parse_stat(stat: &[u8]) -> Option<(u32, u64)> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let text = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let ppid = fields.nth(1)?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some((ppid, start_ticks))
}

/// Writes the file anew: whole or not at all.
pub(crate) fn write(guest: &Guest, control: Option<&Path>, ended_ns: Option<i64>) -> io::Result<()> {
    let panics = guard::panics();
    if panics > 0 {
        guest.count_problem(
            "bug",
            format!("colonel's own code failed {panics} times in this process; please report it"),
        );
    }
    nvtx::tell_problems(guest);
    preload::tell_problems(guest);
    let identity = &guest.identity;
    let attached = guest.attached.get();
    let process = Process {
        format: FORMAT,
        pid: identity.pid,
        start_ticks: identity.start_ticks,
        ppid: identity.ppid,
        exe: identity.exe.clone(),
        command: command_line(),
        started_ns: identity.started_ns,
        ended_ns,
        state: guest.gate.state(),
        gate: guest.config.gate_name(),
        gate_by: crate::inject::entry::gate_by().map(str::to_owned),
        cupti: attached
            .map(|attached| &attached.cupti)
            .or_else(|| guest.counters.cupti.get())
            .map(attach::manifest_of),
        driver_version: attached.and_then(|attached| attached.driver_version),
        attached_ns: attached.map(|attached| attached.attached_ns),
        windows: guest.windows.manifest(),
        rows: lock(&guest.sealed)
            .iter()
            .map(|(table, rows)| ((*table).to_owned(), *rows))
            .collect(),
        outside_windows: guest.outside_windows.load(Ordering::Relaxed),
        losses: guest.losses.manifest(identity.pid),
        counters: guest.counters.manifest(),
        problems: guest.problems(),
        control: control
            .filter(|_| guest.gate.state() != ProcessState::Off)
            .map(Path::to_path_buf),
    };
    let folder = guest.config.session.join(PROCESSES_DIR);
    let path = identity.process_path(&guest.config.session);
    let temporary = folder.join(format!(".{}.json", identity.folder_name()));
    let text = serde_json::to_vec_pretty(&process)?;
    let result = descriptors::create(&temporary)
        .and_then(|mut file| file.write_all(&text))
        .and_then(|()| fs::rename(&temporary, &path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_and_parentheses_do_not_shift_the_fields() {
        let stat = b"4711 (a) b (c)) S 42 4711 4711 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 86213 1000 200";
        assert_eq!(parse_stat(stat), Some((42, 86213)));
        assert_eq!(parse_stat(b"4711 (a"), None);
    }

    #[test]
    fn this_process_is_itself() {
        let identity = Identity::of_this_process();
        assert_eq!(identity.pid, std::process::id());
        assert!(identity.start_ticks > 0);
        assert_eq!(
            identity.folder_name(),
            format!("{}-{}", identity.pid, identity.start_ticks)
        );
    }
}
