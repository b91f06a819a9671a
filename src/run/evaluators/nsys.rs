//! NVIDIA's Nsight Systems: records the command, and its reports are exported to SQLite and read into the tables.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use super::super::RunError;
use super::super::command::{Streams, with_its_streams};
use super::super::knobs::{GraphLevel, NsysKnobs, NsysRange, NsysTrace};
use super::super::profilers;
use super::super::settings::{Choice as _, Gate, Settings, Trace};
use super::super::words::nanoseconds;
use super::silence::Silence;
use super::tool::{self, Tool};
use super::watch::Ended;
use super::{Evaluator, Watch, Watched};
use crate::ingest::Ingest;
use crate::schema::manifest::Exit;
use crate::session::SessionWriter;

/// Exporting a large report takes minutes, but it writes all the while.
const PATIENCE: Duration = Duration::from_secs(120);
const REPORT: &str = "nsys-rep";

/// Records with nsys.
#[derive(Debug)]
pub(crate) struct NsysEvaluator {
    tool: Tool,
    knobs: NsysKnobs,
    gate: Gate,
    trace_nvtx: bool,
}

impl NsysEvaluator {
    /// Finds nsys, and refuses what it can't do.
    pub(super) fn find(settings: &Settings) -> Result<Self, RunError> {
        const NAME: &str = "nsys";
        tool::refuse_guests_options(settings, NAME)?;
        let knobs = settings.knobs.nsys.clone();
        let (path, release) = profilers::find(NAME, knobs.path.as_deref())?;
        let tool = Tool {
            name: NAME,
            path,
            release,
        };
        Ok(Self {
            tool,
            knobs,
            gate: settings.gate.clone(),
            trace_nvtx: settings.trace.contains(&Trace::Nvtx),
        })
    }

    /// What opens its windows.
    fn range(&self) -> NsysRange {
        self.knobs.capture_range.unwrap_or(match self.gate {
            Gate::Process | Gate::Manual => NsysRange::Whole,
            Gate::Profiler => NsysRange::ProfilerApi,
            Gate::Nvtx(_) => NsysRange::Nvtx,
        })
    }

    /// The gate as the session's windows have it.
    fn gate(&self) -> String {
        match self.range() {
            NsysRange::Whole => Gate::Process.name().into_owned(),
            NsysRange::ProfilerApi => Gate::Profiler.name().into_owned(),
            NsysRange::Nvtx => self.gate.name().into_owned(),
        }
    }

    fn options(&self, session: &Path) -> Vec<OsString> {
        let mut output = OsString::from("--output=");
        output.push(self.tool.folder(session).join("report"));
        // Samples of the CPU are for another question, and need permissions.
        let mut options = vec![output];
        let mut add = |option: String| options.push(option.into());
        for option in ["--force-overwrite=true", "--sample=none", "--cpuctxsw=none"] {
            add(option.to_owned());
        }
        if let Some(kinds) = self.trace() {
            add(format!("--trace={kinds}"));
        }
        let range = self.range();
        if range != NsysRange::Whole {
            add(format!("--capture-range={}", range.word()));
            add(format!("--capture-range-end={}", self.knobs.capture_range_end.name()));
        }
        if let (NsysRange::Nvtx, Gate::Nvtx(pattern)) = (range, &self.gate) {
            // As nsys writes it: a bare name is of the default domain, `@*` of any.
            let domain = match pattern.domain.as_deref() {
                None => "@*".to_owned(),
                Some("") => String::new(),
                Some(domain) => format!("@{domain}"),
            };
            add(format!("--nvtx-capture={}{domain}", pattern.name));
            // Else only names that were registered open a range.
            add("--env-var=NSYS_NVTX_PROFILER_REGISTER_ONLY=0".to_owned());
        }
        if let Some(level) = self.knobs.graph_trace {
            add(format!("--cuda-graph-trace={}", level.word()));
        }
        if let Some(forks) = self.knobs.trace_forks {
            add(format!("--trace-fork-before-exec={forks}"));
        }
        options
    }

    fn trace(&self) -> Option<String> {
        let mut kinds = self.knobs.trace.clone();
        let nvtx = self.knobs.enable_nvtx.or(self.trace_nvtx.then_some(true));
        match nvtx {
            Some(true) if kinds.is_empty() => kinds = vec![NsysTrace::Cuda, NsysTrace::Nvtx],
            Some(true) if !kinds.contains(&NsysTrace::Nvtx) => kinds.push(NsysTrace::Nvtx),
            Some(false) if kinds.is_empty() => kinds = vec![NsysTrace::Cuda],
            Some(false) => kinds.retain(|kind| *kind != NsysTrace::Nvtx),
            _ => {}
        }
        let names: Vec<&str> = kinds.into_iter().map(|kind| kind.word()).collect();
        (!names.is_empty()).then(|| names.join(","))
    }

