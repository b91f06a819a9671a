//! The exported database: which tables and columns it has, its strings, its clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

use super::{folder, process_of, thread_of};
use crate::ingest::IngestError;

/// Warnings of nsys that are passed on; a broken run has thousands of the same kind.
const MOST_DIAGNOSTICS: usize = 8;
/// Warnings of what is not read, and of processes that have none of what was asked for.
const OF_NO_MATTER: [&str; 4] = ["OpenGL", "OS runtime", "Scheduling information", "Does the process use"];

/// A database that was exported.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    connection: Connection,
    version: String,
    /// Unix time of nsys's zero.
    zero_ns: i64,
    strings: HashMap<i64, String>,
}

/// A row that was selected.
#[derive(Debug)]
pub(super) struct Cells<'a>(&'a Row<'a>);

impl Cells<'_> {
    pub(super) fn integer(&self, column: usize) -> rusqlite::Result<Option<i64>> {
        Ok(match self.0.get_ref(column)? {
            ValueRef::Integer(value) => Some(value),
            // A float where we know an integer: newer schemas may change their mind.
            #[expect(clippy::cast_possible_truncation, reason = "ids and times are far from it")]
            ValueRef::Real(value) => Some(value as i64),
            _ => None,
        })
    }

    pub(super) fn real(&self, column: usize) -> rusqlite::Result<Option<f64>> {
        Ok(match self.0.get_ref(column)? {
            ValueRef::Real(value) => Some(value),
            _ => None,
        })
    }

    pub(super) fn text(&self, column: usize) -> rusqlite::Result<Option<String>> {
        Ok(match self.0.get_ref(column)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        })
    }
}

