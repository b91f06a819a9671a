//! Tables and process files of a session that something else than our guest recorded, laid out as a guest does it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use parquet::errors::ParquetError;

use crate::schema::columns::TableBuilder;
use crate::schema::manifest::{PROCESSES_DIR, Process, ProcessId};
use crate::session::SessionError;
use crate::session::files::process_name;
use crate::session::table_writer::TableWriter;
use crate::session::writer::write_json;

/// Rows of a process that are held before they are written.
const SEGMENT_ROWS: usize = 256 * 1024;

/// Writes into the folder of a session that is being made.
#[derive(Debug)]
pub struct Recorder {
    session: PathBuf,
    segments: BTreeMap<(&'static str, ProcessId), u32>,
    rows: BTreeMap<(&'static str, ProcessId), u64>,
}

impl Recorder {
    /// For the session in this folder.
    pub fn new(session: &Path) -> Self {
        Self {
            session: session.to_owned(),
            segments: BTreeMap::new(),
            rows: BTreeMap::new(),
        }
    }

    /// Rows written of a process, a table.
    pub fn rows_of(&self, process: ProcessId) -> BTreeMap<String, u64> {
        let mine = self.rows.iter().filter(|((_, of), _)| *of == process);
        mine.map(|((table, _), rows)| ((*table).to_owned(), *rows)).collect()
    }

    /// Writes a process's file.
    pub fn write_process(&self, process: &Process) -> Result<(), SessionError> {
        let id = ProcessId {
            pid: process.pid,
            start_ticks: process.start_ticks,
        };
        write_json(
            &self.session.join(PROCESSES_DIR),
            &format!("{}.json", process_name(id)),
            process,
        )
    }

    /// Writes the collected rows as the next segment of their table.
    fn seal<B: TableBuilder>(&mut self, process: ProcessId, builder: &mut B) -> Result<(), SessionError> {
        if builder.is_empty() {
            return Ok(());
        }
        let table = B::table();
        let rows = builder.len() as u64;
        let folder = self.session.join(table.name).join(process_name(process));
        fs::create_dir_all(&folder).map_err(SessionError::io("create", &folder))?;
        let number = self.segments.entry((table.name, process)).or_default();
        *number += 1;
        let path = folder.join(format!("{number:06}.parquet"));
        let unfinished = folder.join(format!(".{number:06}.parquet"));
        let schema = table.arrow_schema();
        let file = File::create(&unfinished).map_err(SessionError::io("create", &unfinished))?;
        let write = || {
            let batch = RecordBatch::try_new(schema.clone(), builder.finish())?;
            let mut writer = TableWriter::new(file, schema)?;
            writer.write(&batch)?;
            writer.finish()
        };
        write().map_err(SessionError::parquet::<ParquetError>(&path))?;
        fs::rename(&unfinished, &path).map_err(SessionError::io("write", &path))?;
        *self.rows.entry((table.name, process)).or_default() += rows;
        Ok(())
    }
}

/// Rows of one table, a process at a time.
#[derive(Debug)]
pub struct Rows<B> {
    builders: BTreeMap<ProcessId, B>,
}

impl<B: TableBuilder> Default for Rows<B> {
    fn default() -> Self {
        Self {
            builders: BTreeMap::new(),
        }
    }
}

impl<B: TableBuilder> Rows<B> {
    /// Adds a row, and writes a segment where enough have come together.
    pub fn push(&mut self, recorder: &mut Recorder, process: ProcessId, row: B::Row<'_>) -> Result<(), SessionError> {
        let builder = self.builders.entry(process).or_default();
        builder.push(row);
        if builder.len() >= SEGMENT_ROWS {
            recorder.seal(process, builder)?;
        }
        Ok(())
    }

    /// Writes what is left.
    pub fn finish(self, recorder: &mut Recorder) -> Result<(), SessionError> {
        for (process, mut builder) in self.builders {
            recorder.seal(process, &mut builder)?;
        }
        Ok(())
    }
}
