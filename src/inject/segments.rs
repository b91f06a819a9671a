//! Segments: the files of a table, each complete in itself. A segment is written under a dot name and renamed, so
//! that a killed process leaves only whole ones.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter, add_encoded_arrow_schema_to_metadata};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

use crate::inject::descriptors;
use crate::inject::pages::ZSTD_LEVEL;

/// Columns that grow from row to row: their differences are small, a dictionary would be as long as the column.
const DELTA_COLUMNS: [&str; 4] = ["start_ns", "end_ns", "correlation_id", "graph_node_id"];

/// The segments of one table of one process.
#[derive(Debug)]
pub(crate) struct Segments {
    folder: PathBuf,
    schema: SchemaRef,
    next: u32,
}

impl Segments {
    /// Segments under `session/table/process/`; the folder is made with the first of them.
    pub(crate) fn new(session: &Path, table: &str, process: &str, schema: SchemaRef) -> Segments {
        Segments {
            folder: session.join(table).join(process),
            schema,
            next: 1,
        }
    }

    /// Schema of the table.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Seals Arrow columns as the next segment.
    pub(crate) fn seal_columns(&mut self, columns: Vec<ArrayRef>) -> io::Result<()> {
        let schema = self.schema.clone();
        self.seal(|file, properties| {
            let batch = RecordBatch::try_new(schema.clone(), columns)?;
            let mut writer = ArrowWriter::try_new(file, schema, Some(properties))?;
            writer.write(&batch)?;
            writer.close()?;
            Ok(())
        })
    }

    /// Seals what `write` puts into a Parquet file of the table's schema as the next segment.
    pub(crate) fn seal_with(
        &mut self,
        write: impl FnOnce(&mut SerializedFileWriter<&mut BufWriter<File>>) -> Result<(), ParquetError>,
    ) -> io::Result<()> {
        let schema = self.schema.clone();
        self.seal(|file, mut properties| {
            let parquet = ArrowSchemaConverter::new().convert(&schema)?;
            add_encoded_arrow_schema_to_metadata(&schema, &mut properties);
            let mut writer = SerializedFileWriter::new(file, parquet.root_schema_ptr(), Arc::new(properties))?;
            write(&mut writer)?;
            writer.close()?;
            Ok(())
        })
    }

    fn seal(
        &mut self,
        write: impl FnOnce(&mut BufWriter<File>, WriterProperties) -> Result<(), ParquetError>,
    ) -> io::Result<()> {
        // A session folder that was removed is not made anew: only the table's own two levels are.
        for folder in [self.folder.parent(), Some(self.folder.as_path())]
            .into_iter()
            .flatten()
        {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        // A process that becomes another by exec keeps its pid and start time: what it had sealed stays.
        while self.folder.join(format!("{:06}.parquet", self.next)).exists() {
            self.next += 1;
        }
        let temporary = self.folder.join(format!(".{:06}.parquet", self.next));
        let result = descriptors::create(&temporary).and_then(|file| {
            let mut file = BufWriter::with_capacity(256 << 10, file);
            write(&mut file, properties(&self.schema)).map_err(into_io)?;
            file.flush()
        });
        let sealed =
            result.and_then(|()| fs::rename(&temporary, self.folder.join(format!("{:06}.parquet", self.next))));
        match sealed {
            Ok(()) => self.next += 1,
            Err(_) => drop(fs::remove_file(&temporary)),
        }
        sealed
    }
}

fn into_io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(source) => io::Error::other(source),
        },
        other => io::Error::other(other),
    }
}

fn properties(schema: &SchemaRef) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default()))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(format!("colonel {}", crate::VERSION))
        .set_max_row_group_row_count(None)
        .set_offset_index_disabled(true);
    for name in DELTA_COLUMNS.into_iter().filter(|name| schema.index_of(name).is_ok()) {
        builder = builder
            .set_column_dictionary_enabled(ColumnPath::from(name), false)
            .set_column_encoding(ColumnPath::from(name), Encoding::DELTA_BINARY_PACKED);
    }
    builder.build()
}
