//! `colonel rm`: removes sessions.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cli::sessions_dir::SessionsDirArgs;

/// Remove sessions
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Sessions: ids, first digits of ids, or `latest`
    #[arg(required = true, value_name = "ID")]
    sessions: Vec<OsString>,
    /// Remove a session also while it runs
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    sessions_dir: SessionsDirArgs,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("to be written: {args:?}")
}
