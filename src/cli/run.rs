//! `colonel run`: a command, profiled.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::Cli;
use super::knobs::KnobArgs;
use super::sessions_dir::SessionsDirArgs;
use crate::analysis::findings::Findings;
use crate::report::findings_in_short;
use crate::run::config::{ConfigError, Files, Source, resolve, typed};
use crate::run::evaluators::EvaluatorKind;
use crate::run::flavors::{FLAVORS, Flavor};
use crate::run::knobs::Knobs;
use crate::run::{Bursts, Choice, Counters, Gate, GateBy, Launch, Mode, Outcome, RunError, Settings, Summary, Trace};
use crate::schema::counters::DEFAULT;
use crate::schema::env as variables;
use crate::schema::manifest::SessionState;
use crate::session::{Session, SessionError};

/// Run a command and record what it does on the GPU
///
/// The command's output and exit code are its own. colonel speaks on stderr, when the command has ended.
#[derive(Debug, clap::Args)]
#[command(override_usage = "colonel run [OPTIONS] -- CMD [ARGS]...")]
pub struct Args {
    /// Name for the session
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Kind of workload, a set of defaults: `generic`, or `vllm` (gate `profiler`, and what vLLM needs in its
    /// environment)
    #[arg(long, value_name = "FLAVOR", default_value = "generic", value_parser = parse_flavor)]
    flavor: &'static Flavor,
    /// What opens a window: `process` (its whole life), `profiler` (cudaProfilerStart and Stop), `manual`
    /// (`colonel start` and `stop`), or `nvtx:NAME[@DOMAIN]` (NVTX ranges, also with `*` and `?`) [default: the flavor's]
    #[arg(long, value_name = "GATE", value_parser = Gate::parse)]
    gate: Option<Gate>,
    /// How cudaProfilerStart is seen: `preload` (costs nothing), `callback` (sees also a static cudart and handles
    /// from ctypes or cuda-python, and makes CUDA graph launches dearer), or `auto`
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = GateBy::parse)]
    gate_by: GateBy,
    /// Open the window only this long after its trigger, such as `5s` or `1min 30s`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    after: Option<Duration>,
    /// Close the window after this long
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    window: Option<Duration>,
    /// Record more: `api` (calls of the CUDA runtime and driver), `nvtx` (NVTX ranges)
    #[arg(long, value_name = "KINDS", value_delimiter = ',', value_parser = Trace::parse)]
    trace: Vec<Trace>,
    /// Sample hardware counters while a window is open: the set `default`, or others and metrics (`colonel counters` lists them)
    #[arg(
        long, value_name = "SET|METRIC,…", num_args = 0..=1, require_equals = true, default_missing_value = DEFAULT,
        value_parser = Counters::parse
    )]
    counters: Option<String>,
    /// Time between two samples of the counters [default: 100us, or what many metrics keep up with]
    #[arg(long, value_name = "TIME", value_parser = Counters::parse_interval)]
    counters_interval: Option<Duration>,
    /// Leave the counters' raw samples in the session
    #[arg(long)]
    keep_samples: bool,
    /// What is taken: `full`; `sampled`, kernels in bursts now and then; or `counters`, hardware counters alone (no
    /// kernels, no subscriber, so no cost to launches)
    #[arg(long, value_name = "MODE", default_value = "full", value_parser = Mode::parse)]
    mode: Mode,
    /// Of `--mode sampled`: how long a burst is [default: 20ms]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    burst: Option<Duration>,
    /// Of `--mode sampled`: from one burst to the next, in the mean [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    burst_every: Option<Duration>,
    /// Which profiler: `cupti` (colonel's own), `nsys` or `ncu` (NVIDIA's, into the same tables), or `auto`, which is
    /// `cupti`
    #[arg(long, value_name = "EVALUATOR", default_value = "auto", value_parser = EvaluatorKind::parse)]
    evaluator: EvaluatorKind,
    /// Run the command in this folder; other paths stay relative to the current one
    #[arg(short = 'C', long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Put gpu-sim's stand-ins in front of the CUDA libraries: no GPU is needed
    #[arg(long)]
    sim: bool,
    /// Leave the tables as they were written, without sorting and merging them, and look for no findings
    #[arg(long)]
    no_analyze: bool,
    /// Write the summary as JSON to this file
    #[arg(long, value_name = "FILE", value_parser = parse_json_file)]
    json: Option<PathBuf>,
    /// Take the place of another tool's `CUDA_INJECTION64_PATH`
    #[arg(long)]
    replace_injection: bool,
    #[command(flatten)]
    sessions: SessionsDirArgs,
    #[command(flatten)]
    knobs: KnobArgs,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.command.is_empty() {
        let message = "no command to run; put it behind `--`, such as `colonel run -- python train.py`";
        return refuse(ErrorKind::MissingRequiredArgument, message);
    }
    if let Err(message) = check_mode(args) {
        return refuse(ErrorKind::ArgumentConflict, &message);
    }
    let launch = Launch::new(settings(args)?)?;
    let json = args.json.as_deref().map(JsonFile::open).transpose()?;
    let Outcome {
        session,
        exit_code,
        summary,
    } = match launch.run() {
        Ok(outcome) => outcome,
        Err(error) => {
            json.inspect(JsonFile::give_up);
            return Err(error.into());
        }
    };
    match summary {
        Ok(summary) => {
            say(&summary.render(&show_option(args)));
            if !args.no_analyze && summary.kernels() > 0 {
                say(&found(&session, args));
            }
            if let Some(Err(error)) = json.map(|file| file.write(&summary)) {
                say(&format!("colonel: {error:#}\n"));
            }
        }
        Err(error) => {
            json.inspect(JsonFile::give_up);
            say(&unsealed(&session, &error, &show_option(args)));
        }
    }
    Ok(ExitCode::from(exit_code))
}

