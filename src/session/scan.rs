//! Reading tables: record batches of all segments of all processes, one after the other. Memory does not grow with the
//! number of rows. A file that is cut off is left out and named; a column that an older colonel did not write is null.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{RecordBatch, new_null_array};
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::statistics::Statistics;

use crate::schema::columns::Table;
use crate::schema::manifest::{Problem, ProcessId};
use crate::schema::tables;
use crate::session::gather::broken_file;
use crate::session::writer::now_ns;
use crate::session::{Session, SessionError, files};

/// Code of the problem that a file went away while the table was read: the launcher compacted meanwhile, so the table
/// is to be read again.
pub const SESSION_CHANGED: &str = "session_changed";

/// Rows a batch: large enough that the work a batch does not count, small enough for the cache.
const BATCH_ROWS: usize = 32 * 1024;

/// One row group of one file.
#[derive(Debug, Clone)]
pub struct Part {
    path: PathBuf,
    process: Option<ProcessId>,
    row_group: usize,
    /// Kept where a file has several row groups, so that a footer is parsed once; else read again when it is its turn.
    footer: Option<ArrowReaderMetadata>,
    rows: u64,
    /// Smallest and largest `start_ns`, where the file says so.
    start_ns: Option<(i64, i64)>,
}

impl Part {
    /// Rows in it.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The process that wrote it, unless its folder is named otherwise.
    pub fn process(&self) -> Option<ProcessId> {
        self.process
    }

    /// Smallest and largest `start_ns`, where the file says so.
    pub fn start_range(&self) -> Option<(i64, i64)> {
        self.start_ns
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its batches, with the wanted columns in the wanted order.
    pub(crate) fn read(&self, wanted: &SchemaRef) -> Result<PartReader, ParquetError> {
        let (file, footer) = match &self.footer {
            Some(footer) => (std::fs::File::open(&self.path)?, footer.clone()),
            None => files::open(&self.path)?,
        };
        let columns = locate(&footer, wanted, self.row_group)?;
        let mask = ProjectionMask::roots(footer.parquet_schema(), columns.iter().flatten().copied());
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer)
            .with_row_groups(vec![self.row_group])
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS);
        let reader = files::guarded(|| builder.build())?;
        Ok(PartReader {
            reader,
            columns,
            wanted: Arc::clone(wanted),
        })
    }
}

/// Where each wanted column is in the file; `None` for one that it lacks, or of which the row group has nulls only: Parquet
/// takes as long to read those as texts that are all different.
fn locate(
    footer: &ArrowReaderMetadata,
    wanted: &SchemaRef,
    row_group: usize,
) -> Result<Vec<Option<usize>>, ParquetError> {
    let schema = footer.schema();
    let group = footer.metadata().row_group(row_group);
    let locate = |field: &Arc<Field>| match schema.column_with_name(field.name()) {
        Some((index, found)) if found.data_type() == field.data_type() => {
            let nulls = group.column(index).statistics().and_then(Statistics::null_count_opt);
            let all = u64::try_from(group.num_rows()).ok();
            Ok((nulls.is_none() || nulls != all).then_some(index))
        }
        Some((_, found)) => Err(ParquetError::General(format!(
            "column `{}` is {}, not {}",
            field.name(),
            found.data_type(),
            field.data_type()
        ))),
        None => Ok(None),
    };
    wanted.fields().iter().map(locate).collect()
}

/// Batches of one part. After an error it must not be asked again.
#[derive(Debug)]
pub(crate) struct PartReader {
    reader: ParquetRecordBatchReader,
    columns: Vec<Option<usize>>,
    wanted: SchemaRef,
}

impl PartReader {
    /// From the file's order to the wanted one.
    fn arrange(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut order: Vec<_> = self.columns.iter().flatten().copied().collect();
        order.sort_unstable();
        let columns = self.columns.iter().zip(self.wanted.fields()).map(|(index, field)| {
            match index.and_then(|index| order.binary_search(&index).ok()) {
                Some(position) => Arc::clone(batch.column(position)),
                None => new_null_array(field.data_type(), batch.num_rows()),
            }
        });
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.wanted), columns.collect(), &options)
    }
}

impl Iterator for PartReader {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = files::guarded(|| Ok(self.reader.next().transpose()?));
        let arranged = next.map_err(ArrowError::from).and_then(|batch| match batch {
            Some(batch) => self.arrange(&batch).map(Some),
            None => Ok(None),
        });
        arranged.transpose()
    }
}

