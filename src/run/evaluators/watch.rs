//! Looks after a profiler that was started, on a thread of its own, and ends it where it comes no further: it can hang for
//! good, and with it the command.

use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::tree::{self, Patience};
use super::tool::bytes_in;
use crate::schema::manifest::ProcessId;
use crate::session::start_ticks;

const POLL: Duration = Duration::from_millis(100);
/// What a profiler gets to write its report once it is asked to end, as long as files of it grow.
const PATIENCE: Patience = Patience {
    silence: Duration::from_secs(10),
    whole: Duration::from_secs(300),
};

/// What came of a watch, in words where it is no good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Watched {
    /// It ended by itself.
    Well,
    /// It was stopped, and why.
    Stopped(String),
    /// Nobody looked after it, and why.
    Not(String),
}

/// Says when what is watched has ended.
#[derive(Debug)]
pub(super) struct Ended(Receiver<()>);

impl Ended {
    /// Waits for a moment.
    pub(super) fn is_so(&self) -> bool {
        self.0.recv_timeout(POLL) != Err(RecvTimeoutError::Timeout)
    }

    #[cfg(test)]
    pub(super) fn after(time: Duration) -> Self {
        let (ended, waits) = channel();
        std::thread::spawn(move || {
            std::thread::sleep(time);
            let _ = ended.send(());
        });
        Self(waits)
    }
}

/// Looks after what was started.
#[derive(Debug)]
pub(crate) struct Watch {
    ended: Sender<()>,
    thread: Result<JoinHandle<Watched>, String>,
}

impl Watch {
    /// `look` returns once its process has ended or is to be stopped; the profiler writes into `folder`.
    pub(super) fn start(
        started: &Child,
        session: &Path,
        folder: &Path,
        look: impl FnOnce(ProcessId, &Ended) -> Watched + Send + 'static,
    ) -> Self {
        let (ended, waits) = channel();
        let pid = started.id();
        let (session, folder) = (session.to_owned(), folder.to_owned());
        let root = start_ticks(pid).map(|start_ticks| ProcessId { pid, start_ticks });
        let root = root.ok_or_else(|| format!("/proc does not have its process {pid}"));
        let thread = root.and_then(|root| {
            let work = move || {
                let watched = look(root, &Ended(waits));
                if matches!(watched, Watched::Stopped(_)) {
                    tree::end(root, &session, PATIENCE, || bytes_in(&folder));
                }
                watched
            };
            let thread = std::thread::Builder::new().name("colonel-watch".to_owned());
            thread.spawn(work).map_err(|error| error.to_string())
        });
        Self { ended, thread }
    }

    /// Ends the watch, what was started having ended. Where it is being stopped, waits until nobody of it is left.
    pub(crate) fn end(self) -> Watched {
        let _ = self.ended.send(());
        match self.thread.map(JoinHandle::join) {
            Ok(Ok(watched)) => watched,
            Ok(Err(_)) => Watched::Not("the watch itself failed".to_owned()),
            Err(why) => Watched::Not(why),
        }
    }
}
