//! The NVTX ranges of kernels: those open at the launch, and, of a node of a CUDA graph, those it was captured in.

use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, UInt32Type, UInt64Type};
use arrow_array::{Array as _, ArrayRef, DictionaryArray, RecordBatch, StringArray};
use arrow_schema::ArrowError;
use rustc_hash::FxHashMap;

use crate::schema::manifest::ProcessId;
use crate::session::files::{ProcessFolder, process_name};
use crate::session::graph_paths::{Captured, GraphPaths, Node};
use crate::session::range_paths::RangePaths;

/// Columns that a batch must have for its paths to be found.
pub(crate) const NEEDED: [&str; 6] = [
    "start_ns",
    "correlation_id",
    "graph_id",
    "graph_node_id",
    "nvtx_path",
    "launch_nvtx_path",
];

/// Texts, each once.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    texts: Vec<String>,
    known: FxHashMap<String, u32>,
}

impl Texts {
    /// The number of a text.
    pub(crate) fn number(&mut self, text: &str) -> u32 {
        if let Some(known) = self.known.get(text) {
            return *known;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.texts.push(text.to_owned());
        self.known.insert(text.to_owned(), number);
        number
    }

    #[cfg(test)]
    pub(crate) fn get(&self, number: u32) -> &str {
        &self.texts[number as usize]
    }

    /// A text column.
    fn column(&self, numbers: impl Iterator<Item = Option<u32>>) -> Result<ArrayRef, ArrowError> {
        let mut keys: FxHashMap<u32, i32> = FxHashMap::default();
        let mut used = Vec::new();
        let mut key = |number: u32| {
            *keys.entry(number).or_insert_with(|| {
                used.push(self.texts[number as usize].as_str());
                i32::try_from(used.len() - 1).unwrap_or(i32::MAX)
            })
        };
        let keys = numbers.map(|number| number.map(&mut key)).collect();
        let values = Arc::new(StringArray::from(used));
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, values)?))
    }
}

/// What says the ranges of one process's kernels.
#[derive(Debug, Default)]
pub(crate) struct KernelPaths {
    texts: Texts,
    launched: RangePaths,
    captured: GraphPaths,
}

impl KernelPaths {
    /// Reads the tables of one process. What can't be read of them gives no path.
    pub(crate) fn read(session: &Path, process: Option<ProcessId>) -> std::io::Result<Self> {
        let Some(process) = process else {
            return Ok(Self::default());
        };
        let folder = |table: &str| ProcessFolder {
            path: session.join(table).join(process_name(process)),
            process: Some(process),
        };
        let mut texts = Texts::default();
        Ok(Self {
            launched: RangePaths::read(&folder("nvtx_ranges"), &folder("api_calls"), &mut texts)?,
            captured: GraphPaths::read(&folder("graph_ranges"), &mut texts)?,
            texts,
        })
    }

    /// All paths that kernels may have.
    pub(crate) fn texts(&self) -> &[String] {
        &self.texts.texts
    }

    /// The batch with both columns of paths. Without ranges they stay as they are.
    pub(crate) fn fill(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        if self.launched.is_empty() && self.captured.is_empty() {
            return Ok(batch.clone());
        }
        let index = |name: &str| batch.schema_ref().index_of(name);
        let column = |name: &str| index(name).map(|index| batch.column(index));
        let starts = column("start_ns")?.as_primitive::<Int64Type>().values();
        let ids = column("correlation_id")?.as_primitive::<UInt32Type>().values();
        let graphs = column("graph_id")?.as_primitive::<UInt32Type>();
        let nodes = column("graph_node_id")?.as_primitive::<UInt64Type>();
        let launches = ids.iter().zip(starts);
        let launched: Vec<Option<u32>> = launches.map(|(id, start)| self.launched.find(*id, *start)).collect();
        let of_row = |row: usize| {
            if graphs.is_null(row) || nodes.is_null(row) {
                return launched[row];
            }
            #[expect(clippy::cast_possible_truncation, reason = "the lower half is the node's number")]
            let node = Node {
                graph_id: graphs.value(row),
                number: nodes.value(row) as u32,
                correlation_id: ids[row],
                start_ns: starts[row],
            };
            match self.captured.find(node) {
                Captured::In(path) => path,
                Captured::Unknown => launched[row],
            }
        };
        let mut columns = batch.columns().to_vec();
        columns[index("nvtx_path")?] = self.texts.column((0..batch.num_rows()).map(of_row))?;
        columns[index("launch_nvtx_path")?] = self.texts.column(launched.iter().copied())?;
        RecordBatch::try_new(batch.schema(), columns)
    }
}
