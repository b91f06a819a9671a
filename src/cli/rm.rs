//! `colonel rm`: removes sessions.

use std::ffi::OsString;
use std::process::ExitCode;

use super::exit_code;
use super::output::{answer, talk};
use super::sessions_dir::SessionsDirArgs;
use crate::session::Session;

/// Remove sessions
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Sessions: ids, first digits of ids, or `latest`
    #[arg(required = true, value_name = "ID")]
    ids: Vec<OsString>,
    /// Remove a session also while it runs
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    sessions: SessionsDirArgs,
}

/// Runs the command: removes what can be, prints the ids removed, and says no if one could not be.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let sessions = args.sessions.resolve()?;
    let mut code = exit_code::YES;
    for which in &args.ids {
        match Session::remove(&sessions, which, args.force) {
            Ok(id) => answer(&format!("{id}\n"))?,
            Err(error) => {
                talk(&error.to_string());
                code = exit_code::NO;
            }
        }
    }
    Ok(ExitCode::from(code))
}
