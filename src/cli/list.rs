//! `colonel list`: the sessions there are, newest last.

use std::process::ExitCode;

use crate::cli::sessions_dir::SessionsDirArgs;

/// List the sessions
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sessions: SessionsDirArgs,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("to be written: {args:?}")
}
