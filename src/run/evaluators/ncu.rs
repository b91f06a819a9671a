//! NVIDIA's Nsight Compute: profiles each kernel by running it several times over, and its raw page is read into the
//! tables.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use super::super::RunError;
use super::super::command::{Streams, marked};
use super::super::flavors::Flavor;
use super::super::knobs::{GraphLevel, NcuKnobs, NcuTargets, ReplayMode};
use super::super::profilers;
use super::super::settings::{Choice as _, Gate, Settings};
use super::ncu_watch::{self, Limits};
use super::silence::Silence;
use super::tool::{self, Tool};
use super::{Evaluator, Watch, Watched};
use crate::ingest::Ingest;
use crate::ingest::ncu::{DURATION, LAUNCH, Launches};
use crate::schema::manifest::{Exit, Problem};
use crate::session::SessionWriter;

/// How long ncu may be silent while it prints a report.
const PATIENCE: Duration = Duration::from_secs(120);
const REPORT: &str = "ncu-rep";

/// Records with ncu.
#[derive(Debug)]
pub(crate) struct NcuEvaluator {
    tool: Tool,
    knobs: NcuKnobs,
    gate: Gate,
    flavor: &'static Flavor,
}

impl NcuEvaluator {
    /// Finds ncu, and refuses what it can't do.
    pub(super) fn find(settings: &Settings) -> Result<Self, RunError> {
        const NAME: &str = "ncu";
        tool::refuse_guests_options(settings, NAME)?;
        let knobs = settings.knobs.ncu.clone();
        let (path, release) = profilers::find(NAME, knobs.path.as_deref())?;
        let tool = Tool {
            name: NAME,
            path,
            release,
        };
        let gate = settings.gate.clone();
        Ok(Self {
            tool,
            knobs,
            gate,
            flavor: settings.flavor,
        })
    }

    /// Whether the command is marked, so that it is told from ncu's own processes. A shell does that and becomes the command;
    /// where ncu was told to look at the first program only, that would be the shell.
    fn marks(&self) -> bool {
        self.knobs.target_processes != Some(NcuTargets::ApplicationOnly)
    }

    fn is_from_start(&self) -> bool {
        self.knobs.profile_from_start.unwrap_or(self.gate != Gate::Profiler)
    }

    /// The gate as the session's windows have it.
    fn gate(&self) -> String {
        let gate = if self.is_from_start() {
            &self.gate
        } else {
            &Gate::Profiler
        };
        gate.name().into_owned()
    }

