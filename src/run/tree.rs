//! A session's processes, found by their parents and by their environment, and how to end them all.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::schema::env as variables;
use crate::schema::manifest::ProcessId;
use crate::session::{is_alive, start_ticks};

const POLL: Duration = Duration::from_millis(20);

/// How long a process gets to end once it is asked to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// While it writes nothing.
    pub(crate) silence: Duration,
    /// In all.
    pub(crate) whole: Duration,
}

/// Asks `root` to end by SIGINT, which profilers take as the time to write their report, whose size is `written`; what is
/// left of its tree after that is killed.
pub(crate) fn end(root: ProcessId, session: &Path, patience: Patience, written: impl Fn() -> u64) {
    // Taken down first: once their parents are gone, children belong to somebody else.
    let mut tree = members(root, session);
    send(root, Signal::SIGINT);
    let (asked, mut since, mut size) = (Instant::now(), Instant::now(), written());
    while is_alive(root.pid, root.start_ticks) && since.elapsed() < patience.silence && asked.elapsed() < patience.whole
    {
        std::thread::sleep(POLL);
        let now = written();
        if now != size {
            (size, since) = (now, Instant::now());
        }
    }
    // New ones may have come; a killed process starts none.
    for _ in 0..3 {
        tree.extend(members(root, session));
        tree.push(root);
        tree.retain(|process| is_alive(process.pid, process.start_ticks));
        if tree.is_empty() {
            return;
        }
        tree.iter().for_each(|&process| send(process, Signal::SIGKILL));
        std::thread::sleep(POLL);
    }
}

/// The pid may be another's by now, but not with the same start.
fn send(process: ProcessId, signal: Signal) {
    if start_ticks(process.pid) == Some(process.start_ticks) {
        let _ = kill(Pid::from_raw(process.pid.cast_signed()), signal);
    }
}

/// Descendants of `root`, and whoever has the session in its environment.
fn members(root: ProcessId, session: &Path) -> Vec<ProcessId> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let all: Vec<(u32, Option<u32>)> = pids.map(|pid| (pid, parent(pid))).collect();
    let is_descendant = |mut pid: u32| {
        for _ in 0..all.len() {
            match all
                .iter()
                .find(|(known, _)| *known == pid)
                .and_then(|(_, parent)| *parent)
            {
                Some(parent) if parent == root.pid => return true,
                Some(parent) => pid = parent,
                None => return false,
            }
        }
        false
    };
    let own = std::process::id();
    all.iter()
        .map(|&(pid, _)| pid)
        .filter(|&pid| pid != own && pid != root.pid)
        .filter(|&pid| is_descendant(pid) || is_of(pid, session))
        .filter_map(|pid| {
            Some(ProcessId {
                pid,
                start_ticks: start_ticks(pid)?,
            })
        })
        .collect()
}

/// One of the session's processes that is the command or descends from it, and not from the profiler that started it; one
/// whose environment can't be read counts.
pub(crate) fn one_of_command(root: ProcessId, session: &Path) -> Option<ProcessId> {
    let is_of_command = |process: &ProcessId| match fs::read(format!("/proc/{}/environ", process.pid)) {
        Ok(environment) => has(&environment, variables::COMMAND, b"1"),
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    };
    members(root, session).into_iter().find(is_of_command)
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim()
        .parse()
        .ok()
}

fn is_of(pid: u32, session: &Path) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    has(&environment, variables::SESSION, session.as_os_str().as_bytes())
}

/// Whether a variable has that value.
fn has(environment: &[u8], name: &str, value: &[u8]) -> bool {
    let mut variables = environment.split(|&byte| byte == 0);
    variables.any(|variable| {
        let rest = variable.strip_prefix(name.as_bytes());
        rest.and_then(|rest| rest.strip_prefix(b"=")) == Some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A grandchild that has left its parent behind has the session in its environment.
    #[test]
    fn nobody_is_left() {
        let temp = tempfile::tempdir().unwrap();
        let note = temp.path().join("pids");
        let script =
            "trap '' INT; (setsid sleep 600 & echo $! >>$0; sleep 600 & echo $! >>$0); echo $$ >>$0; sleep 600";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .arg(&note)
            .env(variables::SESSION, temp.path())
            .spawn()
            .unwrap();
        let pids = || -> Vec<u32> {
            let text = fs::read_to_string(&note).unwrap_or_default();
            text.lines().map(|line| line.parse().unwrap()).collect()
        };
        while pids().len() < 3 {
            std::thread::sleep(POLL);
        }
        let of = |pid| ProcessId {
            pid,
            start_ticks: start_ticks(pid).unwrap(),
        };
        let all: Vec<ProcessId> = pids().into_iter().map(of).collect();
        let soon = Duration::from_millis(100);
        let patience = Patience {
            silence: soon,
            whole: soon,
        };
        end(of(child.id()), temp.path(), patience, || 0);
        child.wait().unwrap();
        for process in all {
            assert!(!is_alive(process.pid, process.start_ticks), "{process:?}");
        }
    }

    /// A process that writes its report when it is asked to end, for longer than it may be silent.
    #[test]
    fn who_writes_is_waited_for_but_not_for_good() {
        let writes = |patience: Patience| {
            let temp = tempfile::tempdir().unwrap();
            let report = temp.path().join("report");
            let script = "trap 'for i in 1 2 3 4 5 6; do echo x >>$0; sleep 0.2; done; exit' INT; echo >$0.ready; \
                          while :; do sleep 0.05; done";
            // A shell can't trap what was ignored as it began, as in a background job.
            let words = ["--default-signal=INT", "sh", "-c", script];
            let mut child = Command::new("env").args(words).arg(&report).spawn().unwrap();
            while !temp.path().join("report.ready").exists() {
                std::thread::sleep(POLL);
            }
            let root = ProcessId {
                pid: child.id(),
                start_ticks: start_ticks(child.id()).unwrap(),
            };
            end(root, temp.path(), patience, || {
                fs::metadata(&report).map_or(0, |file| file.len())
            });
            child.wait().unwrap();
            fs::read_to_string(&report).unwrap_or_default().lines().count()
        };
        let (short, long) = (Duration::from_millis(600), Duration::from_secs(60));
        let patience = |silence, whole| Patience { silence, whole };
        assert_eq!(writes(patience(short, long)), 6);
        assert!(writes(patience(long, short)) < 6);
    }
}
