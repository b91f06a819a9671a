//! `colonel compare`: two sessions side by side, kernel by kernel.

use std::ffi::OsString;
use std::process::ExitCode;

use super::output::{answer, answer_json, talk};
use super::sessions_dir::SessionsDirArgs;
use crate::analysis::{Comparison, SessionSummary};
use crate::report::{CompareJson, compare_text, terminal_width};
use crate::session::Session;

/// Kernels of the table, unless told otherwise.
const DEFAULT_LIMIT: usize = 20;

/// Put two sessions side by side, kernel by kernel, whoever recorded them
#[derive(Debug, clap::Args)]
pub struct Args {
    /// First session: an id, the first digits of one, `latest`, or a session's folder
    #[arg(value_name = "A")]
    a: OsString,
    /// Second session
    #[arg(value_name = "B")]
    b: OsString,
    /// Print JSON: all kernels unless limited
    #[arg(long)]
    json: bool,
    /// Kernels shown, the longest in total first; 0 for all [default: 20, with --json all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    sessions: SessionsDirArgs,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let sessions = args.sessions.resolve()?;
    let limit = match (args.limit, args.json) {
        (Some(0), _) | (None, true) => None,
        (Some(limit), _) => Some(limit),
        (None, false) => Some(DEFAULT_LIMIT),
    };
    let (a, b) = (Session::open(&sessions, &args.a)?, Session::open(&sessions, &args.b)?);
    let (of_a, of_b) = (SessionSummary::of(&a)?, SessionSummary::of(&b)?);
    let comparison = Comparison::of([&of_a, &of_b], [a.manifest(), b.manifest()]);
    if args.json {
        answer_json(&CompareJson::new([&a, &b], &comparison, limit))?;
    } else {
        answer(&compare_text([&a, &b], &comparison, limit, terminal_width()))?;
    }
    for problem in of_a.problems.iter().chain(&of_b.problems) {
        talk(&problem.message);
    }
    Ok(ExitCode::SUCCESS)
}