    /// Exports a report and reads it.
    fn read(&self, report: &Path, ingest: &mut Ingest) -> Result<(), String> {
        let database = report.with_extension("sqlite");
        let mut output = OsString::from("--output=");
        output.push(&database);
        let mut export = Command::new(&self.tool.path);
        export.args(["export", "--type=sqlite", "--force-overwrite=true"]);
        export.arg(output).arg(report);
        let exported = tool::answer(&mut export, Some(&database), PATIENCE);
        let read = match exported {
            Ok(_) => ingest.nsys_sqlite(&database).map_err(|error| error.to_string()),
            Err(why) => Err(match tool::missing_library(&why) {
                Some(library) => tool::how_to_get(library),
                None => format!("`nsys export` failed: {why}"),
            }),
        };
        // The report says the same in less space, and can be exported again.
        let _ = std::fs::remove_file(&database);
        read
    }

    /// Why there is no report.
    fn why_no_report(&self, session: &Path, ended_well: bool) -> String {
        let said = self.tool.words(session);
        if let Some(library) = tool::missing_library(&said) {
            let unread = self.tool.files(session, "qdstrm");
            let kept = unread.first().map_or(String::new(), |events| {
                format!(
                    "; what it recorded is in `{}`, for a machine that has it",
                    events.display()
                )
            });
            return format!("nsys made no report: {}{kept}", tool::how_to_get(library));
        }
        if self.range() == NsysRange::Whole || !ended_well {
            return format!("nsys made no report; {}", self.tool.tail(session));
        }
        // It starts none before the range is entered.
        String::new()
    }

    fn fill(&self, session: &mut SessionWriter, exit: &Exit) -> Result<(), String> {
        let path = session.path().to_owned();
        let reports = self.tool.files(&path, REPORT);
        let mut ingest = Ingest::new(&path, &self.gate());
        let mut failures = Vec::new();
        for report in &reports {
            if let Err(why) = self.read(report, &mut ingest) {
                failures.push(format!(
                    "the report `{}` is kept, but could not be read: {why}",
                    report.display()
                ));
            }
        }
        let finished = ingest.finish().map_err(|error| error.to_string())?;
        session.manifest_mut().problems.extend(finished);
        if reports.is_empty() {
            let why = self.why_no_report(&path, exit.code == Some(0));
            if !why.is_empty() {
                failures.push(why);
            }
        }
        if failures.is_empty() {
            return Ok(());
        }
        Err(failures.join("\n"))
    }
}

impl Evaluator for NsysEvaluator {
    fn name(&self) -> &'static str {
        self.tool.name
    }

    fn command(&self, session: &mut SessionWriter, command: &[OsString]) -> Result<(Vec<OsString>, Streams), RunError> {
        let log = self.tool.make_log(session)?;
        let mut words = vec![self.tool.path.clone().into_os_string(), "profile".into()];
        words.extend(self.options(session.path()));
        words.extend(with_its_streams().map(OsString::from));
        words.extend_from_slice(command);
        self.tool.note(session, self.gate(), &words);
        Ok((words, Streams::Apart(log)))
    }

    fn watch(&self, session: &Path, started: &Child) -> Option<Watch> {
        let (limit, folder) = (self.knobs.report_timeout, self.tool.folder(session));
        let (of, into) = (session.to_owned(), folder.clone());
        let look = move |root, ended: &Ended| {
            let mut silence = Silence::new(root, of, into, limit);
            while !ended.is_so() {
                if silence.is_too_long() {
                    return Watched::Stopped(stopped(limit));
                }
            }
            Watched::Well
        };
        Some(Watch::start(started, session, &folder, look))
    }

    fn collect(&self, session: &mut SessionWriter, mut exit: Exit, watched: Watched) -> Exit {
        let said = self.tool.words(session.path());
        if tool::note_watch(session, watched, self.tool.name) {
            exit = tool::killed(libc::SIGKILL);
        } else if let Some(signal) = signal_of_target(&said).or_else(|| signal_of_code(&exit, &said)) {
            exit = tool::killed(signal);
            let mut message = tool::crashed(signal, self.tool.name);
            message += "; nsys loses what it had not fetched by then";
            if signal == libc::SIGSEGV && self.knobs.graph_trace != Some(GraphLevel::Graph) {
                message += "; `--nsys-cuda-graph-trace graph` is known to survive where recording each node of a CUDA graph \
                            does not";
            }
            session.add_problem("target_crashed", message);
        } else if let Some(signal) = exit.signal.filter(tool::is_crash) {
            let hint = "another release (`--nsys-path`), or `--nsys-cuda-graph-trace graph`";
            session.add_problem("nsys_crashed", tool::itself_crashed(signal, self.tool.name, hint));
        }
        if let Err(why) = self.fill(session, &exit) {
            session.add_problem("nsys_unread", why);
        }
        tool::note_reports(session, &self.tool, REPORT);
        exit
    }
}

