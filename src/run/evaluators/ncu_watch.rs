//! Ends ncu where it comes no further: in replaying a kernel it can hang for good, and with it the command.
//!
//! Two clocks, both by what ncu writes into its log: until the first kernel has been profiled, and from there to the
//! next.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::tree;
use super::super::words::{counted, nanoseconds};
use crate::schema::manifest::ProcessId;
use crate::session::start_ticks;

const POLL: Duration = Duration::from_millis(100);
/// What ncu gets to write its report once it is asked to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// When ncu is stopped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// No kernel was profiled.
    pub(super) start: Duration,
    /// No further one.
    pub(super) stall: Duration,
    /// Launches after which ncu has nothing more to do.
    pub(super) launches: Option<u32>,
}

/// That something was stopped, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stopped(pub(super) String);

/// Looks after what was started.
#[derive(Debug)]
pub(crate) struct Watch {
    ended: Sender<()>,
    thread: JoinHandle<Option<Stopped>>,
}

impl Watch {
    pub(super) fn over_ncu(log: PathBuf, session: &Path, started: &Child, limits: Limits) -> Option<Self> {
        let pid = started.id();
        let root = ProcessId {
            pid,
            start_ticks: start_ticks(pid)?,
        };
        let session = session.to_owned();
        let (ended, waits) = channel();
        let work = move || {
            let stopped = look(&log, &limits, &waits)?;
            tree::end(root, &session, PATIENCE);
            Some(stopped)
        };
        let thread = std::thread::Builder::new().name("colonel-watch".to_owned());
        let thread = thread.spawn(work).ok()?;
        Some(Self { ended, thread })
    }

    /// Ends the watch, what was started having ended; returns what it was stopped for. Where it is being stopped, waits
    /// until nobody of it is left.
    pub(crate) fn end(self) -> Option<Stopped> {
        let _ = self.ended.send(());
        self.thread.join().ok().flatten()
    }
}

/// Looks into the log until a clock runs out or the command has ended.
fn look(path: &Path, limits: &Limits, ended: &Receiver<()>) -> Option<Stopped> {
    let mut log = File::open(path).ok()?;
    let mut course = Course::default();
    let mut unread = Vec::new();
    let mut since = Instant::now();
    loop {
        match ended.recv_timeout(POLL) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return None,
        }
        let _ = log.read_to_end(&mut unread);
        if course.read(&mut unread) {
            since = Instant::now();
        }
        let limit = if course.has_begun() { limits.stall } else { limits.start };
        if since.elapsed() >= limit && !course.is_over(limits) {
            return Some(course.stopped(limits));
        }
    }
}

/// How far ncu has come.
#[derive(Debug, Default)]
struct Course {
    /// Kernels profiled.
    done: u32,
    /// The last of them.
    last: Option<String>,
    /// The one that is being profiled, and what the log says of it.
    current: Option<(String, usize)>,
}

impl Course {
    /// Takes the lines that are complete out of `unread`; whether ncu came further.
    fn read(&mut self, unread: &mut Vec<u8>) -> bool {
        let mut is_further = false;
        let complete = unread.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = unread.drain(..complete).collect();
        for name in String::from_utf8_lossy(&lines).lines().filter_map(profiled) {
            self.done += 1;
            self.last = Some(name);
            self.current = None;
            is_further = true;
        }
        let current = profiled(&String::from_utf8_lossy(unread)).map(|name| (name, unread.len()));
        is_further |= current.is_some() && current != self.current;
        self.current = current;
        is_further
    }

    fn has_begun(&self) -> bool {
        self.done > 0 || self.current.is_some()
    }

    /// All that ncu was asked for is profiled: what the command does now is its own affair.
    fn is_over(&self, limits: &Limits) -> bool {
        limits.launches.is_some_and(|launches| self.done >= launches)
    }

