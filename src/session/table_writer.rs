//! Writes one table file, the columns of a row group spread over the cores: encoding is what compaction waits for.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Mutex};
use std::thread;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{FieldRef, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

/// Rows of a row group: what a reader takes at once, and what its threads share.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// Distinct texts of a row group stay a dictionary up to this size. Parquet's own limit of 1 MiB is soon reached by
/// kernel names, and then each row has its name in full.
const DICTIONARY_BYTES: usize = 16 * 1024 * 1024;

/// Columns that grow with each row: deltas are small where the values are all distinct.
const DELTA_COLUMNS: [&str; 3] = ["start_ns", "end_ns", "correlation_id"];

/// More threads than this wait for the two or three dearest columns.
const MOST_THREADS: usize = 4;

/// A column of a row group, waiting for a thread.
struct Job {
    place: usize,
    field: FieldRef,
    arrays: Vec<ArrayRef>,
    writer: ArrowColumnWriter,
}

/// Writes a file.
pub(crate) struct TableWriter {
    file: SerializedFileWriter<File>,
    columns: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    row_groups: usize,
}

impl TableWriter {
    pub(crate) fn new(file: File, schema: SchemaRef) -> Result<Self> {
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties(&schema)))?;
        let (file, columns) = writer.into_serialized_writer()?;
        Ok(Self {
            file,
            columns,
            schema,
            pending: Vec::new(),
            pending_rows: 0,
            row_groups: 0,
        })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut from = 0;
        while from < batch.num_rows() {
            let rows = (batch.num_rows() - from).min(ROW_GROUP_ROWS - self.pending_rows);
            self.pending.push(batch.slice(from, rows));
            self.pending_rows += rows;
            from += rows;
            if self.pending_rows == ROW_GROUP_ROWS {
                self.end_row_group()?;
            }
        }
        Ok(())
    }

    /// Writes the footer and gives the file back, not yet synced.
    pub(crate) fn finish(mut self) -> Result<File> {
        if self.pending_rows > 0 {
            self.end_row_group()?;
        }
        self.file.into_inner()
    }

    fn end_row_group(&mut self) -> Result<()> {
        let writers = self.columns.create_column_writers(self.row_groups)?;
        let jobs = writers
            .into_iter()
            .zip(self.schema.fields())
            .enumerate()
            .map(|(place, (writer, field))| Job {
                place,
                field: Arc::clone(field),
                arrays: self
                    .pending
                    .iter()
                    .map(|batch| Arc::clone(batch.column(place)))
                    .collect(),
                writer,
            });
        let chunks = encode(jobs.collect())?;
        let mut row_group = self.file.next_row_group()?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut row_group)?;
        }
        row_group.close()?;
        self.pending.clear();
        self.pending_rows = 0;
        self.row_groups += 1;
        Ok(())
    }
}

/// Encodes the columns on several threads; the chunks come in the order of the columns.
fn encode(jobs: VecDeque<Job>) -> Result<Vec<ArrowColumnChunk>> {
    let threads = thread::available_parallelism()
        .map_or(1, |count| count.get())
        .min(MOST_THREADS)
        .min(jobs.len());
    let queue = Mutex::new(jobs);
    let work = || {
        let mut done = Vec::new();
        while let Some(job) = queue.lock().ok().and_then(|mut queue| queue.pop_front()) {
            done.push((job.place, job.encode()?));
        }
        Ok::<_, ParquetError>(done)
    };
    let results = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut results = vec![work()];
        for other in others {
            results.push(
                other
                    .join()
                    .unwrap_or_else(|_| Err(ParquetError::General("a writer thread failed".into()))),
            );
        }
        results
    });
    let mut chunks = results
        .into_iter()
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect::<Vec<_>>();
    chunks.sort_by_key(|&(place, _)| place);
    Ok(chunks.into_iter().map(|(_, chunk)| chunk).collect())
}

impl Job {
    fn encode(mut self) -> Result<ArrowColumnChunk> {
        for array in &self.arrays {
            for leaf in compute_leaves(&self.field, array)? {
                self.writer.write(&leaf)?;
            }
        }
        self.writer.close()
    }
}

fn properties(schema: &SchemaRef) -> WriterProperties {
    let level = ZstdLevel::try_new(3).unwrap_or_default();
    let mut builder = WriterProperties::builder()
        .set_created_by(format!("colonel {}", crate::VERSION))
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES);
    for (index, field) in schema.fields().iter().enumerate() {
        let column = ColumnPath::from(field.name().as_str());
        if DELTA_COLUMNS.contains(&field.name().as_str()) {
            builder = builder
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
        }
        if field.name() == "start_ns" {
            let column_idx = i32::try_from(index).unwrap_or(0);
            let order = SortingColumn {
                column_idx,
                descending: false,
                nulls_first: false,
            };
            builder = builder.set_sorting_columns(Some(vec![order]));
        }
    }
    builder.build()
}
