//! `colonel query`: SQL over one session or several, done by DuckDB.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode};

use anyhow::{Context as _, bail};

use super::exit_code;
use super::output::{answer, talk};
use super::sessions_dir::SessionsDirArgs;
use crate::export::Target;
use crate::query::{Engine, OutputKind, QueryError, Views};
use crate::report::{rows_table, terminal_width};
use crate::schema::manifest::SessionState;
use crate::session::{LATEST, Session};

/// Rows of a table, unless told otherwise.
const DEFAULT_LIMIT: usize = 100;

/// Ask sessions in SQL, by DuckDB
///
/// The tables that `colonel tables` lists are views over the sessions' files, each with a column `session`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Sessions (`latest` if none is given), then the query, or `-` for one on stdin
    #[arg(required = true, value_names = ["SESSION", "SQL"], num_args = 1..)]
    words: Vec<OsString>,
    /// How to print [default: table, else what OUT's name says]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Write to this file
    #[arg(long, short, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Overwrite OUT
    #[arg(long)]
    force: bool,
    /// Rows of a table; 0 for all
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    /// Print the views and the query, to be run in a DuckDB elsewhere, instead of running it
    #[arg(long)]
    print_sql: bool,
    #[command(flatten)]
    sessions: SessionsDirArgs,
}

/// What `--format` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
    Parquet,
}

impl Format {
    /// What a file's name says.
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "csv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            "parquet" => Some(Self::Parquet),
            "txt" => Some(Self::Table),
            _ => None,
        }
    }

    fn kind(self) -> OutputKind {
        match self {
            Self::Table => OutputKind::Table,
            Self::Csv => OutputKind::Csv,
            Self::Json => OutputKind::Json,
            Self::Parquet => OutputKind::Parquet,
        }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (sessions, sql) = (sessions(args)?, sql(args)?);
    let views = Views::of(&sessions, None)?;
    let is_raw = |session: &Session| session.manifest().state != SessionState::Compacted;
    let raw: Vec<_> = sessions.iter().filter(|session| is_raw(session)).collect();
    let tell_problems = |views: &Views| views.problems.iter().for_each(|problem| talk(&problem.message));
    let tell_of_files = || {
        tell_problems(&views);
        for session in &raw {
            let id = &session.manifest().id;
            talk(&format!(
                "session {id} is not compacted: `layer`, `waves` and `nvtx_path` are null in its files"
            ));
        }
    };
    let pasted = || format!("{}\n{}\n", views.sql, sql.trim_end());
    if args.print_sql {
        tell_of_files();
        answer(&pasted())?;
        return Ok(ExitCode::from(exit_code::YES));
    }
    let format = match (args.format, &args.output) {
        (Some(format), _) => format,
        (None, Some(path)) => Format::of(path).with_context(|| {
            format!(
                "what is in `{}`? give --format csv, json, parquet or table",
                path.display()
            )
        })?,
        (None, None) => Format::Table,
    };
    if format == Format::Parquet && args.output.is_none() {
        bail!("Parquet goes into a file: give -o FILE.parquet");
    }
    let target = args
        .output
        .as_deref()
        .map(|path| Target::new(path, args.force))
        .transpose()?;
    let Some(engine) = Engine::find() else {
        tell_of_files();
        bail!(
            "`query` needs DuckDB: `pip install duckdb`, or put a `duckdb` on the PATH. Or paste this into a \
             DuckDB elsewhere:\n\n{}",
            pasted()
        );
    };
    let asks_kernels = sql.to_ascii_lowercase().contains("kernels");
    let filled = (asks_kernels && !raw.is_empty()).then(tempfile::tempdir).transpose()?;
    let views = match &filled {
        Some(folder) => Views::of(&sessions, Some(folder.path()))?,
        None => views,
    };
    tell_problems(&views);
    let query = Query {
        engine,
        views: &views.sql,
        sql: &sql,
    };
    let answered = match (format, &target) {
        (Format::Table, None) => query.table(args.limit, &mut io::stdout().lock())?,
        (Format::Table, Some(target)) => query.table(args.limit, &mut File::create(target.temporary())?)?,
        (Format::Parquet, Some(target)) => query.parquet(target.temporary())?,
        (format, Some(target)) => query.copy(format.kind(), &mut File::create(target.temporary())?)?,
        (format, None) => query.copy(format.kind(), &mut io::stdout().lock())?,
    };
    // DuckDB has said why not.
    if !answered {
        return Ok(ExitCode::from(exit_code::NO));
    }
    if let Some(target) = target {
        talk(&format!("wrote `{}`", target.publish()?.display()));
    }
    Ok(ExitCode::from(exit_code::YES))
}