    fn options(&self, session: &Path) -> Vec<OsString> {
        let path = |option: &str, path: &Path| {
            let mut option = OsString::from(option);
            option.push(path);
            option
        };
        let mut options = vec![
            path("--export=", &self.tool.folder(session).join("report")),
            "--force-overwrite".into(),
            path("--log-file=", &self.tool.log(session)),
        ];
        let knobs = &self.knobs;
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                options.push(format!("--{name}={value}").into());
            }
        };
        add("set", knobs.set.clone());
        for section in &knobs.sections {
            add("section", Some(section.clone()));
        }
        add("metrics", self.metrics());
        add("replay-mode", knobs.replay_mode.map(|mode| mode.word().to_owned()));
        add(
            "graph-profiling",
            knobs.graph_profiling.map(|level| level.word().to_owned()),
        );
        // ncu refuses this with ranges, which begin at cudaProfilerStart themselves.
        let by_range = matches!(knobs.replay_mode, Some(ReplayMode::Range | ReplayMode::AppRange));
        add(
            "profile-from-start",
            (!self.is_from_start() && !by_range).then(|| "off".to_owned()),
        );
        add(
            "target-processes",
            knobs.target_processes.map(|which| which.word().to_owned()),
        );
        add("launch-skip", knobs.launch_skip.map(|skip| skip.to_string()));
        add("launch-count", knobs.launch_count.map(|count| count.to_string()));
        add("kernel-name", knobs.kernel.clone());
        add(
            "cache-control",
            knobs.cache_control.map(|control| control.word().to_owned()),
        );
        add(
            "clock-control",
            knobs.clock_control.map(|control| control.word().to_owned()),
        );
        if let Gate::Nvtx(pattern) = &self.gate {
            let domain = pattern.domain.as_deref().filter(|domain| !domain.is_empty());
            let domain = domain.map_or(String::new(), |domain| format!("{domain}@"));
            // The slash means a pushed range.
            add("nvtx-include", Some(format!("{domain}{}/", pattern.name)));
            options.push("--nvtx".into());
        }
        options
    }

    /// What was asked for, and what rows of `kernels` need; without a choice ncu's own set has both.
    fn metrics(&self) -> Option<String> {
        let knobs = &self.knobs;
        if knobs.sections.is_empty() && knobs.metrics.is_empty() {
            return None;
        }
        let own = [DURATION].into_iter().chain(LAUNCH);
        let mut metrics: Vec<&str> = knobs.metrics.iter().map(String::as_str).collect();
        for metric in own {
            if !metrics.contains(&metric) {
                metrics.push(metric);
            }
        }
        Some(metrics.join(","))
    }

    fn read(&self, report: &Path, ingest: &mut Ingest, start_ns: i64) -> Result<Launches, String> {
        let mut import = Command::new(&self.tool.path);
        import.arg("--import").arg(report);
        import.args(["--csv", "--page", "raw", "--print-units", "base"]);
        import.args(["--print-kernel-base", "mangled"]);
        let page = tool::answer(&mut import, None, PATIENCE).map_err(|why| format!("`ncu --import` failed: {why}"))?;
        let what = format!("what ncu prints of `{}`", report.display());
        ingest
            .ncu_csv(&page, &what, start_ns)
            .map_err(|error| error.to_string())
    }

    /// Reads the reports; gives how many launches they have.
    fn fill(&self, session: &mut SessionWriter) -> Result<u64, String> {
        let path = session.path().to_owned();
        let start_ns = session.manifest().created_ns;
        let mut ingest = Ingest::new(&path, &self.gate());
        let mut failures = Vec::new();
        let mut metrics = Vec::new();
        let mut launches = 0;
        for report in self.tool.files(&path, REPORT) {
            match self.read(&report, &mut ingest, start_ns) {
                Ok(read) => {
                    launches += read.launches;
                    metrics.extend(read.metrics);
                }
                Err(why) => failures.push(format!(
                    "the report `{}` is kept, but could not be read: {why}",
                    report.display()
                )),
            }
        }
        for metric in unknown(&self.knobs.metrics, &metrics) {
            session.add_problem(
                "ncu_unknown_metric",
                no_such_metric(&format!("reported no metric `{metric}`")),
            );
        }
        let finished = ingest.finish().map_err(|error| error.to_string())?;
        session.manifest_mut().problems.extend(finished);
        if failures.is_empty() {
            return Ok(launches);
        }
        Err(failures.join("\n"))
    }

    /// Who did not ask for a bound would take what was profiled for all there is.
    fn note_bound(&self, session: &mut SessionWriter, launches: u64) {
        let is_flavors =
            |(name, bound): &(&str, &str)| *name == "ncu_launch_count" && bound.parse().ok() == self.knobs.launch_count;
        let bound = self.knobs.launch_count.filter(|&bound| launches >= u64::from(bound));
        if let Some(bound) = bound
            && self.flavor.knobs.iter().any(is_flavors)
        {
            let message = format!(
                "ncu ended at {bound} launches, the bound of flavor {}: others by `--ncu-launch-skip N`, more by \
                 `--ncu-launch-count N`, every one by `--ncu-launch-count all`",
                self.flavor.name
            );
            session.add_problem("ncu_bound", message);
        }
    }

    /// By graph and by range ncu measures with all that it does around the work: 30 to 50 times its time, even in kernels
    /// outside of graphs.
    fn note_inflated(&self, session: &mut SessionWriter) {
        let how = match (self.knobs.replay_mode, self.knobs.graph_profiling) {
            (Some(mode @ (ReplayMode::Range | ReplayMode::AppRange)), _) => {
                format!("--ncu-replay-mode {}", mode.word())
            }
            (_, Some(GraphLevel::Graph)) => "--ncu-graph-profiling graph".to_owned(),
            _ => return,
        };
        let message = format!(
            "by `{how}` ncu's durations are far longer than the work's, 30 to 50 times on an H100: compare its counters, and \
             take times from `--ncu-graph-profiling node`"
        );
        session.add_problem(Problem::NCU_DURATIONS_INFLATED, message);
    }
}