/// A table's parts, and the files that could not be read.
#[derive(Debug, Default, Clone)]
pub struct Parts {
    /// Process by process, in the order in which they were written.
    pub parts: Vec<Part>,
    /// One for each file left out.
    pub problems: Vec<Problem>,
}

impl Session {
    /// The parts of a table, from the footers of its files.
    pub fn parts(&self, table: &str) -> Result<Parts, SessionError> {
        let mut all = Parts::default();
        let read = SessionError::io("read", self.path().join(table));
        for folder in files::process_folders(self.path(), table).map_err(read)? {
            let parts = folder_parts(&folder).map_err(SessionError::io("read", &folder.path))?;
            all.parts.extend(parts.parts);
            all.problems.extend(parts.problems);
        }
        Ok(all)
    }

    /// Batches of a table with the columns asked for, which must be of its definition.
    pub fn scan(&self, table: &str, columns: &[&str]) -> Result<Scan, SessionError> {
        Ok(Scan::new(self.parts(table)?, wanted_schema(table, columns)))
    }
}

/// The parts of one process's folder.
pub(crate) fn folder_parts(folder: &files::ProcessFolder) -> std::io::Result<Parts> {
    let mut all = Parts::default();
    for path in files::segments(&folder.path)? {
        match files::open(&path) {
            Ok((_, footer)) => all.parts.extend(file_parts(&path, folder.process, footer)),
            Err(error) => all.problems.push(problem(&path, &error)),
        }
    }
    Ok(all)
}

fn file_parts(path: &Path, process: Option<ProcessId>, footer: ArrowReaderMetadata) -> Vec<Part> {
    let groups = footer.metadata().row_groups();
    let start_column = footer.schema().column_with_name("start_ns").map(|(index, _)| index);
    let several = groups.len() > 1;
    let parts = groups.iter().enumerate().map(|(row_group, group)| Part {
        path: path.to_owned(),
        process,
        row_group,
        footer: several.then(|| footer.clone()),
        rows: u64::try_from(group.num_rows()).unwrap_or(0),
        start_ns: start_column.and_then(|index| match group.column(index).statistics() {
            Some(Statistics::Int64(values)) => Some((*values.min_opt()?, *values.max_opt()?)),
            _ => None,
        }),
    });
    parts.collect()
}

/// Arrow schema of some columns of a table, all nullable, since an older file may lack them.
///
/// # Panics
/// On a table or column that is not in the schema: the names are written in our code, not given by users.
pub fn wanted_schema(table: &str, columns: &[&str]) -> SchemaRef {
    let table: Option<Table> = tables::all().into_iter().find(|known| known.name == table);
    let fields = columns.iter().map(|name| {
        let column = table
            .as_ref()
            .and_then(|table| table.columns.iter().find(|column| column.name == *name));
        let Some(column) = column else {
            panic!("no column `{name}` in the table")
        };
        Field::new(column.name, column.data_type.clone(), true)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Streams a table.
#[derive(Debug)]
pub struct Scan {
    wanted: SchemaRef,
    parts: VecDeque<Part>,
    current: Option<(Part, PartReader)>,
    problems: Vec<Problem>,
}

impl Scan {
    /// Streams the given parts.
    pub fn new(parts: Parts, wanted: SchemaRef) -> Self {
        Self {
            wanted,
            parts: parts.parts.into(),
            current: None,
            problems: parts.problems,
        }
    }

    /// Files left out so far, wholly or from some row on. Complete once the iterator has ended.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Ends the scan and gives what could not be read.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}

impl Iterator for Scan {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        loop {
            if let Some((part, reader)) = &mut self.current {
                match reader.next() {
                    Some(Ok(batch)) => return Some(batch),
                    Some(Err(error)) => self.problems.push(problem(&part.path, &error)),
                    None => {}
                }
                self.current = None;
            }
            let part = self.parts.pop_front()?;
            match part.read(&self.wanted) {
                Ok(reader) => self.current = Some((part, reader)),
                Err(error) => self.problems.push(problem(&part.path, &error)),
            }
        }
    }
}

pub(crate) fn problem(path: &Path, error: &dyn std::fmt::Display) -> Problem {
    let (code, message) = if path.exists() {
        ("table_file_broken", broken_file(path, error))
    } else {
        (
            SESSION_CHANGED,
            format!("`{}` went away while it was read", path.display()),
        )
    };
    Problem {
        code: code.to_owned(),
        message,
        time_ns: now_ns(),
    }
}