/// All words but the last.
fn sessions(args: &Args) -> anyhow::Result<Vec<Session>> {
    let dir = args.sessions.resolve()?;
    let latest = [OsString::from(LATEST)];
    let (_, asked) = args.words.split_last().context("no query")?;
    let asked = if asked.is_empty() { &latest[..] } else { asked };
    let mut sessions = Vec::<Session>::new();
    for which in asked {
        let session = Session::open(&dir, which)?;
        if sessions.iter().all(|known| known.path() != session.path()) {
            sessions.push(session);
        }
    }
    Ok(sessions)
}

/// The last word.
fn sql(args: &Args) -> anyhow::Result<String> {
    let last = args.words.last().map(OsString::as_os_str).unwrap_or_default();
    let sql = if last == OsStr::new("-") {
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .context("read the query on stdin")?;
        text
    } else {
        last.to_str().context("the query is not UTF-8")?.to_owned()
    };
    // A session's id, or nothing, where the query should be.
    if !sql.trim().contains(char::is_whitespace) {
        bail!(
            "`{}` is no query; colonel query [SESSION]... \"SELECT ... FROM kernels\"",
            sql.trim()
        );
    }
    Ok(sql)
}

/// A query that can be started. Each way of writing the answer says whether there was one.
struct Query<'a> {
    engine: Engine,
    views: &'a str,
    sql: &'a str,
}

impl Query<'_> {
    fn start(&self, kind: OutputKind, out: Option<&Path>) -> Result<Child, QueryError> {
        self.engine.start(self.views, self.sql, kind, out)
    }

    /// The answer as DuckDB writes it.
    fn copy(&self, kind: OutputKind, to: &mut impl Write) -> anyhow::Result<bool> {
        let mut child = self.start(kind, None)?;
        let mut from = child.stdout.take().context("no output")?;
        if let Err(error) = io::copy(&mut from, to).and_then(|_| to.flush()) {
            // Before it finds its pipe closed, and complains.
            child.kill()?;
            child.wait()?;
            return Err(error.into());
        }
        Ok(QueryError::answered(child.wait()?)?)
    }

    fn parquet(&self, path: &Path) -> anyhow::Result<bool> {
        let answered = QueryError::answered(self.start(OutputKind::Parquet, Some(path))?.wait()?)?;
        if answered && !path.exists() {
            bail!("the query has no answer to write");
        }
        Ok(answered)
    }

    fn table(&self, limit: usize, to: &mut impl Write) -> anyhow::Result<bool> {
        let mut child = self.start(OutputKind::Table, None)?;
        let mut reader = csv::Reader::from_reader(child.stdout.take().context("no output")?);
        let heads: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
        let wanted = if limit == 0 { usize::MAX } else { limit };
        let mut records = reader.records();
        let rows = records
            .by_ref()
            .take(wanted)
            .map(|row| Ok(row?.iter().map(str::to_owned).collect()))
            .collect::<Result<Vec<Vec<String>>, csv::Error>>()?;
        if records.next().is_some() {
            // The rest is not wanted, so how it ends says nothing.
            child.kill()?;
            child.wait()?;
            talk(&format!("these are the first {limit} rows; --limit 0 shows all"));
        } else if !QueryError::answered(child.wait()?)? {
            return Ok(false);
        }
        if !heads.is_empty() {
            to.write_all(rows_table(&heads, &rows, terminal_width()).as_bytes())?;
            to.flush()?;
        }
        if rows.is_empty() {
            talk("no rows");
        }
        Ok(true)
    }
}
