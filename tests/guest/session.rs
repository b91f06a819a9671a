//! A session as a stranger reads it: JSON and Parquet, no reader of colonel's between.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use colonel::schema::manifest::{Loss, Problem, Process, Session as Manifest};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// A session's folder.
#[derive(Debug)]
pub struct Session {
    path: PathBuf,
}

impl Session {
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn id(&self) -> String {
        self.path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    pub fn manifest(&self) -> Manifest {
        serde_json::from_slice(&fs::read(self.path.join("session.json")).unwrap()).unwrap()
    }

    /// What the guests wrote down, by pid.
    pub fn processes(&self) -> Vec<Process> {
        let Ok(entries) = fs::read_dir(self.path.join("processes")) else {
            return Vec::new();
        };
        let files = entries.map(|entry| entry.unwrap().path());
        let mut processes: Vec<Process> = files
            .filter(|path| path.extension().is_some_and(|extension| extension == "json") && !is_hidden(path))
            .map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
            .collect();
        processes.sort_by_key(|process| process.pid);
        processes
    }

    /// The only process.
    #[track_caller]
    pub fn process(&self) -> Process {
        let mut processes = self.processes();
        assert_eq!(processes.len(), 1, "{processes:?}");
        processes.remove(0)
    }

    /// All rows of a table; none where it has no files.
    pub fn table(&self, name: &str) -> Rows {
        let mut rows = Rows::default();
        for path in parquet_files(&self.path.join(name)) {
            let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
            rows.files += 1;
            rows.batches.extend(reader.build().unwrap().map(Result::unwrap));
        }
        rows
    }

    pub fn count(&self, table: &str) -> u64 {
        self.table(table).len()
    }

    pub fn problems(&self) -> Vec<Problem> {
        let of_processes = self.processes().into_iter().flat_map(|process| process.problems);
        of_processes.chain(self.manifest().problems).collect()
    }

    /// The problem with this code.
    #[track_caller]
    pub fn problem(&self, code: &str) -> String {
        let problems = self.problems();
        let found = problems.iter().find(|problem| problem.code == code);
        found
            .unwrap_or_else(|| panic!("no `{code}` in {problems:?}"))
            .message
            .clone()
    }

    /// Losses of the sealed session, by table and reason.
    pub fn losses(&self) -> BTreeMap<(String, String), Option<u64>> {
        let losses: Vec<Loss> = self.manifest().losses;
        losses
            .into_iter()
            .map(|loss| ((loss.kind, loss.reason), loss.count))
            .collect()
    }

    /// How many were lost for a reason.
    pub fn lost(&self, kind: &str, reason: &str) -> u64 {
        let lost = self.losses().get(&(kind.to_owned(), reason.to_owned())).copied();
        lost.map_or(0, |count| count.expect("counted"))
    }

    #[track_caller]
    pub fn assert_nothing_lost(&self) {
        assert_eq!(self.losses(), BTreeMap::new());
        assert_eq!(self.problems(), []);
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().unwrap().as_encoded_bytes().starts_with(b".")
}

fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for path in entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| !is_hidden(path))
    {
        if path.is_dir() {
            files.extend(parquet_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Rows of one table.
#[derive(Debug, Default)]
pub struct Rows {
    batches: Vec<RecordBatch>,
    pub files: usize,
}

impl Rows {
    pub fn len(&self) -> u64 {
        self.batches.iter().map(|batch| batch.num_rows() as u64).sum()
    }

    fn column<T>(&self, name: &str, read: impl Fn(&ArrayRef, usize) -> T) -> Vec<Option<T>> {
        let mut values = Vec::new();
        for batch in &self.batches {
            let column = batch
                .column_by_name(name)
                .unwrap_or_else(|| panic!("no column `{name}`"));
            let rows = 0..column.len();
            values.extend(rows.map(|row| column.is_valid(row).then(|| read(column, row))));
        }
        values
    }

    /// A column of whole numbers.
    pub fn numbers(&self, name: &str) -> Vec<Option<i128>> {
        self.column(name, |column, row| match column.data_type() {
            DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
            DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
            DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
            DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
            other => panic!("`{name}` is {other}"),
        })
    }

    /// A column of whole numbers without nulls.
    #[track_caller]
    pub fn all(&self, name: &str) -> Vec<i128> {
        let numbers = self.numbers(name);
        numbers
            .into_iter()
            .map(|number| number.unwrap_or_else(|| panic!("a null in `{name}`")))
            .collect()
    }

    /// A column of fractions.
    pub fn floats(&self, name: &str) -> Vec<Option<f64>> {
        self.column(name, |column, row| column.as_primitive::<Float64Type>().value(row))
    }

    /// A column of text without nulls.
    pub fn texts(&self, name: &str) -> Vec<String> {
        self.maybe_texts(name).into_iter().map(Option::unwrap).collect()
    }

    /// A column of text.
    pub fn maybe_texts(&self, name: &str) -> Vec<Option<String>> {
        self.column(name, |column, row| {
            let column = column.as_dictionary::<Int32Type>();
            let key = column.keys().value(row);
            column
                .values()
                .as_string::<i32>()
                .value(usize::try_from(key).unwrap())
                .to_owned()
        })
    }

    /// How often each value occurs.
    pub fn tally(&self, name: &str) -> BTreeMap<i128, u64> {
        tally(self.all(name))
    }
}

pub fn tally<T: Ord>(values: impl IntoIterator<Item = T>) -> BTreeMap<T, u64> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
}
