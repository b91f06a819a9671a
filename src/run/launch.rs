//! One run from the first check to the sealed session.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::environment::{Environment, Inherited};
use super::error::{exit_code, killed_by};
use super::evaluators::{Evaluator, Watch, Watched, other_evaluators, why_no_kernels};
use super::flavors::{EnvDefault, KnownTo};
use super::gpus::gpus;
use super::guest::program_folder;
use super::progress::Progress;
use super::python::{Python, Question, interpreter};
use super::runtime::RuntimeFolder;
use super::summary::{Summary, Surroundings};
use super::{RunError, Settings, Signals, command, sim};
use crate::counters;
use crate::schema::env as variables;
use crate::schema::manifest::{Exit, PROCESSES_DIR, Problem, Process, ProcessState, Session as Manifest};
use crate::session::{NewSession, Session, SessionError, SessionWriter, is_alive, now_ns};

/// How long processes that outlive the command may take to finish.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the command's python may take to say what it has.
const PYTHON_PATIENCE: Duration = Duration::from_secs(5);
const REGIONS_ARE_OFF: &str =
    "`COLONEL_DISABLE_PROFILE_REGION=1` is set, so profile_region opened no window; unset it to record its regions";
const POLL: Duration = Duration::from_millis(20);
/// Where compaction makes its new tables.
const UNFINISHED: &str = ".compacting";

/// A run that is ready to start.
#[derive(Debug)]
pub struct Launch {
    settings: Settings,
    signals: Signals,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Session id.
    pub session: String,
    /// The command's own code, or 128+N.
    pub exit_code: u8,
    /// What to say; or why the session could not be sealed.
    pub summary: Result<Summary, SessionError>,
}

impl Launch {
    /// Takes the signals. To be called while the process has one thread.
    pub fn new(settings: Settings) -> Result<Self, RunError> {
        let signals = Signals::listen().map_err(|source| RunError::System {
            action: "listen to signals",
            source,
        })?;
        Ok(Self { settings, signals })
    }

    /// Runs the command and seals its session. An error means that the command was not started.
    pub fn run(mut self) -> Result<Outcome, RunError> {
        let inherited: Inherited<'_> = &|name| env::var_os(name);
        let settings = &self.settings;
        if let Some(path) = &settings.cwd {
            fs::read_dir(path).map_err(|source| RunError::NoCwd {
                path: path.clone(),
                source,
            })?;
        }
        let evaluator = settings.evaluator.ready(settings, inherited)?;
        let python = python_of(settings);
        let new = new_session(settings, evaluator.name(), python.as_ref());
        let mut session = SessionWriter::create(&settings.sessions, new).map_err(|source| RunError::NoSession {
            dir: settings.sessions.shown().to_owned(),
            source,
        })?;
        if inherited(variables::DISABLE_PROFILE_REGION).is_some_and(|value| is_on(&value)) {
            session.add_problem("profile_region_disabled", REGIONS_ARE_OFF);
        }
        let mut environment = Environment::default();
        environment.set_defaults(settings.flavor, python.as_ref(), inherited);
        match start(
            settings,
            &*evaluator,
            &mut session,
            environment,
            inherited,
            &mut self.signals,
        ) {
            Ok((child, runtime)) => Ok(self.finish(child, runtime, session, &*evaluator)),
            Err(error) => {
                // Nothing ran: a session of nothing would only be in the way.
                let _ = fs::remove_dir_all(session.path());
                Err(error)
            }
        }
    }

