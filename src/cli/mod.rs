//! The command line: one file a command, arguments and messages, no logic.

pub mod analyze;
pub mod compare;
pub mod config;
pub mod control;
pub mod counters;
pub mod doctor;
mod error;
pub mod export;
pub mod import;
pub mod knobs;
pub mod list;
mod output;
pub mod query;
pub mod report;
pub mod rm;
pub mod run;
pub mod sessions_dir;
pub mod show;
pub mod tables;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What `colonel` takes.
#[derive(Debug, Parser)]
#[command(
    name = "colonel",
    version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("COLONEL_COMMIT"), ")"),
    about = "The GPU profiler that lives inside the process it profiles",
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Start(control::StartArgs),
    Stop(control::StopArgs),
    Status(control::StatusArgs),
    List(list::Args),
    Show(show::Args),
    Compare(compare::Args),
    Counters(counters::Args),
    Query(query::Args),
    Tables(tables::Args),
    Export(export::Args),
    Import(import::Args),
    Analyze(analyze::Args),
    Report(report::Args),
    Rm(rm::Args),
    Doctor(doctor::Args),
    Config(config::Args),
}

/// Exit codes of every command but `run`, which has [`crate::run::exit_code`].
pub mod exit_code {
    /// Done, or the answer is yes.
    pub const YES: u8 = 0;
    /// The answer is no, or it could not be found out.
    pub const NO: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// Neither yes nor no: `compare --fail-on-regression` has too few figures.
    pub const CANNOT_TELL: u8 = 3;
}

/// Runs the command line given, program name first.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => return error::usage(&error),
    };
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::List(args) => list::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Counters(args) => counters::run(&args),
        Command::Query(args) => query::run(&args),
        Command::Tables(args) => tables::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Analyze(args) => analyze::run(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Start(args) => control::start(&args),
        Command::Stop(args) => control::stop(&args),
        Command::Status(args) => control::status(&args),
    };
    result.unwrap_or_else(|error| error::report(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