    fn stopped(&self, limits: &Limits) -> Stopped {
        let limit = |limit: Duration| nanoseconds(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        let (place, name) = match (&self.current, &self.last) {
            (Some((name, _)), _) => ("in", name),
            (None, Some(name)) => ("after", name),
            (None, None) => {
                return Stopped(format!(
                    "ncu had profiled no kernel after {} and was stopped, and the command with it; where it needs longer \
                     to come to its kernels: `--ncu-start-timeout 15min`",
                    limit(limits.start)
                ));
            }
        };
        Stopped(format!(
            "ncu came no further for {} {place} kernel `{name}` and was stopped, and the command with it; it had profiled \
             {}\ntry `--ncu-graph-profiling graph`, `--ncu-replay-mode application`, fewer launches by \
             `--ncu-launch-count` or `--ncu-kernel`; or, where the command does other things for so long, \
             `--ncu-stall-timeout 10min`",
            limit(limits.stall),
            counted(u64::from(self.done), "kernel"),
        ))
    }
}

/// The name in `==PROF== Profiling "NAME" - 0: 0%....50%....100% - 8 passes`.
fn profiled(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("==PROF== Profiling \"")?;
    let (name, _) = rest.rsplit_once("\" - ").or_else(|| rest.rsplit_once('"'))?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const LIMITS: Limits = Limits {
        start: Duration::from_secs(300),
        stall: Duration::from_secs(60),
        launches: Some(2),
    };
    const FIRST: &str = "==PROF== Profiling \"rms_norm\" - 0: 0%....50%....100% - 8 passes\n";

    #[test]
    fn the_course_is_read_from_the_log() {
        let (mut course, mut unread) = (Course::default(), Vec::new());
        let mut read = |text: &str| {
            unread.extend_from_slice(text.as_bytes());
            (
                course.read(&mut unread),
                course.done,
                course.is_over(&LIMITS),
                course.stopped(&LIMITS).0,
            )
        };
        let (is_further, .., stopped) = read("==PROF== Connected to process 7 (/usr/bin/python3)\n");
        assert!(!is_further);
        insta::assert_snapshot!(stopped, @"ncu had profiled no kernel after 5 min 00 s and was stopped, and the command with it; where it needs longer to come to its kernels: `--ncu-start-timeout 15min`");
        let (is_further, done, is_over, _) = read(FIRST);
        assert_eq!((is_further, done, is_over), (true, 1, false));
        let (is_further, done, _, stopped) = read("==PROF== Profiling \"gemm<1, \"a\">\" - 1 (2/2): 0%");
        assert_eq!((is_further, done), (true, 1));
        insta::assert_snapshot!(stopped, @r#"
        ncu came no further for 60.0 s in kernel `gemm<1, "a">` and was stopped, and the command with it; it had profiled 1 kernel
        try `--ncu-graph-profiling graph`, `--ncu-replay-mode application`, fewer launches by `--ncu-launch-count` or `--ncu-kernel`; or, where the command does other things for so long, `--ncu-stall-timeout 10min`
        "#);
        assert!(!read("").0, "nothing new");
        assert!(read("....50%").0, "it moves");
        let (is_further, done, is_over, _) =
            read("....100% - 8 passes\n==WARNING== Launching the workload is taking more time\n");
        assert_eq!((is_further, done, is_over), (true, 2, true));
        assert!(!read("==WARNING== and again\n").0, "its other words are no progress");
    }

    fn watched(text: &str, limits: Limits) -> Option<Stopped> {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        log.write_all(text.as_bytes()).unwrap();
        let (ended, waits) = channel();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(3));
            let _ = ended.send(());
        });
        look(log.path(), &limits, &waits)
    }

    #[test]
    fn each_clock_runs_out_by_itself() {
        let soon = Duration::from_millis(300);
        let limits = |start, stall, launches| Limits { start, stall, launches };
        let long = Duration::from_secs(60);
        let none = watched("==PROF== Connected\n", limits(soon, long, None)).unwrap();
        assert!(none.0.contains("--ncu-start-timeout"), "{none:?}");
        let stalled = watched(FIRST, limits(long, soon, None)).unwrap();
        assert!(stalled.0.contains("after kernel `rms_norm`"), "{stalled:?}");
        assert_eq!(
            watched(FIRST, limits(soon, soon, Some(1))),
            None,
            "ncu has all it wanted"
        );
        assert_eq!(
            watched(FIRST, limits(soon, long, None)),
            None,
            "the first clock has ended"
        );
    }
}