    fn finish(
        mut self,
        mut child: Child,
        runtime: RuntimeFolder,
        mut session: SessionWriter,
        evaluator: &dyn Evaluator,
    ) -> Outcome {
        let watch = evaluator.watch(session.path(), &child);
        let exit = match self.signals.wait(&mut child) {
            Ok(status) => status,
            Err(error) => {
                session.add_problem("wait_failed", format!("the command could not be waited for: {error}"));
                ExitStatus::from_raw(i32::from(exit_code::FAILED_BEFORE_START) << 8)
            }
        };
        let watched = watch.map_or(Watched::Well, Watch::end);
        session.manifest_mut().ended_ns = Some(now_ns());
        let id = session.id().to_owned();
        let hurry = self.signals.into_hurry();
        let mut progress = Progress::new();
        let running = wait_for_others(session.path(), &hurry, &mut progress);
        let exit = Exit {
            code: exit.code(),
            signal: exit.signal(),
        };
        let exit = evaluator.collect(&mut session, exit, watched);
        if self.settings.analyze && self.settings.counters.is_some() {
            evaluate_samples(&self.settings, &mut session, &running, &hurry, &mut progress);
        }
        let exit_code = match (exit.code, exit.signal) {
            (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
            (None, signal) => killed_by(signal.unwrap_or_default()),
        };
        let sealed = session.seal(Some(exit), &mut |phase, done, whole| {
            progress.report(phase.verb(), done, whole)
        });
        progress.clear();
        let around = Surroundings {
            path: session.path().to_owned(),
            shown: self.settings.sessions.shown().join(session.id()),
            exit_code,
            ..Surroundings::default()
        };
        let summary = sealed.map(|()| {
            let manifest = if self.settings.analyze && running.is_empty() {
                compact(session, &hurry, progress)
            } else {
                session.manifest().clone()
            };
            summarise(&manifest, around)
        });
        if !running.is_empty() {
            // Their control sockets are in it.
            runtime.keep();
        }
        Outcome {
            session: id,
            exit_code,
            summary,
        }
    }
}

/// Asks the command's python for what the flavor wants to know.
fn python_of(settings: &Settings) -> Option<Python> {
    let flavor = settings.flavor;
    if flavor.software.is_empty() {
        return None;
    }
    let to_vllm = |default: &&EnvDefault| default.known_to == KnownTo::Vllm;
    let variables: Vec<&str> = flavor
        .environment
        .iter()
        .filter(to_vllm)
        .map(|default| default.name)
        .collect();
    let question = Question {
        packages: flavor.software,
        vllm_variables: &variables,
        patience: PYTHON_PATIENCE,
    };
    let cwd = settings.cwd.as_deref();
    let python = interpreter(settings.command.first()?, cwd, env::var_os("PATH").as_deref())?;
    question.ask(&python, cwd)
}

/// As the Python package reads it.
fn is_on(value: &std::ffi::OsStr) -> bool {
    let value = value.to_string_lossy().trim().to_lowercase();
    !["", "0", "false", "no", "off"].contains(&value.as_str())
}

fn software(python: &Python) -> BTreeMap<String, String> {
    let mut software = python.packages.clone();
    software.insert("python".to_owned(), python.release.clone());
    software
}

fn new_session(settings: &Settings, evaluator: &str, python: Option<&Python>) -> NewSession {
    let cwd = env::current_dir().unwrap_or_default();
    let cwd = settings.cwd.as_ref().map_or(cwd.clone(), |folder| cwd.join(folder));
    NewSession {
        name: settings.name.clone(),
        command: settings
            .command
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
        cwd: cwd.to_string_lossy().into_owned(),
        evaluator: evaluator.to_owned(),
        flavor: settings.flavor.name.to_owned(),
        gate: settings.gate.name().into_owned(),
        trace: settings.trace.iter().map(|trace| trace.name().to_owned()).collect(),
        simulated: settings.sim,
        software: python.map(software).unwrap_or_default(),
    }
}

fn start(
    settings: &Settings,
    evaluator: &dyn Evaluator,
    session: &mut SessionWriter,
    mut environment: Environment,
    inherited: Inherited<'_>,
    signals: &mut Signals,
) -> Result<(Child, RuntimeFolder), RunError> {
    let runtime = RuntimeFolder::create(session.id())?;
    environment.tell_guest(settings, evaluator.name(), session.path(), runtime.path());
    evaluator.environment(settings, &runtime, inherited, &mut environment)?;
    if settings.sim {
        let folder = program_folder()?;
        sim::stand_in(&runtime, &folder, inherited, &mut environment)?;
        // For `colonel run --sim -- colonel-sim …`.
        environment.prepend("PATH", &folder, inherited);
    }
    if let Some(signal) = signals.ended_before_start() {
        return Err(RunError::Interrupted { signal });
    }
    let cwd = settings.cwd.as_deref();
    let (words, streams) = evaluator.command(session, &settings.command)?;
    if words != settings.command {
        command::check(&settings.command, cwd, &environment)?;
    }
    let child = command::spawn(&words, cwd, &environment, signals.mask(), streams)?;
    Ok((child, runtime))
}

/// Turns the raw samples of hardware counters into rows; what could not be stays, and the session says why.
fn evaluate_samples(
    settings: &Settings,
    session: &mut SessionWriter,
    running: &[u32],
    hurry: &AtomicBool,
    progress: &mut Progress,
) {
    let options = counters::Options {
        keep: settings.counters.as_ref().is_some_and(|counters| counters.keep_samples),
        cupti: None,
        stop: hurry,
    };
    let mut show = |done, whole| progress.report("evaluating samples of hardware counters", done, whole);
    let failures = match counters::evaluate(session.path(), running, options, &mut show) {
        Ok((evaluation, failures)) => {
            session.manifest_mut().evaluation = Some(evaluation);
            failures
        }
        Err(error) => vec![error.to_string()],
    };
    if !failures.is_empty() {
        let message = format!(
            "not all samples of hardware counters became rows: {}; what is left of the raw data is evaluated by `colonel \
             counters evaluate {}`",
            failures.join("; "),
            session.id()
        );
        session.add_problem(counters::NOT_EVALUATED, message);
    }
}

/// Waits a moment for processes of the session that outlive the command; returns those that still run.
fn wait_for_others(session: &Path, hurry: &AtomicBool, progress: &mut Progress) -> Vec<u32> {
    let started = Instant::now();
    loop {
        let running = running(session);
        let waited = started.elapsed();
        if running.is_empty() || waited >= PATIENCE || hurry.load(Ordering::Relaxed) {
            return running;
        }
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        progress.report(
            "waiting for processes that outlive the command",
            milliseconds(waited),
            milliseconds(PATIENCE),
        );
        std::thread::sleep(POLL);
    }
}

/// Processes whose guest has not finished and that are alive.
fn running(session: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(session.join(PROCESSES_DIR)) else {
        return Vec::new();
    };
    let files = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json") && !is_hidden(path));
    files
        .filter_map(|path| serde_json::from_slice::<Process>(&fs::read(path).ok()?).ok())
        .filter(|process| process.ended_ns.is_none() && records(process.state))
        .filter(|process| is_alive(process.pid, process.start_ticks))
        .map(|process| process.pid)
        .collect()
}

/// A guest that is off writes nothing more, however long its process lives.
fn records(state: ProcessState) -> bool {
    matches!(state, ProcessState::Armed | ProcessState::Capturing)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Compacts on a thread of its own, so that a signal can leave it behind: the session is sealed already, and tables are
/// exchanged whole.
fn compact(mut session: SessionWriter, hurry: &Arc<AtomicBool>, mut progress: Progress) -> Manifest {
    let mut sealed = session.manifest().clone();
    let folder = session.path().to_owned();
    let (send, receive) = mpsc::channel();
    let stop = Arc::clone(hurry);
    std::thread::spawn(move || {
        let stopped = send.clone();
        let result = session.compact(&mut |phase, done, whole| {
            if stop.load(Ordering::Relaxed) {
                // From here no table is exchanged any more; the thread ends with the process.
                let _ = stopped.send(Compacted::Stopped);
                loop {
                    std::thread::park();
                }
            }
            progress.report(phase.verb(), done, whole);
        });
        progress.clear();
        let _ = send.send(match result {
            Ok(()) => Compacted::Done(Box::new(session.manifest().clone())),
            Err(error) => Compacted::Failed(error),
        });
    });
    let why = match receive.recv() {
        Ok(Compacted::Done(manifest)) => return *manifest,
        Ok(Compacted::Failed(error)) => error.to_string(),
        Ok(Compacted::Stopped) => {
            let _ = fs::remove_dir_all(folder.join(UNFINISHED));
            "a signal came first; it is complete all the same, and larger".to_owned()
        }
        Err(mpsc::RecvError) => "colonel itself failed at it".to_owned(),
    };
    let message = format!("the session is sealed, but was not compacted: {why}");
    let time_ns = sealed.ended_ns.unwrap_or_default();
    sealed.problems.push(Problem {
        code: "not_compacted".to_owned(),
        message,
        time_ns,
    });
    sealed
}

/// How compaction ended.
enum Compacted {
    Done(Box<Manifest>),
    Failed(SessionError),
    Stopped,
}

fn summarise(manifest: &Manifest, mut around: Surroundings) -> Summary {
    if let Ok(session) = Session::load(&around.path) {
        around.bytes = session.disk_bytes();
        around.gpus = gpus(&session);
    }
    around.why_no_kernels = if manifest.rows.get("kernels").copied().unwrap_or(0) == 0 {
        let is_off = |process: &Process| process.state == ProcessState::Off;
        let mut why = why_no_kernels(manifest);
        if manifest.evaluator == "cupti" && manifest.processes.iter().any(is_off) {
            why = format!("{why}\n{}", other_evaluators());
        }
        Some(why)
    } else {
        None
    };
    Summary::new(manifest, around)
}
