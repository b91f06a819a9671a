//! `colonel doctor`: what a capture needs, and what of it is here.

use std::io::{self, Write as _};
use std::process::ExitCode;

use super::exit_code;
use super::sessions_dir::SessionsDirArgs;
use crate::run::doctor::{Capture, Diagnosis, Facts};

/// Check what a capture needs: GPU, driver, CUPTI, permissions, tools
///
/// Exits with 0 if a capture can work here, be it under gpu-sim only, else with 1.
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
    let diagnosis = Diagnosis::new(Facts::gather(&args.sessions.resolve()?));
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&diagnosis)?)?;
    } else {
        out.write_all(diagnosis.render().as_bytes())?;
    }
    let works = diagnosis.capture != Capture::Nothing;
    Ok(ExitCode::from(if works { exit_code::YES } else { exit_code::NO }))
}
