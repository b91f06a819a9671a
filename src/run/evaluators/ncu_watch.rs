//! Ends ncu where it comes no further: in replaying a kernel it can hang for good.
//!
//! Two clocks, both by what ncu writes into its log: until the first kernel is being profiled, and from there to the next.
//! By application replay ncu starts the command anew for each pass, and with it the first clock. Once all launches that were
//! asked for are profiled the command may do what it likes; when it has ended ncu still has to write its report.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::words::{counted, nanoseconds};
use super::silence::Silence;
use super::watch::{Ended, Watched};

/// When ncu is stopped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// No kernel is being profiled.
    pub(super) start: Duration,
    /// No further one.
    pub(super) stall: Duration,
    /// Launches after which ncu has nothing more to do.
    pub(super) launches: Option<u32>,
    /// Each pass is a run of the command.
    pub(super) by_application: bool,
}

/// Looks into the log until a clock runs out or ncu has ended; without a `silence` none does once ncu has all it wanted.
pub(super) fn look(log: &Path, limits: &Limits, mut silence: Option<Silence>, ended: &Ended) -> Watched {
    let mut course = Course::default();
    let mut place = 0;
    let mut unread = Vec::new();
    let mut since = Instant::now();
    while !ended.is_so() {
        if let Err(error) = read_on(log, &mut place, &mut unread) {
            return Watched::Not(format!("its log `{}` could not be read: {error}", log.display()));
        }
        if course.read(&mut unread, limits) {
            since = Instant::now();
        }
        let limit = if course.has_begun { limits.stall } else { limits.start };
        let is_stuck = if course.is_over(limits) {
            silence.as_mut().is_some_and(Silence::is_too_long)
        } else {
            since.elapsed() >= limit
        };
        if is_stuck {
            return Watched::Stopped(course.stopped(limits));
        }
    }
    Watched::Well
}

/// Reads what was added to a file. It is opened each time: one that was taken away or replaced would be silent for good.
fn read_on(path: &Path, place: &mut u64, unread: &mut Vec<u8>) -> io::Result<()> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() < *place {
        *place = 0;
        unread.clear();
    }
    file.seek(SeekFrom::Start(*place))?;
    *place += file.read_to_end(unread)? as u64;
    Ok(())
}

/// A launch that ncu profiles.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Launch {
    number: u32,
    name: String,
}

impl Launch {
    /// From `==PROF== Profiling "NAME" - 0 (1/12): PROGRESS`, and the progress.
    fn parse(line: &str) -> Option<(Self, &str)> {
        let (_, rest) = line.split_once("==PROF== Profiling \"")?;
        let (name, rest) = rest.rsplit_once("\" - ")?;
        let (number, progress) = rest.split_once(": ")?;
        let launch = Self {
            number: number.split(' ').next()?.parse().ok()?,
            name: name.to_owned(),
        };
        Some((launch, progress))
    }
}

/// How far ncu has come.
#[derive(Debug, Default)]
struct Course {
    /// Launches of which all passes are done; by application, one pass.
    done: BTreeSet<u32>,
    /// The last of them.
    last: Option<String>,
    /// The one that is being profiled.
    current: Option<Launch>,
    /// A launch was being profiled; by application, in this run of the command.
    has_begun: bool,
    /// Length of the line that ncu has begun.
    begun: usize,
}

impl Course {
    /// Takes the lines that are complete out of `unread`; whether ncu came further.
    fn read(&mut self, unread: &mut Vec<u8>, limits: &Limits) -> bool {
        let mut is_further = false;
        let complete = unread.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let complete: Vec<u8> = unread.drain(..complete).collect();
        for line in String::from_utf8_lossy(&complete).lines() {
            let is_new = line.len() > std::mem::take(&mut self.begun);
            is_further |= self.take(line, limits) && is_new;
        }
        let line = String::from_utf8_lossy(unread);
        is_further |= self.take(&line, limits) && line.len() > self.begun;
        self.begun = line.len();
        is_further
    }

    /// Takes a line, or the begin of one; whether it is of ncu's progress.
    fn take(&mut self, line: &str, limits: &Limits) -> bool {
        if let Some((launch, progress)) = Launch::parse(line) {
            self.has_begun = true;
            self.current = Some(launch);
            self.advance(progress);
            return true;
        }
        if !line.starts_with("==") {
            // A warning had ended the line of its progress: `....50%....100% - 8 passes`.
            self.advance(line);
            return self.current.is_some() || line.starts_with('.');
        }
        let is_start = line.contains("==PROF== Connected to process");
        if limits.by_application && (is_start || line.contains("==PROF== Disconnected from process")) {
            self.has_begun = false;
            return true;
        }
        line.contains("==PROF== Creating report")
    }