fn refuse(kind: ErrorKind, message: &str) -> anyhow::Result<ExitCode> {
    let mut command = Cli::command();
    command.build();
    let run = command.find_subcommand_mut("run").context("find the command `run`")?;
    Ok(super::error::usage(&run.error(kind, message)))
}

/// Whether the mode goes with the rest.
fn check_mode(args: &Args) -> Result<(), String> {
    let bursts = bursts(args);
    if args.mode != Mode::Sampled && (args.burst.is_some() || args.burst_every.is_some()) {
        return Err("`--burst` and `--burst-every` are for `--mode sampled`: add that, or leave them out".to_owned());
    }
    if args.mode == Mode::Sampled && args.trace.contains(&Trace::Api) {
        return Err("`--trace api` can't be turned off between bursts, so it goes with `--mode full` alone".to_owned());
    }
    if args.mode != Mode::Full && matches!(args.evaluator, EvaluatorKind::Nsys | EvaluatorKind::Ncu) {
        return Err(format!(
            "`--mode {}` is colonel's own: leave `--evaluator` out, or the mode",
            args.mode.word()
        ));
    }
    if bursts.length < Bursts::SHORTEST || bursts.every < bursts.length * 2 {
        return Err(format!(
            "bursts of {:?} every {:?}: a burst is {:?} or longer, and from one to the next it is twice its length at least; \
             for kernels all the time there is `--mode full`",
            bursts.length,
            bursts.every,
            Bursts::SHORTEST
        ));
    }
    Ok(())
}

fn bursts(args: &Args) -> Bursts {
    let usual = Bursts::default();
    Bursts {
        length: args.burst.unwrap_or(usual.length),
        every: args.burst_every.unwrap_or(usual.every),
    }
}

/// Settings of the flavor that stand for its gate: with another gate they don't hold.
const OF_THE_GATE: [&str; 2] = ["nsys_capture_range", "ncu_profile_from_start"];

fn knobs(args: &Args) -> Result<Knobs, ConfigError> {
    let variable = |name: &str| std::env::var_os(name);
    let mut values = resolve(args.flavor, &Files::here(), variable, &args.knobs.given)?;
    if args.gate.is_some() {
        values.retain(|name, (_, source)| !OF_THE_GATE.contains(name) || !matches!(source, Source::Flavor(_)));
    }
    typed(&values)
}