impl Evaluator for NcuEvaluator {
    fn name(&self) -> &'static str {
        self.tool.name
    }

    fn command(&self, session: &mut SessionWriter, command: &[OsString]) -> Result<(Vec<OsString>, Streams), RunError> {
        self.tool.make_log(session)?;
        let mut words = vec![self.tool.path.clone().into_os_string()];
        words.extend(self.options(session.path()));
        if self.marks() {
            words.extend(marked().map(OsString::from));
        }
        words.extend_from_slice(command);
        self.tool.note(session, self.gate(), &words);
        Ok((words, Streams::Inherited))
    }

    fn watch(&self, session: &Path, started: &Child) -> Option<Watch> {
        let limits = Limits {
            start: self.knobs.start_timeout,
            stall: self.knobs.stall_timeout,
            launches: self.knobs.launch_count,
            by_application: matches!(
                self.knobs.replay_mode,
                Some(ReplayMode::Application | ReplayMode::AppRange)
            ),
        };
        let (log, folder) = (self.tool.log(session), self.tool.folder(session));
        let (of, into, marks) = (session.to_owned(), folder.clone(), self.marks());
        let look = move |root, ended: &_| {
            let silence = marks.then(|| Silence::new(root, of, into, limits.stall));
            ncu_watch::look(&log, &limits, silence, ended)
        };
        Some(Watch::start(started, session, &folder, look))
    }

    fn collect(&self, session: &mut SessionWriter, mut exit: Exit, watched: Watched) -> Exit {
        let said = self.tool.words(session.path());
        let end = End::of_target(&said);
        let is_stopped = tool::note_watch(session, watched, self.tool.name);
        let crash = own_signal(&exit, &said, end).filter(|_| !is_stopped);
        if is_stopped {
            exit = tool::killed(libc::SIGKILL);
        } else if exit.signal.is_none()
            && let Some(end) = end
        {
            exit = end.exit();
            if let Some(message) = end.message() {
                session.add_problem("target_crashed", message);
            }
        }
        let complaints = complaints(&said);
        let is_connected = said.contains(CONNECTED);
        if let Some(signal) = crash {
            session.add_problem("ncu_crashed", tool::itself_crashed(signal, self.tool.name, AFTER_CRASH));
        }
        // A command that fails before CUDA is never connected to, and ncu gives its code.
        let failed = exit
            .code
            .filter(|code| *code != 0 && complaints.is_empty() && end.is_none());
        let refused = failed.filter(|_| !is_connected);
        if let Some(code) = refused {
            session.add_problem("ncu_refused", refusal(code, &self.options(session.path())));
        }
        let is_explained = refused.is_some() || crash.is_some() || is_stopped || !complaints.is_empty();
        for (code, message) in complaints {
            session.add_problem(code, message);
        }
        match self.fill(session) {
            Ok(0) if !is_connected && !is_explained => session.add_problem("ncu_no_cuda", NO_CUDA),
            Ok(0) => {}
            Ok(launches) => {
                self.note_inflated(session);
                self.note_bound(session, launches);
            }
            Err(why) => session.add_problem("ncu_unread", why),
        }
        tool::note_reports(session, &self.tool, REPORT);
        exit
    }
}

/// Signals that end a program against its will; others have numbers that are common exit codes.
const CRASHES: [i32; 8] = [
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGKILL,
    libc::SIGSEGV,
    libc::SIGTERM,
];
const CONNECTED: &str = "==PROF== Connected to process";
/// What to try once ncu itself has crashed.
const AFTER_CRASH: &str = "fewer launches (`--ncu-launch-count`) or sections (`--ncu-section`), \
                           `--ncu-replay-mode application`, or another release (`--ncu-path`)";
const NO_CUDA: &str = "no process of the command used CUDA, so no kernel was launched";

/// How the command ended, by ncu's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By itself.
    Code(i32),
    /// Killed by a signal.
    Signal(i32),
    /// Killed by ncu, with that signal.
    ByNcu(i32),
}

