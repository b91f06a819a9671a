//! The guest's state in one process: made once by `entry`, leaked, never destroyed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crossbeam_channel::Sender;

use crate::inject::attach::Attached;
use crate::inject::buffers::Pool;
use crate::inject::config::Config;
use crate::inject::counters::Counters;
use crate::inject::gate::Gate;
use crate::inject::graphs::Graphs;
use crate::inject::log::log;
use crate::inject::losses::Losses;
use crate::inject::nvtx::Outbox;
use crate::inject::process_file::Identity;
use crate::inject::threads::now_ns;
use crate::inject::wake::Wake;
use crate::inject::windows::Windows;
use crate::inject::writer::Message;
use crate::schema::manifest::Problem;

/// A lock that a panic elsewhere does not spoil: what it protects is plain data.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything the guest knows in this process.
pub(crate) struct Guest {
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    pub(crate) gate: Gate,
    pub(crate) windows: Windows,
    pub(crate) losses: Losses,
    pub(crate) pool: Pool,
    pub(crate) wake: Wake,
    /// NVTX ranges on their way to the writer.
    pub(crate) ranges: Outbox,
    pub(crate) graphs: Graphs,
    pub(crate) counters: Counters,
    /// Set by the first attachment, and never unset: CUPTI keeps pointers into us.
    pub(crate) attached: OnceLock<Attached>,
    /// The writer's channel, once it runs.
    pub(crate) writer: OnceLock<Sender<Message>>,
    /// Rows sealed, a table.
    pub(crate) sealed: Mutex<BTreeMap<&'static str, u64>>,
    /// Records received so far that become rows: still growing after a stop means that a window is still arriving.
    pub(crate) window_rows: std::sync::atomic::AtomicU64,
    /// Records let go because they belong to no window.
    pub(crate) outside_windows: std::sync::atomic::AtomicU64,
    /// Start of the latest kernel among those, Unix ns.
    pub(crate) latest_outside_ns: std::sync::atomic::AtomicI64,
    problems: Mutex<Vec<Problem>>,
    /// The process file is behind.
    pub(crate) dirty: AtomicBool,
}

impl Guest {
    /// State for this process. Makes no thread, opens no file.
    pub(crate) fn new(config: Config, identity: Identity, wake: Wake) -> Guest {
        let guest = Guest {
            gate: Gate::new(),
            windows: Windows::default(),
            losses: Losses::default(),
            pool: Pool::new(),
            wake,
            ranges: Outbox::default(),
            graphs: Graphs::default(),
            counters: Counters::default(),
            attached: OnceLock::new(),
            writer: OnceLock::new(),
            sealed: Mutex::default(),
            window_rows: std::sync::atomic::AtomicU64::new(0),
            outside_windows: std::sync::atomic::AtomicU64::new(0),
            latest_outside_ns: std::sync::atomic::AtomicI64::new(0),
            problems: Mutex::default(),
            dirty: AtomicBool::new(true),
            identity,
            config,
        };
        for complaint in guest.config.complaints.clone() {
            guest.problem("bad_setting", complaint);
        }
        guest
    }

    /// Records what could not be had, once a code.
    pub(crate) fn problem(&self, code: &str, message: String) {
        log!("{code}: {message}");
        let mut problems = lock(&self.problems);
        if !problems.iter().any(|problem| problem.code == code) {
            problems.push(Problem {
                code: code.to_owned(),
                message,
                time_ns: now_ns(),
            });
            self.touch();
        }
    }

    /// The same of a problem whose message says how often it came: the newest stays. Told as the process file is written.
    pub(crate) fn count_problem(&self, code: &str, message: String) {
        let mut problems = lock(&self.problems);
        if let Some(told) = problems.iter_mut().find(|problem| problem.code == code) {
            told.message = message;
            return;
        }
        drop(problems);
        self.problem(code, message);
    }

    /// What could not be had so far.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        lock(&self.problems).clone()
    }

    /// Tells the steward that the process file is behind.
    pub(crate) fn touch(&self) {
        self.dirty.store(true, Ordering::Release);
    }

    /// Whether the process file is behind.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    /// Rows sealed so far, all tables.
    pub(crate) fn rows(&self) -> u64 {
        lock(&self.sealed).values().sum()
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::schema::env;

    #[test]
    fn a_problem_is_told_once_and_one_that_counts_with_its_newest_count() {
        let config = Config::parse(|name| (name == env::SESSION).then(|| OsString::from("/nowhere")));
        let guest = Guest::new(config.unwrap(), Identity::of_this_process(), Wake::new().unwrap());
        for number in 1..=3 {
            guest.problem("once", format!("{number}"));
            guest.count_problem("counted", format!("{number} calls"));
        }
        let told = guest
            .problems()
            .into_iter()
            .map(|problem| (problem.code, problem.message));
        let expected = [("once", "1"), ("counted", "3 calls")];
        assert_eq!(
            told.collect::<Vec<_>>(),
            expected.map(|(code, message)| (code.to_owned(), message.to_owned()))
        );
    }
}