    fn advance(&mut self, progress: &str) {
        let is_done = progress.contains("100%") || progress.starts_with("Application replay pass ");
        if let Some(launch) = self.current.take_if(|_| is_done) {
            self.done.insert(launch.number);
            self.last = Some(launch.name);
        }
    }

    /// All that ncu was asked for is profiled: what the command does now is its own affair. By application it is not:
    /// another pass may follow.
    fn is_over(&self, limits: &Limits) -> bool {
        let done = u32::try_from(self.done.len()).unwrap_or(u32::MAX);
        !limits.by_application && limits.launches.is_some_and(|launches| done >= launches)
    }

    fn stopped(&self, limits: &Limits) -> String {
        let limit = |limit: Duration| nanoseconds(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        let profiled = counted(self.done.len() as u64, "kernel");
        if self.is_over(limits) {
            return format!(
                "ncu had profiled all that was asked for ({profiled}), but written nothing for {} after the command had \
                 ended, and was stopped; what came is kept, the command's exit code is lost\nwhere its report takes \
                 longer: `--ncu-stall-timeout 10min`",
                limit(limits.stall)
            );
        }
        if !self.has_begun {
            let whose = if self.done.is_empty() { "" } else { " of another pass" };
            return format!(
                "ncu had profiled no kernel{whose} after {} and was stopped, and the command with it; where it needs longer \
                 to come to its kernels: `--ncu-start-timeout 15min`",
                limit(limits.start)
            );
        }
        let (place, name) = match (&self.current, &self.last) {
            (Some(launch), _) => ("in", launch.name.as_str()),
            (None, last) => ("after", last.as_deref().unwrap_or_default()),
        };
        format!(
            "ncu came no further for {} {place} kernel `{name}` and was stopped, and the command with it; it had profiled \
             {profiled}\ntry `--ncu-graph-profiling graph`, `--ncu-replay-mode application`, fewer launches by \
             `--ncu-launch-count` or `--ncu-kernel`; or, where the command does other things for so long, \
             `--ncu-stall-timeout 10min`",
            limit(limits.stall),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const LIMITS: Limits = Limits {
        start: Duration::from_secs(300),
        stall: Duration::from_secs(60),
        launches: Some(2),
        by_application: false,
    };
    const FIRST: &str = "==PROF== Profiling \"rms_norm\" - 0 (1/2): 0%....50%....100% - 8 passes\n";

    /// What is read piece by piece: whether each is progress, how many launches are done, whether that is all.
    struct Reader(Course, Vec<u8>, Limits);

    impl Reader {
        fn of(limits: Limits) -> Self {
            Self(Course::default(), Vec::new(), limits)
        }

        fn read(&mut self, text: &str) -> (bool, usize, bool) {
            let Self(course, unread, limits) = self;
            unread.extend_from_slice(text.as_bytes());
            let is_further = course.read(unread, limits);
            (is_further, course.done.len(), course.is_over(limits))
        }

        fn stopped(&self) -> String {
            self.0.stopped(&self.2)
        }
    }

    #[test]
    fn the_course_is_read_from_the_log() {
        let mut log = Reader::of(LIMITS);
        assert!(!log.read("==PROF== Connected to process 7 (/usr/bin/python3)\n").0);
        insta::assert_snapshot!(log.stopped(), @"ncu had profiled no kernel after 5 min 00 s and was stopped, and the command with it; where it needs longer to come to its kernels: `--ncu-start-timeout 15min`");
        assert_eq!(log.read(FIRST), (true, 1, false));
        assert_eq!(
            log.read("==PROF== Profiling \"gemm<1, \"a\">\" - 1 (2/2): 0%"),
            (true, 1, false)
        );
        insta::assert_snapshot!(log.stopped(), @r#"
        ncu came no further for 60.0 s in kernel `gemm<1, "a">` and was stopped, and the command with it; it had profiled 1 kernel
        try `--ncu-graph-profiling graph`, `--ncu-replay-mode application`, fewer launches by `--ncu-launch-count` or `--ncu-kernel`; or, where the command does other things for so long, `--ncu-stall-timeout 10min`
        "#);
        assert!(!log.read("").0, "nothing new");
        assert!(log.read("....50%").0, "it moves");
        assert_eq!(log.read("....100% - 8 passes\n"), (true, 2, true));
        assert!(!log.read("==PROF== Disconnected from process 7\n").0);
    }

    /// As ncu 2022 to 2025 print it: the warning ends the line, and the progress goes on below it.
    #[test]
    fn a_warning_in_the_midst_of_a_launch_does_not_end_it() {
        let warning = "\n==WARNING== Launching the workload is taking more time than expected. If this continues to hang, \
                       terminate the profile and re-try by profiling the range of all related launches using \
                       '--replay-mode range'.\n";
        let mut log = Reader::of(LIMITS);
        log.read(FIRST);
        log.read("==PROF== Profiling \"gemm\" - 1 (2/2): 0%");
        assert_eq!(
            log.read(warning),
            (false, 1, false),
            "it is not done, and that is no progress"
        );
        assert!(log.stopped().contains("in kernel `gemm`"), "{}", log.stopped());
        assert_eq!(log.read("....50%"), (true, 1, false));
        assert_eq!(log.read("....100% - 40 passes\n"), (true, 2, true));
    }

    /// As ncu 2025.3.1 prints it.
    #[test]
    fn each_launch_of_an_application_replay_counts_once_and_none_is_the_last() {
        let mut log = Reader::of(Limits {
            by_application: true,
            ..LIMITS
        });
        let mut pass = |number: u32, done| {
            assert!(log.read("==PROF== Connected to process 7 (/usr/bin/python3)\n").0);
            assert!(!log.0.has_begun, "the command starts, which takes its time");
            let lines =
                |launch| format!("==PROF== Profiling \"add_one\" - {launch}: Application replay pass {number}\n");
            assert_eq!(log.read(&lines(0)), (true, done, false));
            assert_eq!(log.read(&lines(1)), (true, 2, false));
            assert!(log.0.has_begun);
            assert!(log.read("==PROF== Disconnected from process 7\n").0);
        };
        pass(1, 1);
        pass(2, 2);
        assert!(log.stopped().contains("no kernel of another pass"), "{}", log.stopped());
        assert!(
            log.read("==PROF== Creating report from application replay data: 0%..")
                .0
        );
        assert!(log.read("..").0);
    }

    fn watched(text: &str, limits: Limits) -> Watched {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        log.write_all(text.as_bytes()).unwrap();
        look(log.path(), &limits, None, &Ended::after(Duration::from_secs(2)))
    }

    #[test]
    fn each_clock_runs_out_by_itself() {
        let soon = Duration::from_millis(300);
        let limits = |start, stall, launches| Limits {
            start,
            stall,
            launches,
            by_application: false,
        };
        let stopped = |text, limits| match watched(text, limits) {
            Watched::Stopped(why) => why,
            other => panic!("{other:?}"),
        };
        let long = Duration::from_secs(60);
        let none = stopped("==PROF== Connected\n", limits(soon, long, None));
        assert!(none.contains("--ncu-start-timeout"), "{none}");
        let stalled = stopped(FIRST, limits(long, soon, None));
        assert!(stalled.contains("after kernel `rms_norm`"), "{stalled}");
        let last =
            "==PROF== Profiling \"rms_norm\" - 0 (1/1): 0%\n==WARNING== Launching the workload is taking more time\n";
        let hung = stopped(last, limits(soon, soon, Some(1)));
        assert!(hung.contains("in kernel `rms_norm`"), "{hung}");
        assert_eq!(
            watched(FIRST, limits(soon, soon, Some(1))),
            Watched::Well,
            "ncu has all it wanted"
        );
        assert_eq!(
            watched(FIRST, limits(soon, long, None)),
            Watched::Well,
            "the first clock has ended"
        );
    }

    #[test]
    fn a_log_that_is_not_there_or_no_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("log.txt")] {
            let Watched::Not(why) = look(&path, &LIMITS, None, &Ended::after(Duration::from_secs(60))) else {
                panic!("{path:?}")
            };
            assert!(why.contains("could not be read: "), "{why}");
        }
    }

    #[test]
    fn a_log_that_is_begun_anew_is_read_anew() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        let (mut place, mut unread) = (0, Vec::new());
        log.write_all(b"a long line\n").unwrap();
        read_on(log.path(), &mut place, &mut unread).unwrap();
        std::fs::write(log.path(), "short\n").unwrap();
        read_on(log.path(), &mut place, &mut unread).unwrap();
        assert_eq!((unread.as_slice(), place), (&b"short\n"[..], 6));
    }
}