impl End {
    /// ncu gives a signal's number as if it were an exit code. A command that ended by itself has disconnected before;
    /// ncu says so where it killed it.
    fn of_target(words: &str) -> Option<Self> {
        let code = code_of_target(words)?;
        Some(if words.contains("==PROF== Trying to shutdown target application") {
            Self::ByNcu(code)
        } else if is_cut_off(words) && CRASHES.contains(&code) {
            Self::Signal(code)
        } else {
            Self::Code(code)
        })
    }

    fn exit(self) -> Exit {
        match self {
            Self::Code(code) => Exit {
                code: Some(code),
                signal: None,
            },
            Self::Signal(signal) | Self::ByNcu(signal) => tool::killed(signal),
        }
    }

    fn message(self) -> Option<String> {
        match self {
            Self::Code(_) => None,
            Self::Signal(signal) => Some(tool::crashed(signal, "ncu")),
            Self::ByNcu(signal) => Some(format!(
                "ncu itself ended the command, by signal {signal}, after an error"
            )),
        }
    }
}

/// A process was connected to, and took no leave.
fn is_cut_off(words: &str) -> bool {
    let count = |what: &str| words.matches(what).count();
    count(CONNECTED) > count("==PROF== Disconnected from process")
}

/// The signal that killed ncu itself; a script that starts ncu gives it as an exit code. Of the command's end ncu tells.
fn own_signal(exit: &Exit, words: &str, end: Option<End>) -> Option<i32> {
    let by_script = exit
        .code
        .map(|code| code - 128)
        .filter(|signal| CRASHES.contains(signal));
    let by_script = by_script.filter(|_| end.is_none() && is_cut_off(words));
    exit.signal.or(by_script).filter(tool::is_crash)
}

/// `==ERROR== The application returned an error code (3).`
fn code_of_target(words: &str) -> Option<i32> {
    let (_, rest) = words.split_once("The application returned an error code (")?;
    rest.split(')').next()?.parse().ok()
}

fn no_such_metric(said: &str) -> String {
    format!("ncu: {said}; `ncu --query-metrics` lists what this GPU has")
}

/// Metrics asked for that are in no report: ncu 2025.3 says nothing of a name it does not know.
fn unknown<'a>(asked: &'a [String], found: &[String]) -> Vec<&'a str> {
    if found.is_empty() {
        return Vec::new();
    }
    let is_there = |asked: &str| {
        // `sm__cycles_active` stands for its `.avg`, `.max`, …; `group:` and `regex:` for others.
        let suffixed = |found: &String| {
            found
                .strip_prefix(asked)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        asked.contains(':') || found.iter().any(suffixed)
    };
    asked
        .iter()
        .map(String::as_str)
        .filter(|asked| !is_there(asked))
        .collect()
}

/// ncu does not take some option, or not with another; what it says of that is not in its log.
fn refusal(code: i32, options: &[OsString]) -> String {
    let options: Vec<_> = options.iter().map(|option| option.to_string_lossy()).collect();
    format!(
        "ncu ended with exit code {code} before it started the command, and says why above; its options were {}",
        options.join(" ")
    )
}

