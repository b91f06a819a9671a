//! `colonel import`: what another profiler recorded becomes a session.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use super::exit_code;
use super::output::{answer, talk};
use super::sessions_dir::SessionsDirArgs;
use crate::ingest::Ingest;
use crate::run::words::counted;
use crate::session::{NewSession, SessionWriter};

/// Make a session of another profiler's recording
///
/// FILE is a report of nsys exported as SQLite or as a folder of Parquet files (parquetdir), or a trace of torch's profiler
/// (Kineto): .json or .json.gz.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File or folder to read
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A name for the session [default: the file's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    sessions: SessionsDirArgs,
}

/// What a file is, by how it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    NsysSqlite,
    NsysParquetdir,
    Kineto,
}

impl Kind {
    fn of(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        if path.is_dir() {
            return Ok(Self::NsysParquetdir);
        }
        if path.extension().is_some_and(|extension| extension == "nsys-rep") {
            bail!("`{shown}` is nsys's own format; export it first: `nsys export --type sqlite {shown}`");
        }
        let mut head = [0; 16];
        let length = File::open(path)
            .and_then(|mut file| file.read(&mut head))
            .with_context(|| format!("`{shown}` can't be read"))?;
        match head.get(..length).unwrap_or_default() {
            [] => bail!("`{shown}` is empty"),
            head if head.starts_with(b"SQLite format 3\0") => Ok(Self::NsysSqlite),
            [0x1f, 0x8b, ..] => Ok(Self::Kineto),
            head if head.trim_ascii_start().starts_with(b"{") => Ok(Self::Kineto),
            _ => bail!(
                "`{shown}` is neither SQLite, as `nsys export --type sqlite` writes it, nor the JSON of torch's profiler"
            ),
        }
    }

    fn evaluator(self) -> &'static str {
        match self {
            Self::NsysSqlite | Self::NsysParquetdir => "nsys",
            Self::Kineto => "kineto",
        }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let kind = Kind::of(&args.file)?;
    let file_name = || args.file.file_name().map(|name| name.to_string_lossy().into_owned());
    let new = NewSession {
        name: args.name.clone().or_else(file_name),
        command: vec![
            "colonel".to_owned(),
            "import".to_owned(),
            args.file.display().to_string(),
        ],
        evaluator: kind.evaluator().to_owned(),
        flavor: "generic".to_owned(),
        gate: "process".to_owned(),
        ..NewSession::default()
    };
    let mut writer = SessionWriter::create(&args.sessions.resolve()?, new)?;
    let filled = fill(&mut writer, kind, &args.file);
    if let Err(error) = filled {
        // Half a recording would pass for a whole one.
        fs::remove_dir_all(writer.path()).with_context(|| format!("remove `{}`", writer.path().display()))?;
        return Err(error);
    }
    let rows = writer.manifest().rows.get("kernels").copied().unwrap_or(0);
    for problem in &writer.manifest().problems {
        talk(&problem.message);
    }
    let lost: u64 = writer.manifest().losses.iter().filter_map(|loss| loss.count).sum();
    if lost > 0 {
        let records = counted(lost, "record");
        talk(&format!(
            "{records} had no times that can be and made no rows; `colonel show` says of which tables"
        ));
    }
    answer(&format!("{}\n", writer.id()))?;
    talk(&format!(
        "session {}: {rows} kernels; next: colonel show {0}",
        writer.id()
    ));
    Ok(ExitCode::from(exit_code::YES))
}

fn fill(writer: &mut SessionWriter, kind: Kind, file: &Path) -> anyhow::Result<()> {
    let mut ingest = Ingest::new(writer.path(), "process");
    match kind {
        Kind::NsysSqlite => ingest.nsys_sqlite(file)?,
        Kind::NsysParquetdir => ingest.nsys_parquetdir(file)?,
        Kind::Kineto => ingest.kineto(file)?,
    }
    for problem in ingest.finish()? {
        writer.add_problem(&problem.code, problem.message);
    }
    writer.seal(None, &mut |_, _, _| {})?;
    writer.compact(&mut |_, _, _| {})?;
    if writer.manifest().rows.values().sum::<u64>() == 0 {
        bail!("`{}` has no rows that colonel knows", file.display());
    }
    Ok(())
}
