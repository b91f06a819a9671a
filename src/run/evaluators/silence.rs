//! Tells where a profiler hangs though the command has ended: making its report it writes files and talks all the while.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::tree;
use super::tool::bytes_in;
use crate::schema::manifest::ProcessId;
use crate::session::is_alive;

/// Nothing of the command runs, and no file of the profiler's folder grows. It begins with the first look.
#[derive(Debug)]
pub(super) struct Silence {
    root: ProcessId,
    session: PathBuf,
    folder: PathBuf,
    limit: Duration,
    /// A process of the command: looking through all has its price, so it is done when the one that was found is gone.
    known: Option<ProcessId>,
    size: Option<u64>,
    since: Instant,
    looked: Option<Instant>,
}

impl Silence {
    /// Of the profiler `root`, which writes into `folder`.
    pub(super) fn new(root: ProcessId, session: PathBuf, folder: PathBuf, limit: Duration) -> Self {
        Self {
            root,
            session,
            folder,
            limit,
            known: None,
            size: None,
            since: Instant::now(),
            looked: None,
        }
    }

    /// Looks; whether it has lasted for as long as its limit.
    pub(super) fn is_too_long(&mut self) -> bool {
        let pause = (self.limit / 5).min(Duration::from_secs(1));
        if self.looked.is_some_and(|looked| looked.elapsed() < pause) {
            return false;
        }
        self.looked = Some(Instant::now());
        let size = Some(bytes_in(&self.folder));
        if size != self.size || self.command_runs() {
            (self.size, self.since) = (size, Instant::now());
        }
        self.since.elapsed() >= self.limit
    }

    fn command_runs(&mut self) -> bool {
        self.known = self
            .known
            .filter(|process| is_alive(process.pid, process.start_ticks))
            .or_else(|| tree::one_of_command(self.root, &self.session));
        self.known.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::start_ticks;
    use std::io::Write as _;
    use std::process::Command;

    /// Looks for two seconds after a profiler that runs this script, while `meanwhile` is done.
    fn is_too_long(script: &str, mut meanwhile: impl FnMut(&mut std::fs::File)) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let mut file = std::fs::File::create(folder.path().join("report")).unwrap();
        let mut profiler = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let root = ProcessId {
            pid: profiler.id(),
            start_ticks: start_ticks(profiler.id()).unwrap(),
        };
        // The command starts.
        std::thread::sleep(Duration::from_millis(300));
        let path = folder.path().to_owned();
        let mut silence = Silence::new(root, path.clone(), path, Duration::from_millis(500));
        let started = Instant::now();
        let mut lasted = false;
        while !lasted && started.elapsed() < Duration::from_secs(2) {
            meanwhile(&mut file);
            lasted = silence.is_too_long();
            std::thread::sleep(Duration::from_millis(20));
        }
        profiler.kill().unwrap();
        profiler.wait().unwrap();
        lasted
    }

    #[test]
    fn only_silence_without_a_command_counts() {
        assert!(
            is_too_long("sleep 3 & wait", |_| ()),
            "a helper of the profiler is no command"
        );
        assert!(!is_too_long("COLONEL_COMMAND=1 sleep 3 & wait", |_| ()));
        assert!(!is_too_long("sleep 3 & wait", |report| report
            .write_all(b"a row")
            .unwrap()));
    }
}
