//! Reads what `nsys export --type sqlite` and `--type parquetdir` write: the schema changes from version to version, tables that would be
//! empty are not there, and times count from the start of nsys's session.

mod database;
mod devices;
mod folder;
mod gpu;
mod host;
mod nvtx;

use std::collections::BTreeMap;
use std::path::Path;

use database::{Cells, Database};

use crate::ingest::{Ingest, IngestError};
use crate::schema::manifest::ProcessId;

/// Tables whose rows make a process one of the session, and the column that says whose they are.
const OWNED: [(&str, &str); 6] = [
    (gpu::KERNELS, "globalPid"),
    (gpu::MEMCPYS, "globalPid"),
    (gpu::MEMSETS, "globalPid"),
    (gpu::SYNCHRONIZATIONS, "globalPid"),
    (host::CALLS, "globalTid"),
    (nvtx::EVENTS, "globalTid"),
];

/// What was left out of a session, a reason each.
#[derive(Debug, Default)]
struct Lost(BTreeMap<(u32, &'static str), u64>);

impl Lost {
    fn add(&mut self, process: ProcessId, table: &'static str) {
        *self.0.entry((process.pid, table)).or_default() += 1;
    }
}

impl Ingest {
    /// Adds a report of nsys that was exported to SQLite.
    pub fn nsys_sqlite(&mut self, path: &Path) -> Result<(), IngestError> {
        let read = Database::open(path).and_then(|database| self.read_nsys(&database));
        read.map_err(|error| error.in_file(path))
    }

    /// Adds a report of nsys that was exported as a folder of Parquet files.
    pub fn nsys_parquetdir(&mut self, path: &Path) -> Result<(), IngestError> {
        let read = Database::open_folder(path).and_then(|database| self.read_nsys(&database));
        read.map_err(|error| error.in_file(path))
    }

    fn read_nsys(&mut self, database: &Database) -> Result<(), IngestError> {
        self.window += 1;
        let span_ns = database.span_ns()?;
        let names = database.process_names()?;
        let pids = database.pids_of(&OWNED)?;
        for &pid in &pids {
            self.take_part(pid, names.get(&pid).map_or("", String::as_str), span_ns);
        }
        let mut lost = Lost::default();
        let paths = nvtx::ingest(database, &mut self.recorder, self.window, &mut lost)?;
        gpu::ingest(database, &mut self.recorder, self.window, &paths, &mut lost)?;
        host::ingest(database, &mut self.recorder, self.window, &mut lost)?;
        devices::ingest(database, &mut self.recorder, &pids, &mut self.devices)?;
        for ((pid, table), count) in lost.0 {
            self.lose(pid, table, "invalid_timestamp", count, span_ns.0);
        }
        self.warn(database, span_ns.1)
    }

    /// What the reader must know to make sense of the tables.
    fn warn(&mut self, database: &Database, now_ns: i64) -> Result<(), IngestError> {
        let whole = database.count(gpu::WHOLE_GRAPHS)?;
        if whole > 0 {
            let message = format!(
                "{whole} launches of CUDA graphs were recorded whole, and their kernels are not in the tables; \
                 `--nsys-cuda-graph-trace node` records each kernel"
            );
            self.problem("graphs_whole", message, now_ns);
        }
        for text in database.diagnostics()? {
            self.problem("nsys_warning", format!("nsys: {text}"), now_ns);
        }
        Ok(())
    }
}

/// Whether a record has times: a start before 1970 is none, nor is an end before the start.
fn are_times(start_ns: i64, end_ns: i64) -> bool {
    start_ns > 0 && end_ns >= start_ns
}

/// A process by nsys's number for it or for one of its threads.
fn process_of(global: i64) -> ProcessId {
    super::id_of(u32::try_from((global >> 24) & 0xff_ffff).unwrap_or_default())
}

fn thread_of(global: i64) -> u32 {
    u32::try_from(global & 0xff_ffff).unwrap_or_default()
}

/// An id or a size that our tables hold in 32 bits without null: 0 where the report has none.
fn small(cells: &Cells<'_>, column: usize) -> Result<u32, rusqlite::Error> {
    Ok(maybe_small(cells, column)?.unwrap_or(0))
}

fn maybe_small(cells: &Cells<'_>, column: usize) -> Result<Option<u32>, rusqlite::Error> {
    Ok(cells.integer(column)?.and_then(|value| u32::try_from(value).ok()))
}
