//! `colonel list`: the sessions there are, newest last.

use std::process::ExitCode;

use super::output::{answer, answer_json, talk};
use super::sessions_dir::SessionsDirArgs;
use crate::report::{ListJson, list_table, terminal_width};
use crate::session::Session;

/// List the sessions, newest last
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sessions: SessionsDirArgs,
}

/// Runs the command. No session is an empty list, not a failure.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let sessions = args.sessions.resolve()?;
    let listed = Session::list(&sessions)?;
    if args.json {
        answer_json(&ListJson::new(&listed))?;
        return Ok(ExitCode::SUCCESS);
    }
    if listed.is_empty() {
        talk(&format!(
            "no sessions in `{}` yet; next: colonel run -- CMD",
            sessions.shown().display()
        ));
        return Ok(ExitCode::SUCCESS);
    }
    answer(&list_table(&listed, terminal_width()))?;
    for error in listed.iter().filter_map(|listed| listed.session.as_ref().err()) {
        talk(&error.to_string());
    }
    talk(&format!("next: colonel show{} [ID]", args.sessions.option()));
    Ok(ExitCode::SUCCESS)
}
