//! Compaction: each process's segments of a table become one file, sorted by start. A reader sees the old or the new
//! folder whole, since the two are exchanged in one step, and never a row twice or not at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::schema::columns::Table;
use crate::schema::manifest::{Problem, Session as Manifest, SessionState};
use crate::schema::tables;
use crate::session::annotate::Annotator;
use crate::session::devices::Devices;
use crate::session::files::{self, ProcessFolder};
use crate::session::scan::{Parts, folder_parts};
use crate::session::sorted::SortedScan;
use crate::session::writer::now_ns;
use crate::session::{Phase, ProgressSink, Session, SessionError};

/// New folders are made here, out of the way of `kernels/**/*.parquet`, and on the same file system.
const WORK_DIR: &str = ".compacting";

/// Rows of a row group: what a reader takes at once, and what two threads share.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// Distinct texts of a row group stay a dictionary up to this size. Parquet's own limit of 1 MiB is soon reached by
/// kernel names, and then each row has its name in full.
const DICTIONARY_BYTES: usize = 16 * 1024 * 1024;

/// Columns that grow with each row: deltas are small where the values are all distinct.
const DELTA_COLUMNS: [&str; 3] = ["start_ns", "end_ns", "correlation_id"];

/// Compacts what can be; for the rest the manifest says why not.
pub(crate) fn compact(path: &Path, manifest: &mut Manifest, progress: ProgressSink<'_>) -> Result<(), SessionError> {
    let session = Session::load(path)?;
    let devices = session.devices()?;
    let running = session.live_processes();
    let total: u64 = manifest.rows.values().sum();
    let mut done = 0;
    let mut failures = Vec::new();
    for table in tables::all() {
        let read = SessionError::io("read", path.join(table.name));
        for folder in files::process_folders(path, table.name).map_err(read)? {
            if folder.process.is_some_and(|process| running.contains(&process)) {
                failures.push(format!("`{}`: its process still runs", folder.path.display()));
                continue;
            }
            let mut compaction = Compaction {
                session: path,
                table: &table,
                devices: &devices,
                written: 0,
            };
            let result = compaction.folder(&folder, &mut |rows| progress(Phase::Compacting, done + rows, total));
            done += compaction.written;
            if let Err(error) = result {
                failures.push(error.to_string());
            }
        }
    }
    let _ = fs::remove_dir_all(path.join(WORK_DIR));
    if failures.is_empty() {
        manifest.state = SessionState::Compacted;
        return Ok(());
    }
    let message = format!(
        "left as the guests wrote it, which reads more slowly: {}",
        failures.join("; ")
    );
    manifest.problems.push(Problem {
        code: "not_compacted".to_owned(),
        message,
        time_ns: now_ns(),
    });
    Ok(())
}

struct Compaction<'a> {
    session: &'a Path,
    table: &'a Table,
    devices: &'a Devices,
    written: u64,
}

