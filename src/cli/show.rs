//! `colonel show`: the kernel table of a session, its copies and idle time, and what was lost.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cli::sessions_dir::SessionsDirArgs;

/// Show the kernels of a session
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Session: an id, the first digits of one, `latest`, or a session's folder
    #[arg(default_value = "latest")]
    session: OsString,
    /// Print JSON, with all kernels, counts and sums exact
    #[arg(long)]
    json: bool,
    /// Kernels shown, the longest in total first; 0 for all
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: usize,
    #[command(flatten)]
    sessions: SessionsDirArgs,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("to be written: {args:?}")
}
