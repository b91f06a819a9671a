//! nsys's `parquetdir`: a folder with a Parquet file for each table of the SQLite export, with the same columns. It is put
//! into a temporary SQLite of its own, so that all else reads one kind of export.

use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::{gpu, host, nvtx};

/// The tables that are read. Samples of hardware, of which a report may have many, are none.
const TABLES: [&str; 17] = [
    gpu::KERNELS,
    gpu::MEMCPYS,
    gpu::MEMSETS,
    gpu::SYNCHRONIZATIONS,
    gpu::WHOLE_GRAPHS,
    host::CALLS,
    nvtx::EVENTS,
    "TARGET_INFO_GPU",
    "TARGET_INFO_CUDA_DEVICE",
    "StringIds",
    "META_DATA_EXPORT",
    "TARGET_INFO_SESSION_START_TIME",
    "ANALYSIS_DETAILS",
    "PROCESSES",
    "ThreadNames",
    "DIAGNOSTIC_EVENT",
    "ENUM_DIAGNOSTIC_SEVERITY_LEVEL",
];

/// A database with the folder's tables, or what is wrong with the folder.
pub(super) fn connect(folder: &Path) -> Result<Connection, String> {
    // Without a name: a file of SQLite's own, gone when it is closed.
    let mut connection = Connection::open("").map_err(|error| error.to_string())?;
    let mut tables = 0;
    for table in TABLES {
        let name = format!("{table}.parquet");
        let path = folder.join(&name);
        if path.is_file() {
            fill(&mut connection, table, &path).map_err(|error| format!("`{name}` can't be read: {error:#}"))?;
            tables += 1;
        }
    }
    if tables == 0 {
        return Err("the folder has none of its tables, such as `StringIds.parquet`".to_owned());
    }
    Ok(connection)
}

fn fill(connection: &mut Connection, table: &str, path: &Path) -> anyhow::Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    connection.execute(&create(table, builder.schema()), [])?;
    let places = vec!["?"; builder.schema().fields().len()].join(", ");
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare(&format!("INSERT INTO \"{table}\" VALUES ({places})"))?;
        for batch in builder.build()? {
            let columns = plain(&batch?)?;
            let rows = columns.first().map_or(0, Array::len);
            for row in 0..rows {
                insert.execute(params_from_iter(columns.iter().map(|column| value(column, row))))?;
            }
        }
    }
    Ok(transaction.commit()?)
}

fn create(table: &str, schema: &Schema) -> String {
    let columns: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| format!("\"{}\"", field.name().replace('"', "\"\"")))
        .collect();
    format!("CREATE TABLE \"{table}\" ({})", columns.join(", "))
}

/// The columns, without dictionaries.
fn plain(batch: &RecordBatch) -> anyhow::Result<Vec<ArrayRef>> {
    let plain = |column: &ArrayRef| match column.as_any_dictionary_opt() {
        Some(coded) => arrow_select::take::take(coded.values(), coded.keys(), None),
        None => Ok(column.clone()),
    };
    Ok(batch.columns().iter().map(plain).collect::<Result<_, _>>()?)
}

/// A cell as SQLite has it. What it has no type for is none of what we read.
fn value(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    macro_rules! number {
        ($($kind:ident => $type:ty),+) => {
            match column.data_type() {
                $(DataType::$kind => Some(i64::from(column.as_primitive::<$type>().value(row))),)+
                // As SQLite's export does, too.
                DataType::UInt64 => Some(column.as_primitive::<UInt64Type>().value(row).cast_signed()),
                DataType::Boolean => Some(i64::from(column.as_boolean().value(row))),
                _ => None,
            }
        };
    }
    let number = number!(
        Int8 => Int8Type, Int16 => Int16Type, Int32 => Int32Type, Int64 => Int64Type,
        UInt8 => UInt8Type, UInt16 => UInt16Type, UInt32 => UInt32Type
    );
    match (number, column.data_type()) {
        (Some(number), _) => Value::Integer(number),
        (_, DataType::Float32) => Value::Real(column.as_primitive::<Float32Type>().value(row).into()),
        (_, DataType::Float64) => Value::Real(column.as_primitive::<Float64Type>().value(row)),
        (_, DataType::Utf8) => Value::Text(column.as_string::<i32>().value(row).to_owned()),
        (_, DataType::LargeUtf8) => Value::Text(column.as_string::<i64>().value(row).to_owned()),
        (_, DataType::Utf8View) => Value::Text(column.as_string_view().value(row).to_owned()),
        _ => Value::Null,
    }
}
