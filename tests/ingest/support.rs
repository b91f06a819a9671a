//! A session that is filled from reports, and its tables as text.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use colonel::ingest::{Ingest, IngestError};
use colonel::session::{NewSession, Session, SessionWriter, SessionsDir};

pub(crate) struct Fixture {
    pub(crate) folder: tempfile::TempDir,
    writer: SessionWriter,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sessions = SessionsDir::resolve(Some(folder.path())).unwrap();
        let writer = SessionWriter::create(&sessions, NewSession::default()).unwrap();
        Self { folder, writer }
    }

    /// Ingests, seals and compacts, as an import does.
    pub(crate) fn fill(
        mut self,
        gate: &str,
        read: impl FnOnce(&mut Ingest) -> Result<(), IngestError>,
    ) -> Result<(Self, Session), IngestError> {
        let mut ingest = Ingest::new(self.writer.path(), gate);
        read(&mut ingest)?;
        let problems = ingest.finish()?;
        self.writer.manifest_mut().problems.extend(problems);
        self.writer.seal(None, &mut |_, _, _| {})?;
        self.writer.compact(&mut |_, _, _| {})?;
        let session = Session::load(self.writer.path())?;
        Ok((self, session))
    }
}

/// Runs a stand-in of tests/nsight.
pub(crate) fn stand_in(name: &str, fault: &str, words: &[&OsStr]) -> Output {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nsight").join(name);
    let output = Command::new("python3")
        .arg(program)
        .args(words)
        .env("FAKE_NSYS", fault)
        .env("FAKE_NCU", fault)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

/// What the stand-in of nsys exports.
pub(crate) fn nsys_database(folder: &Path, fault: &str) -> PathBuf {
    let path = folder.join("report.sqlite");
    let output = format!("--output={}", path.display());
    stand_in("nsys.py", fault, &["export", "--type=sqlite", &output].map(OsStr::new));
    path
}

/// A table's columns, a line a row.
pub(crate) fn text(session: &Session, table: &str, columns: &[&str]) -> String {
    let mut text = String::new();
    for batch in session.scan(table, columns).unwrap() {
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = batch.columns().iter().map(|column| cell(column, row)).collect();
            text += &format!("{}\n", cells.join(" "));
        }
    }
    text
}

fn cell(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "-".to_owned();
    }
    match column.data_type() {
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).to_string(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).to_string(),
        DataType::Float64 => format!("{:.3}", column.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Dictionary(..) => {
            let column = column.as_dictionary::<Int32Type>();
            let key = usize::try_from(column.keys().value(row)).unwrap();
            column.values().as_string::<i32>().value(key).to_owned()
        }
        other => panic!("a column of type {other}"),
    }
}
