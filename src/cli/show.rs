//! `colonel show`: the kernel table of a session, its copies and idle time, and what was lost; or its kernels by layer,
//! step, phase or NVTX range.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::output::{answer, answer_json, talk};
use super::sessions_dir::SessionsDirArgs;
use crate::analysis::{Counters, LayerSummary, SessionSummary, SpeedOfLight};
use crate::report::{By, ByJson, CountersJson, ShowJson, by_text, counters_text, show_text, sum_up, terminal_width};
use crate::schema::manifest::Problem;
use crate::session::{SESSION_CHANGED, Selection, Session, SessionError, SessionsDir};

/// Kernels of the table, unless told otherwise.
const DEFAULT_LIMIT: usize = 20;

/// Show the kernels of a session
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Session: an id, the first digits of one, `latest`, or a session's folder
    #[arg(default_value = "latest", value_name = "ID")]
    session: OsString,
    /// Print JSON: all kernels unless limited, counts and sums as exact integers, times in ns
    #[arg(long)]
    json: bool,
    /// Only this window, by number or name, with the windows within it
    #[arg(long, value_name = "N|NAME")]
    window: Option<String>,
    /// Show kernels by part of the model, kind of step, phase, or NVTX range
    #[arg(long, value_name = "WHAT")]
    by: Option<ByArg>,
    /// Show hardware counters: by window, and what part of the GPU's peaks each kernel and layer reaches
    #[arg(long, conflicts_with = "by")]
    counters: bool,
    /// Kernels, kinds of steps or ranges shown, the longest in total first; 0 for all [default: 20, with --json all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    sessions: SessionsDirArgs,
}

/// What `--by` takes.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ByArg {
    Layer,
    Step,
    Phase,
    Nvtx,
}

impl From<ByArg> for By {
    fn from(by: ByArg) -> Self {
        match by {
            ByArg::Layer => Self::Layer,
            ByArg::Step => Self::Step,
            ByArg::Phase => Self::Phase,
            ByArg::Nvtx => Self::Nvtx,
        }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (sessions, window) = (args.sessions.resolve()?, args.window.as_deref());
    let limit = match (args.limit, args.json) {
        (Some(0), _) | (None, true) => None,
        (Some(limit), _) => Some(limit),
        (None, false) => Some(DEFAULT_LIMIT),
    };
    if let Some(by) = args.by.map(By::from) {
        let (session, summary) = read(&sessions, &args.session, window, LayerSummary::of, |summary| {
            &summary.problems
        })?;
        if args.json {
            answer_json(&ByJson::new(&session, by, &summary, window, limit))?;
        } else {
            answer(&by_text(&session, by, &summary, limit, terminal_width()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.counters {
        let both = |session: &Session, selection: Option<&Selection>| {
            Ok((Counters::of(session, selection)?, SpeedOfLight::of(session, selection)?))
        };
        let (session, (counters, speed)) = read(&sessions, &args.session, window, both, |(counters, _)| {
            &counters.problems
        })?;
        if args.json {
            answer_json(&CountersJson::new(&session, &counters, &speed, window, limit))?;
        } else {
            answer(&counters_text(&session, &counters, &speed, limit, terminal_width()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (session, summary) = read(
        &sessions,
        &args.session,
        window,
        SessionSummary::of_windows,
        |summary| &summary.problems,
    )?;
    let run = sum_up(&session, &summary);
    if args.json {
        answer_json(&ShowJson::new(&session, &run, &summary, limit))?;
        return Ok(ExitCode::SUCCESS);
    }
    answer(&show_text(&session, &run, &summary, limit, terminal_width()))?;
    if summary.kernel_count > 0 {
        talk(&format!(
            "next: pl.scan_parquet(\"{}\")",
            shortest(session.path()).join("kernels/**/*.parquet").display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// The launcher may compact the session while it is read: then it is read again.
pub(super) fn read<T>(
    sessions: &SessionsDir,
    which: &OsString,
    window: Option<&str>,
    summarize: impl Fn(&Session, Option<&Selection>) -> Result<T, SessionError>,
    problems: impl Fn(&T) -> &[Problem],
) -> Result<(Session, T), SessionError> {
    const ATTEMPTS: u32 = 3;
    let mut attempt = 1;
    loop {
        let session = Session::open(sessions, which)?;
        let selection = window
            .map(|window| Selection::find(session.manifest(), window))
            .transpose()?;
        let summary = summarize(&session, selection.as_ref())?;
        let changed = problems(&summary).iter().any(|problem| problem.code == SESSION_CHANGED);
        if !changed || attempt == ATTEMPTS {
            return Ok((session, summary));
        }
        attempt += 1;
    }
}

/// A path below the current folder without that folder.
fn shortest(path: &Path) -> &Path {
    let current = std::env::current_dir().ok();
    current
        .and_then(|current| path.strip_prefix(current).ok())
        .unwrap_or(path)
}
