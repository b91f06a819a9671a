//! The DuckDB that answers: its Python package in the python beside `colonel` or on the PATH, or a `duckdb` on the PATH.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde::Serialize;

use super::views::quoted;

/// Runs in a python.
const SCRIPT: &str = include_str!("answer.py");
/// Ends with 0 where the python has DuckDB.
const ASK: &str = "import importlib.util, sys; sys.exit(importlib.util.find_spec('duckdb') is None)";

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    /// CSV in which `NULL` stands for null, to be laid out as a table.
    Table,
    /// CSV.
    Csv,
    /// A JSON array with an object a row.
    Json,
    /// Parquet, into a file.
    Parquet,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// DuckDB was killed, perhaps for its memory, and could not say why.
    #[error("DuckDB was ended by signal {0}")]
    Killed(i32),
    /// The program could not be started or fed.
    #[error("`{program}` can't be run: {source}")]
    Program {
        /// Which.
        program: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A DuckDB of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// A python that has the package `duckdb`.
    Python(PathBuf),
    /// DuckDB's own program.
    Program(PathBuf),
}

#[derive(Serialize)]
struct Job<'a> {
    views: &'a str,
    sql: &'a str,
    format: OutputKind,
    out: Option<&'a Path>,
}

impl Engine {
    /// The first that is there: the python that colonel was installed with, `duckdb`, another python.
    pub fn find() -> Option<Self> {
        let beside = std::env::current_exe().ok();
        let beside = beside.iter().filter_map(|exe| exe.parent());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<_> = std::env::split_paths(&path).collect();
        let in_path = |name: &str| {
            folders
                .iter()
                .map(|folder| folder.join(name))
                .find(|path| path.is_file())
        };
        let with_duckdb = |python: PathBuf| has_duckdb(&python).then_some(Self::Python(python));
        let installed_with = beside.map(|folder| folder.join("python3")).find(|path| path.is_file());
        installed_with
            .and_then(with_duckdb)
            .or_else(|| in_path("duckdb").map(Self::Program))
            .or_else(|| in_path("python3").and_then(with_duckdb))
            .or_else(|| in_path("python").and_then(with_duckdb))
    }

    /// Starts the query. The answer comes from the child's stdout, or goes into `out`, which Parquet needs; DuckDB says on
    /// our stderr what is wrong with the query, and where.
    pub fn start(&self, views: &str, sql: &str, kind: OutputKind, out: Option<&Path>) -> Result<Child, QueryError> {
        let (program, mut command, input) = match self {
            Self::Python(python) => {
                let job = Job {
                    views,
                    sql,
                    format: kind,
                    out,
                };
                let mut command = Command::new(python);
                command.args(["-c", SCRIPT]);
                (python, command, serde_json::to_string(&job).map_err(io::Error::from))
            }
            Self::Program(program) => {
                let mut command = Command::new(program);
                command.args(program_options(kind));
                let sql = out.map_or_else(|| sql.to_owned(), |out| copy_to_parquet(sql, out));
                (program, command, Ok(format!("{views}\n{sql}\n;\n")))
            }
        };
        let failed = |source| QueryError::Program {
            program: program.display().to_string(),
            source,
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let fed = child
            .stdin
            .take()
            .map_or(Ok(()), |mut stdin| stdin.write_all(input?.as_bytes()));
        match fed {
            // It ended before it had read all: it says why itself.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(error)),
            _ => Ok(child),
        }
    }
}

impl QueryError {
    /// Whether a child that has ended so gave an answer. If not, it has said why on stderr.
    pub fn answered(status: ExitStatus) -> Result<bool, Self> {
        status
            .signal()
            .map_or_else(|| Ok(status.success()), |signal| Err(Self::Killed(signal)))
    }
}

fn has_duckdb(python: &Path) -> bool {
    let status = Command::new(python)
        .args(["-c", ASK])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// It reads no `.duckdbrc` of the user's, and stops at the first error.
fn program_options(format: OutputKind) -> Vec<OsString> {
    let mode: &[&str] = match format {
        OutputKind::Table => &["-csv", "-nullvalue", "NULL"],
        OutputKind::Csv | OutputKind::Parquet => &["-csv"],
        OutputKind::Json => &["-json"],
    };
    let always = ["-init", "/dev/null", "-batch", "-bail"];
    always.iter().chain(mode).map(OsString::from).collect()
}

fn copy_to_parquet(sql: &str, path: &Path) -> String {
    let sql = sql.trim().trim_end_matches(';');
    format!(
        "COPY (\n{sql}\n) TO {} (FORMAT parquet)",
        quoted(&path.to_string_lossy())
    )
}
