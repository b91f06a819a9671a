//! `colonel export`: a session in a format that others read.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;

use super::exit_code;
use super::output::talk;
use super::sessions_dir::SessionsDirArgs;
use crate::export::{Source, Target, arrow, chrome, csv, nsys, perfetto};
use crate::schema::columns::Table;
use crate::schema::tables;
use crate::session::Session;

/// Write a session in a format that others read
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Session: an id, the first digits of one, `latest`, or a session's folder
    #[arg(default_value = "latest", value_name = "SESSION")]
    session: OsString,
    /// Format
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// File to write, for csv and arrow a folder [default: colonel-ID and the format's ending]
    #[arg(long, short, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Overwrite files that are there
    #[arg(long)]
    force: bool,
    /// Only this process
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    #[command(flatten)]
    sessions: SessionsDirArgs,
}

/// What `--format` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Perfetto,
    Chrome,
    NsysSqlite,
    Csv,
    Arrow,
}

impl Format {
    /// What the format's own tools give their files.
    fn ending(self) -> &'static str {
        match self {
            Self::Perfetto => ".perfetto-trace",
            Self::Chrome => ".trace.json.gz",
            Self::NsysSqlite => ".sqlite",
            Self::Csv => "-csv",
            Self::Arrow => "-arrow",
        }
    }

    fn next(self) -> &'static str {
        match self {
            Self::Perfetto => "open it in ui.perfetto.dev, which reads it in the browser",
            Self::Chrome => "HolisticTraceAnalysis, ui.perfetto.dev or chrome://tracing open it",
            Self::NsysSqlite => "nsys stats FILE, or any script for nsys's SQLite exports",
            Self::Csv | Self::Arrow => "one file a table that has rows",
        }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let session = Session::open(&args.sessions.resolve()?, &args.session)?;
    let id = &session.manifest().id;
    let default = || PathBuf::from(format!("colonel-{id}{}", args.format.ending()));
    let output = args.output.clone().unwrap_or_else(default);
    let mut source = Source::new(&session, args.pid)?;
    let rows = match args.format {
        Format::Perfetto => one_file(&mut source, &output, args.force, perfetto)?,
        Format::Chrome => one_file(&mut source, &output, args.force, chrome)?,
        Format::NsysSqlite => one_file(&mut source, &output, args.force, nsys)?,
        Format::Csv => folder(&mut source, &output, args.force, "csv", csv)?,
        Format::Arrow => folder(&mut source, &output, args.force, "arrow", arrow)?,
    };
    let problems: BTreeSet<_> = source.problems.iter().map(|problem| problem.message.as_str()).collect();
    for problem in problems {
        talk(problem);
    }
    talk(&format!(
        "wrote `{}` ({rows} rows); next: {}",
        output.display(),
        args.format.next()
    ));
    Ok(ExitCode::from(exit_code::YES))
}

fn one_file<E: Into<anyhow::Error>>(
    source: &mut Source<'_>,
    output: &Path,
    force: bool,
    write: impl FnOnce(&mut Source<'_>, &Target) -> Result<(), E>,
) -> anyhow::Result<u64> {
    let target = Target::new(output, force)?;
    write(source, &target).map_err(Into::into)?;
    target.publish()?;
    Ok(source.rows.values().sum())
}

/// Refuses before anything is written if one of the files is there.
fn folder<E: Into<anyhow::Error>>(
    source: &mut Source<'_>,
    output: &Path,
    force: bool,
    ending: &str,
    write: impl Fn(&mut Source<'_>, &Table, &Target) -> Result<(), E>,
) -> anyhow::Result<u64> {
    let mut targets = Vec::new();
    for table in tables::all() {
        let rows: u64 = source
            .session()
            .parts(table.name)?
            .parts
            .iter()
            .map(|part| part.rows())
            .sum();
        if rows > 0 {
            let target = Target::new(&output.join(format!("{}.{ending}", table.name)), force)?;
            targets.push((table, target));
        }
    }
    if targets.is_empty() {
        bail!(
            "session `{0}` has no rows to export; `colonel show {0}` says why",
            source.session().manifest().id
        );
    }
    for (table, target) in &targets {
        write(source, table, target).map_err(Into::into)?;
    }
    for (_, target) in targets {
        target.publish()?;
    }
    Ok(source.rows.values().sum())
}