/// A column of a query, and whether there is no row without it.
pub(super) type Wanted = (&'static str, bool);

impl Database {
    pub(super) fn open(path: &Path) -> Result<Self, IngestError> {
        std::fs::metadata(path).map_err(|error| refuse(path, error.to_string()))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::of(path, Connection::open_with_flags(path, flags)?)
    }

    /// Of a folder of Parquet files.
    pub(super) fn open_folder(path: &Path) -> Result<Self, IngestError> {
        Self::of(path, folder::connect(path).map_err(|reason| refuse(path, reason))?)
    }

    fn of(path: &Path, connection: Connection) -> Result<Self, IngestError> {
        let mut database = Self {
            path: path.to_owned(),
            connection,
            version: "unknown".to_owned(),
            zero_ns: 0,
            strings: HashMap::new(),
        };
        // A report of nothing has no strings.
        let has = |table| database.has(table).map_err(|error| refuse(path, error.to_string()));
        if !has("META_DATA_EXPORT")? && !has("StringIds")? {
            let reason = "it has neither a table `META_DATA_EXPORT` nor `StringIds`";
            return Err(refuse(path, reason.to_owned()));
        }
        database.read_version()?;
        database.read_zero()?;
        database.read_strings()?;
        Ok(database)
    }

    /// Unix time of a time of nsys's.
    pub(super) fn unix_ns(&self, time: i64) -> i64 {
        self.zero_ns.saturating_add(time)
    }

    pub(super) fn string(&self, id: i64) -> Option<&str> {
        self.strings.get(&id).map(String::as_str)
    }

    /// Rows of a table; none where it is not there.
    pub(super) fn count(&self, table: &'static str) -> Result<i64, IngestError> {
        if !self.has(table)? {
            return Ok(0);
        }
        let sql = format!("SELECT count(*) FROM \"{table}\"");
        Ok(self.connection.query_row(&sql, [], |row| row.get(0))?)
    }

    /// Calls `take` with each row of a table that this schema has, absent columns being null. A table that is not there
    /// has no rows; `rest` is what follows the table's name in the query.
    pub(super) fn each(
        &self,
        table: &'static str,
        wanted: &[Wanted],
        rest: &str,
        mut take: impl FnMut(&Cells<'_>) -> Result<(), IngestError>,
    ) -> Result<(), IngestError> {
        let there = self.columns(table)?;
        if there.is_empty() {
            return Ok(());
        }
        let mut columns = Vec::new();
        for &(column, needed) in wanted {
            if there.contains(column) {
                columns.push(format!("\"{column}\""));
            } else if needed {
                return Err(IngestError::UnknownSchema {
                    path: self.path.clone(),
                    version: self.version.clone(),
                    table,
                    column,
                });
            } else {
                columns.push("NULL".to_owned());
            }
        }
        let sql = format!("SELECT {} FROM \"{table}\" {rest}", columns.join(", "));
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            take(&Cells(row))?;
        }
        Ok(())
    }

    /// From when to when nsys recorded, Unix ns: as it says itself, else from the first kernel to the last.
    pub(super) fn span_ns(&self) -> Result<(i64, i64), IngestError> {
        let said = self.bounds("ANALYSIS_DETAILS", ["startTime", "stopTime"])?;
        let span = match said {
            Some(span) => span,
            None => self.bounds(super::gpu::KERNELS, ["start", "end"])?.unwrap_or_default(),
        };
        Ok((self.unix_ns(span.0), self.unix_ns(span.1)))
    }

    fn bounds(&self, table: &'static str, columns: [&'static str; 2]) -> Result<Option<(i64, i64)>, IngestError> {
        let mut bounds: Option<(i64, i64)> = None;
        self.each(table, &columns.map(|column| (column, false)), "", |cells| {
            if let (Some(start), Some(end)) = (cells.integer(0)?, cells.integer(1)?) {
                let (first, last) = bounds.unwrap_or((start, end));
                bounds = Some((first.min(start), last.max(end)));
            }
            Ok(())
        })?;
        Ok(bounds)
    }

    /// Programs by process. One that was started through a shell has the shell's name in nsys's list of processes; its
    /// main thread has its own.
    pub(super) fn process_names(&self) -> Result<BTreeMap<u32, String>, IngestError> {
        let mut threads = BTreeMap::new();
        self.each("ThreadNames", &[("globalTid", true), ("nameId", true)], "", |cells| {
            let name = cells.integer(1)?.and_then(|id| self.string(id));
            if let (Some(global), Some(name)) = (cells.integer(0)?, name)
                && thread_of(global) == process_of(global).pid
            {
                threads.insert(process_of(global).pid, name.to_owned());
            }
            Ok(())
        })?;
        let mut names = BTreeMap::new();
        self.each("PROCESSES", &[("globalPid", true), ("name", false)], "", |cells| {
            if let Some(global) = cells.integer(0)? {
                let pid = process_of(global).pid;
                let name = cells.text(1)?.unwrap_or_default();
                let of_thread = threads.remove(&pid).filter(|_| is_shell(&name));
                names.insert(pid, of_thread.unwrap_or(name));
            }
            Ok(())
        })?;
        Ok(names)
    }

    /// Processes that have rows in one of the tables.
    pub(super) fn pids_of(&self, tables: &[(&'static str, &'static str)]) -> Result<BTreeSet<u32>, IngestError> {
        let mut pids = BTreeSet::new();
        for &(table, column) in tables {
            if !self.columns(table)?.contains(column) {
                continue;
            }
            let sql = format!("SELECT DISTINCT \"{column}\" >> 24 FROM \"{table}\" WHERE \"{column}\" IS NOT NULL");
            let mut statement = self.connection.prepare(&sql)?;
            let found = statement.query_map([], |row| row.get::<_, i64>(0))?;
            for global in found {
                pids.insert(process_of(global? << 24).pid);
            }
        }
        Ok(pids)
    }

    /// What nsys warns of, each text once.
    pub(super) fn diagnostics(&self) -> Result<Vec<String>, IngestError> {
        const LEVELS: &str = "ENUM_DIAGNOSTIC_SEVERITY_LEVEL";
        if self.columns("DIAGNOSTIC_EVENT")?.is_empty() || !self.has(LEVELS)? {
            return Ok(Vec::new());
        }
        let of_no_matter: String = OF_NO_MATTER
            .iter()
            .map(|words| format!("AND text NOT LIKE '%{words}%' "))
            .collect();
        let serious = format!(
            "WHERE severity IN (SELECT id FROM {LEVELS} WHERE lower(name) LIKE '%warn%' OR lower(name) LIKE '%err%') \
             {of_no_matter}GROUP BY text ORDER BY min(timestamp) LIMIT {MOST_DIAGNOSTICS}"
        );
        let mut texts = Vec::new();
        self.each("DIAGNOSTIC_EVENT", &[("text", true)], &serious, |cells| {
            texts.extend(cells.text(0)?);
            Ok(())
        })?;
        Ok(texts)
    }

    fn has(&self, table: &str) -> rusqlite::Result<bool> {
        self.connection.query_row(
            "SELECT count(*) > 0 FROM sqlite_master WHERE name = ?1 AND type IN ('table', 'view')",
            [table],
            |row| row.get(0),
        )
    }

    fn columns(&self, table: &str) -> rusqlite::Result<BTreeSet<String>> {
        let mut statement = self.connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
        statement.query_map([table], |row| row.get(0))?.collect()
    }

    fn read_version(&mut self) -> Result<(), IngestError> {
        let mut version = None;
        self.each(
            "META_DATA_EXPORT",
            &[("value", true)],
            "WHERE name = 'EXPORT_SCHEMA_VERSION'",
            |cells| {
                version = cells.text(0)?;
                Ok(())
            },
        )?;
        self.version = version.unwrap_or(self.version.clone());
        Ok(())
    }

    fn read_zero(&mut self) -> Result<(), IngestError> {
        let mut zero = None;
        self.each("TARGET_INFO_SESSION_START_TIME", &[("utcEpochNs", true)], "", |cells| {
            zero = cells.integer(0)?;
            Ok(())
        })?;
        self.zero_ns = zero.unwrap_or(0);
        Ok(())
    }

    fn read_strings(&mut self) -> Result<(), IngestError> {
        let mut strings = HashMap::new();
        self.each("StringIds", &[("id", true), ("value", true)], "", |cells| {
            if let (Some(id), Some(value)) = (cells.integer(0)?, cells.text(1)?) {
                strings.insert(id, value);
            }
            Ok(())
        })?;
        self.strings = strings;
        Ok(())
    }
}

fn is_shell(program: &str) -> bool {
    ["sh", "bash", "dash"].contains(&program.rsplit('/').next().unwrap_or_default())
}

fn refuse(path: &Path, reason: String) -> IngestError {
    let path = path.to_owned();
    IngestError::NotNsys { path, reason }
}
