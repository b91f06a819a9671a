//! `colonel show`: the kernel table of a session, its copies and idle time, and what was lost.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::output::{answer, answer_json, talk};
use super::sessions_dir::SessionsDirArgs;
use crate::analysis::SessionSummary;
use crate::report::{ShowJson, show_text, sum_up, terminal_width};
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
    /// Kernels shown, the longest in total first; 0 for all [default: 20, with --json all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    sessions: SessionsDirArgs,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (session, summary) = read(&args.sessions.resolve()?, &args.session, args.window.as_deref())?;
    let limit = match (args.limit, args.json) {
        (Some(0), _) | (None, true) => None,
        (Some(limit), _) => Some(limit),
        (None, false) => Some(DEFAULT_LIMIT),
    };
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
fn read(
    sessions: &SessionsDir,
    which: &OsString,
    window: Option<&str>,
) -> Result<(Session, SessionSummary), SessionError> {
    const ATTEMPTS: u32 = 3;
    let mut attempt = 1;
    loop {
        let session = Session::open(sessions, which)?;
        let selection = window
            .map(|window| Selection::find(session.manifest(), window))
            .transpose()?;
        let summary = SessionSummary::of_windows(&session, selection.as_ref())?;
        let changed = summary.problems.iter().any(|problem| problem.code == SESSION_CHANGED);
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