/// What ncu complains of, each once, with what to do where we know.
fn complaints(words: &str) -> Vec<(&'static str, String)> {
    let mut complaints: Vec<(&'static str, String)> = Vec::new();
    for line in words.lines() {
        let Some(said) = line.trim().strip_prefix("==ERROR== ") else {
            continue;
        };
        let complaint = if said.contains("ERR_NVGPUCTRPERM") {
            ("ncu_no_permission", tool::no_permission())
        } else if said.contains("Failed to find metric") {
            ("ncu_unknown_metric", no_such_metric(said))
        } else if said.contains("Failed to find section") || said.contains("Failed to find set") {
            let what = format!("ncu: {said}; `ncu --list-sections` and `ncu --list-sets` say which there are");
            ("ncu_unknown_section", what)
        } else if said.contains("The application returned an error code") {
            // That is the command's exit code.
            continue;
        } else {
            ("ncu_error", format!("ncu: {said}"))
        };
        if !complaints.contains(&complaint) {
            complaints.push(complaint);
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::flavors::Flavor;
    use crate::run::knobs::{Knob, Knobs};
    use crate::schema::ranges::RangePattern;

    fn options(gate: Gate, set: &[(&str, &str)]) -> String {
        let mut knobs = Knobs::default();
        for (name, value) in set {
            Knob::named(name).unwrap().set(&mut knobs, value).unwrap();
        }
        let evaluator = NcuEvaluator {
            tool: Tool {
                name: "ncu",
                path: "/opt/ncu".into(),
                release: None,
            },
            knobs: knobs.ncu,
            gate,
            flavor: Flavor::named("generic").unwrap(),
        };
        let options = evaluator.options(Path::new("/s"));
        let options: Vec<_> = options.iter().map(|option| option.to_string_lossy()).collect();
        options.join(" ").replace(
            "--export=/s/ncu/report --force-overwrite --log-file=/s/ncu/log.txt",
            "…",
        )
    }

    #[test]
    fn settings_become_options() {
        assert_eq!(options(Gate::Process, &[]), "…");
        insta::assert_snapshot!(options(Gate::Profiler, Flavor::named("vllm").unwrap().knobs), @"… --section=SpeedOfLight --metrics=gpu__time_duration.sum,launch__registers_per_thread,launch__shared_mem_per_block_static,launch__shared_mem_per_block_dynamic --profile-from-start=off --target-processes=all --launch-count=128");
        let set = [
            ("ncu_set", "full"),
            ("ncu_replay_mode", "application"),
            ("ncu_graph_profiling", "graph"),
            ("ncu_launch_skip", "5"),
            ("ncu_kernel", "regex:gemm"),
            ("ncu_cache_control", "none"),
            ("ncu_clock_control", "none"),
        ];
        let range = Gate::Nvtx(RangePattern::parse("step@vllm").unwrap());
        insta::assert_snapshot!(options(range, &set), @"… --set=full --replay-mode=application --graph-profiling=graph --launch-skip=5 --kernel-name=regex:gemm --cache-control=none --clock-control=none --nvtx-include=vllm@step/ --nvtx");
        assert_eq!(options(Gate::Profiler, &[("ncu_profile_from_start", "on")]), "…");
    }

    #[test]
    fn complaints_are_told_once_and_with_a_remedy() {
        let words = "==PROF== Connected to process 7\n==ERROR== ERR_NVGPUCTRPERM - The user does not …\n\
                     ==ERROR== ERR_NVGPUCTRPERM - The user does not …\n==ERROR== Failed to find metric sm__no_such.sum\n\
                     ==ERROR== The application returned an error code (3).\n==WARNING== No kernels were profiled.\n";
        let complaints = complaints(words);
        let codes: Vec<&str> = complaints.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, ["ncu_no_permission", "ncu_unknown_metric"]);
        assert!(
            complaints[0].1.contains("NVreg_RestrictProfilingToAdminUsers=0"),
            "{complaints:?}"
        );
        insta::assert_snapshot!(complaints[1].1, @"ncu: Failed to find metric sm__no_such.sum; `ncu --query-metrics` lists what this GPU has");
        assert_eq!(End::of_target(words), Some(End::Code(3)));
    }

    #[test]
    fn how_the_command_ended_is_read_from_ncus_words() {
        let end = |disconnected: &str, before: &str, code: i32| {
            let words = format!(
                "==PROF== Connected to process 7 (/usr/bin/python3)\n{disconnected}{before}\
                 ==ERROR== The application returned an error code ({code}).\n"
            );
            End::of_target(&words).unwrap()
        };
        let disconnected = "==PROF== Disconnected from process 7\n";
        assert_eq!(end("", "", 11), End::Signal(11));
        assert_eq!(end(disconnected, "", 11), End::Code(11));
        assert_eq!(
            end("", "", 1),
            End::Code(1),
            "a child may have been cut off, and 1 is no crash"
        );
        let shutdown = "==PROF== Trying to shutdown target application\n";
        assert_eq!(end("", shutdown, 9), End::ByNcu(9));
        assert_eq!(End::of_target("==WARNING== No kernels were profiled.\n"), None);
    }
}