fn settings(args: &Args) -> Result<Settings, RunError> {
    Ok(Settings {
        name: args.name.clone(),
        flavor: args.flavor,
        gate: args.gate.clone().unwrap_or_else(|| args.flavor.gate.clone()),
        gate_by: args.gate_by,
        after: args.after,
        window: args.window,
        trace: args.trace.clone(),
        mode: args.mode,
        bursts: bursts(args),
        counters: counters(args),
        evaluator: args.evaluator,
        knobs: knobs(args)?,
        cwd: args.cwd.clone(),
        sessions: args.sessions.resolve().map_err(|source| RunError::NoSession {
            dir: args.sessions.sessions_dir.clone().unwrap_or_default().into(),
            source,
        })?,
        sim: args.sim,
        analyze: !args.no_analyze,
        replace_injection: args.replace_injection,
        command: args.command.clone(),
    })
}

/// Counters, where they or their mode are asked for.
fn counters(args: &Args) -> Option<Counters> {
    let default = || (args.mode == Mode::Counters).then(|| DEFAULT.to_owned());
    Some(Counters {
        metrics: args.counters.clone().or_else(default)?,
        interval: args.counters_interval,
        keep_samples: args.keep_samples,
    })
}

/// What `colonel show` must be told to find the session: nothing where the variable or the default does.
fn show_option(args: &Args) -> String {
    match &args.sessions.sessions_dir {
        Some(dir) if !dir.is_empty() && std::env::var_os(variables::SESSIONS_DIR).as_ref() != Some(dir) => {
            format!(" --sessions-dir {}", dir.display())
        }
        _ => String::new(),
    }
}

/// The gravest findings, a line each. What hinders them is told by `colonel analyze`: the run itself is done.
fn found(session: &str, args: &Args) -> String {
    let open = || {
        let session = Session::open(&args.sessions.resolve()?, session.as_ref())?;
        // An interrupt ends compaction: who sent it does not want to wait for this, either.
        match session.manifest().state {
            SessionState::Compacted => Findings::of(&session, None),
            _ => Ok(Findings::default()),
        }
    };
    let Ok(findings) = open() else { return String::new() };
    let lines = findings_in_short(&findings);
    let text: String = lines.iter().map(|line| format!("         {line}\n")).collect();
    if text.is_empty() {
        return text;
    }
    format!(
        "colonel: what costs time (`colonel analyze{}` says more)\n{text}",
        show_option(args)
    )
}

fn unsealed(session: &str, error: &SessionError, show_option: &str) -> String {
    let mut text = format!("colonel: session {session} could not be sealed: {error}\n");
    if !matches!(error, SessionError::Gone(_)) {
        text += &format!(
            "         what its processes wrote is kept: free space, then `colonel show{show_option} {session}` reads it\n"
        );
    }
    text
}

fn say(text: &str) {
    // A closed stderr is no reason to fail.
    let _ = io::stderr().write_all(text.as_bytes());
}

pub(super) fn parse_flavor(name: &str) -> Result<&'static Flavor, String> {
    Flavor::named(name).ok_or_else(|| {
        let known: Vec<&str> = FLAVORS.iter().map(|flavor| flavor.name).collect();
        format!("unknown flavor `{name}` (known: {})", known.join(", "))
    })
}

fn parse_json_file(path: &str) -> Result<PathBuf, String> {
    if path == "-" {
        return Err("stdout is the command's: name a file".to_owned());
    }
    Ok(PathBuf::from(path))
}

/// The file for the summary, opened before the command starts: a wrong path is told at once, not after an hour.
#[derive(Debug)]
struct JsonFile {
    path: PathBuf,
    file: std::fs::File,
    made: bool,
}

impl JsonFile {
    fn open(path: &Path) -> Result<Self, RunError> {
        let made = !path.exists();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(|source| RunError::NoJson {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            made,
        })
    }

    fn write(mut self, summary: &Summary) -> anyhow::Result<()> {
        let context = || format!("failed to write the summary to `{}`", self.path.display());
        let json = summary.to_json().with_context(context)?;
        self.file
            .set_len(0)
            .and_then(|()| self.file.write_all(json.as_bytes()))
            .with_context(context)
    }

    /// Leaves no empty file behind.
    fn give_up(&self) {
        if self.made {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