impl Compaction<'_> {
    fn folder(&mut self, folder: &ProcessFolder, progress: &mut dyn FnMut(u64)) -> Result<(), SessionError> {
        let parts = folder_parts(folder).map_err(SessionError::io("read", &folder.path))?;
        if let Some(problem) = parts.problems.first() {
            return Err(SessionError::Kept {
                path: folder.path.clone(),
                reason: problem.message.clone(),
            });
        }
        if parts.parts.is_empty() {
            return Ok(());
        }
        self.refuse_unknown_columns(folder, &parts)?;
        let expected = parts.parts.iter().map(|part| part.rows()).sum();
        let new = self.make_work_folder(folder)?;
        let file = new.join("000001.parquet");
        let result = self
            .write(&file, parts, progress)
            .and_then(|()| check_rows(&file, &folder.path, expected));
        match result.and_then(|()| exchange(&new, &folder.path)) {
            // After the exchange this is the old folder.
            Ok(()) => fs::remove_dir_all(&new).map_err(SessionError::io("remove", new)),
            Err(error) => {
                let _ = fs::remove_dir_all(&new);
                Err(error)
            }
        }
    }

    /// A guest of another version may write columns that this build does not know: they are not ours to drop.
    fn refuse_unknown_columns(&self, folder: &ProcessFolder, parts: &Parts) -> Result<(), SessionError> {
        let mut last = None;
        for part in &parts.parts {
            if last.replace(part.path()) == Some(part.path()) {
                continue;
            }
            let (_, footer) = files::open(part.path()).map_err(SessionError::parquet(part.path()))?;
            let known = |name: &String| self.table.columns.iter().any(|column| column.name == name);
            if let Some(unknown) = footer
                .schema()
                .fields()
                .iter()
                .map(|field| field.name())
                .find(|name| !known(name))
            {
                let reason = format!("this colonel does not know its column `{unknown}`");
                return Err(SessionError::Kept {
                    path: folder.path.clone(),
                    reason,
                });
            }
        }
        Ok(())
    }

    fn make_work_folder(&self, folder: &ProcessFolder) -> Result<PathBuf, SessionError> {
        let name = folder.path.file_name().unwrap_or_default();
        let new = self.session.join(WORK_DIR).join(self.table.name).join(name);
        // A rest of a compaction that was killed: the table itself was not touched by it.
        if new.exists() {
            fs::remove_dir_all(&new).map_err(SessionError::io("remove", &new))?;
        }
        fs::create_dir_all(&new).map_err(SessionError::io("create", &new))?;
        Ok(new)
    }

    fn write(&mut self, path: &Path, parts: Parts, progress: &mut dyn FnMut(u64)) -> Result<(), SessionError> {
        let failed = |error: ParquetError| SessionError::parquet(path)(error);
        let schema = self.table.arrow_schema();
        let file = File::create(path).map_err(SessionError::io("create", path))?;
        let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties(&schema))).map_err(failed)?;
        let mut annotator = (self.table.name == "kernels").then(|| Annotator::new(self.devices));
        let mut rows = SortedScan::new(parts, schema);
        for batch in &mut rows {
            let batch: RecordBatch = batch.map_err(|error| failed(error.into()))?;
            let batch = match &mut annotator {
                Some(annotator) => annotator.annotate(&batch).map_err(|error| failed(error.into()))?,
                None => batch,
            };
            writer.write(&batch).map_err(failed)?;
            self.written += batch.num_rows() as u64;
            progress(self.written);
        }
        if let Some(problem) = rows.problems().first() {
            return Err(SessionError::Kept {
                path: path.to_owned(),
                reason: problem.message.clone(),
            });
        }
        let file = writer.into_inner().map_err(failed)?;
        file.sync_all().map_err(SessionError::io("write", path))
    }
}

fn properties(schema: &SchemaRef) -> WriterProperties {
    let level = ZstdLevel::try_new(3).unwrap_or_default();
    let mut builder = WriterProperties::builder()
        .set_created_by(format!("colonel {}", crate::VERSION))
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES);
    for (index, field) in schema.fields().iter().enumerate() {
        let column = ColumnPath::from(field.name().as_str());
        if DELTA_COLUMNS.contains(&field.name().as_str()) {
            builder = builder
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
        } else if matches!(field.data_type(), DataType::Dictionary(..)) {
            // Smallest and largest name help no one find a kernel, and can be kilobytes long.
            builder = builder.set_column_statistics_enabled(column, EnabledStatistics::None);
        }
        if field.name() == "start_ns" {
            let order = SortingColumn {
                column_idx: i32::try_from(index).unwrap_or(0),
                descending: false,
                nulls_first: false,
            };
            builder = builder.set_sorting_columns(Some(vec![order]));
        }
    }
    builder.build()
}

fn check_rows(file: &Path, table: &Path, expected: u64) -> Result<(), SessionError> {
    let got = files::row_count(file).map_err(SessionError::parquet(file))?;
    if got != expected {
        return Err(SessionError::RowsDiffer {
            path: table.to_owned(),
            expected,
            got,
        });
    }
    Ok(())
}

/// Puts `new` in the place of `old` and `old` in the place of `new`, in one step, once `new` is on disk.
fn exchange(new: &Path, old: &Path) -> Result<(), SessionError> {
    File::open(new)
        .and_then(|folder| folder.sync_all())
        .map_err(SessionError::io("write", new))?;
    renameat2(AT_FDCWD, new, AT_FDCWD, old, RenameFlags::RENAME_EXCHANGE)
        .map_err(|error| SessionError::io("exchange", old)(error.into()))
}