fn stopped(limit: Duration) -> String {
    let limit = nanoseconds(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
    format!(
        "nsys had written nothing for {limit} after the command had ended, and was stopped; what came is kept, the \
         command's exit code is lost\nwhere its report takes longer: `--nsys-report-timeout 30min`"
    )
}

/// `The target application terminated with signal 11 (SIGSEGV)`.
/// Of nsys, once it has a report.
const GENERATED: &str = "Generated:";

/// nsys 2025.3 says nothing of a signal that ended the command: its own exit code is a shell's, and it writes its report.
fn signal_of_code(exit: &Exit, words: &str) -> Option<i32> {
    let signal = exit.code?.checked_sub(128)?;
    let is_one = (1..=libc::SIGRTMAX()).contains(&signal) && tool::is_crash(&signal);
    (is_one && words.contains(GENERATED)).then_some(signal)
}

fn signal_of_target(words: &str) -> Option<i32> {
    const BEFORE: &str = "target application terminated with signal ";
    let (_, rest) = words.split_once(BEFORE)?;
    rest.split(|character: char| !character.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::knobs::NsysRangeEnd;
    use crate::schema::ranges::RangePattern;

    fn evaluator(gate: Gate, knobs: NsysKnobs) -> NsysEvaluator {
        let tool = Tool {
            name: "nsys",
            path: "/opt/nsys".into(),
            release: None,
        };
        NsysEvaluator {
            tool,
            knobs,
            gate,
            trace_nvtx: false,
        }
    }

    fn options(gate: Gate, knobs: NsysKnobs) -> String {
        let options = evaluator(gate, knobs).options(Path::new("/s"));
        let options: Vec<_> = options.iter().map(|option| option.to_string_lossy()).collect();
        options.join(" ").replace(
            "--output=/s/nsys/report --force-overwrite=true --sample=none --cpuctxsw=none",
            "…",
        )
    }

    #[test]
    fn the_gate_is_the_capture_range() {
        let plain = NsysKnobs::default;
        assert_eq!(options(Gate::Process, plain()), "…");
        insta::assert_snapshot!(options(Gate::Profiler, plain()), @"… --capture-range=cudaProfilerApi --capture-range-end=stop");
        let range = |text| Gate::Nvtx(RangePattern::parse(text).unwrap());
        insta::assert_snapshot!(options(range("step"), plain()), @"… --capture-range=nvtx --capture-range-end=stop --nvtx-capture=step@* --env-var=NSYS_NVTX_PROFILER_REGISTER_ONLY=0");
        assert!(options(range("step@vllm"), plain()).contains("--nvtx-capture=step@vllm "));
        assert!(options(range("step@"), plain()).contains("--nvtx-capture=step "));
        let asked = NsysKnobs {
            capture_range: Some(NsysRange::ProfilerApi),
            capture_range_end: NsysRangeEnd::Repeat(None),
            graph_trace: Some(GraphLevel::Node),
            trace_forks: Some(true),
            ..plain()
        };
        insta::assert_snapshot!(options(Gate::Process, asked), @"… --capture-range=cudaProfilerApi --capture-range-end=repeat --cuda-graph-trace=node --trace-fork-before-exec=true");
    }

    #[test]
    fn nvtx_is_added_and_taken_away() {
        let trace = |kinds: &[NsysTrace], nvtx: Option<bool>| {
            let knobs = NsysKnobs {
                trace: kinds.to_vec(),
                enable_nvtx: nvtx,
                ..NsysKnobs::default()
            };
            evaluator(Gate::Process, knobs).trace().unwrap_or_default()
        };
        assert_eq!(trace(&[], None), "");
        assert_eq!(trace(&[], Some(true)), "cuda,nvtx");
        assert_eq!(trace(&[NsysTrace::Cuda, NsysTrace::Nvtx], Some(false)), "cuda");
        assert_eq!(trace(&[NsysTrace::Cuda], Some(true)), "cuda,nvtx");
    }

    #[test]
    fn a_crash_of_the_target_is_read_from_its_words() {
        let words =
            "Collecting data...\nThe target application terminated with signal 11 (SIGSEGV)\nProcessing events...";
        assert_eq!(signal_of_target(words), Some(11));
        assert_eq!(signal_of_target("Collecting data...\n"), None);
    }
}
