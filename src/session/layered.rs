//! Kernels with the part of the model that each belongs to: ranges say it, and where they don't, the structure of the
//! process's kernels says the layer. Compaction writes it down; a reader of a session that was not compacted finds it anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use arrow_schema::ArrowError;

use crate::schema::manifest::{Problem, SessionState};
use crate::session::kernel_columns::{KernelColumns, wants_devices, with_needed};
use crate::session::kernel_paths::KernelPaths;
use crate::session::layer_names::Stacks;
use crate::session::model_part::{PATHS, Part, PathParts};
use crate::session::scan::{Parts, Scan, wanted_schema};
use crate::session::sorted::SortedScan;
use crate::session::structure::{Finder, Lookup, Spot};
use crate::session::{Session, SessionError};

/// `layer_source` of a layer that ranges name.
const BY_NVTX: &str = "nvtx";
/// `layer_source` of a layer found by structure.
pub const BY_STRUCTURE: &str = "structure";

/// What ranges would call the norm behind the last layer.
const FINAL_NORM: &str = "norm";

/// Fills the columns `layer` and `layer_source` in.
#[derive(Debug)]
pub(crate) struct LayerFiller {
    parts: PathParts,
    lookup: Lookup,
    texts: Vec<String>,
}

impl LayerFiller {
    /// For the kernels of one process. What can't be read is left out here, and told by who reads them next. Calls `looked`
    /// now and then.
    pub(crate) fn new(parts: Parts, paths: &KernelPaths, looked: &mut dyn FnMut()) -> Result<Self, ArrowError> {
        let path_parts = PathParts::new(stacks(&parts, paths));
        let mut finder = Finder::new(path_parts.clone());
        let columns = with_needed(&[]);
        for batch in SortedScan::new(parts, wanted_schema("kernels", &columns)) {
            finder.add(&paths.fill(&batch?)?)?;
            looked();
        }
        Ok(Self {
            parts: path_parts,
            lookup: Lookup::new(finder.finish()),
            texts: Vec::new(),
        })
    }

    /// The batch with both columns filled in. Batches must come in the order of start, all of them.
    pub(crate) fn fill(&mut self, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let by_structure = self.lookup.of(&batch)?;
        let part = self.parts.of(&batch);
        let (mut layers, mut sources) = (TextColumn::default(), TextColumn::default());
        for (row, by_structure) in by_structure.into_iter().enumerate() {
            let (part, source) = match (part(row), by_structure) {
                (Some(Part::Named(name)), _) => (Some(name.as_str()), BY_NVTX),
                (Some(Part::Layer(layer)), _) => (Some(number(&mut self.texts, *layer)), BY_NVTX),
                (None, Some(Spot::Layer(layer))) => (Some(number(&mut self.texts, layer)), BY_STRUCTURE),
                (None, Some(Spot::FinalNorm)) => (Some(FINAL_NORM), BY_STRUCTURE),
                (None, None) => (None, ""),
            };
            layers.append_option(part);
            sources.append_option(part.map(|_| source));
        }
        drop(part);
        let schema = batch.schema();
        let mut columns = batch.columns().to_vec();
        columns[schema.index_of("layer")?] = Arc::new(layers.finish());
        columns[schema.index_of("layer_source")?] = Arc::new(sources.finish());
        RecordBatch::try_new(schema, columns)
    }
}

/// What the paths of all kernels name: those that ranges give, and those that are there, as in sessions of nsys.
fn stacks(parts: &Parts, paths: &KernelPaths) -> Stacks {
    let mut stacks = Stacks::default();
    paths.texts().iter().for_each(|path| stacks.add(path));
    for batch in Scan::new(parts.clone(), wanted_schema("kernels", &PATHS)) {
        for column in batch.columns() {
            let texts = column.as_any_dictionary().values().as_string::<i32>();
            texts.iter().flatten().for_each(|path| stacks.add(path));
        }
    }
    stacks
}

type TextColumn = StringDictionaryBuilder<Int32Type>;

/// A layer's number as text, made once.
fn number(texts: &mut Vec<String>, layer: u16) -> &str {
    let layer = usize::from(layer);
    while texts.len() <= layer {
        texts.push(texts.len().to_string());
    }
    &texts[layer]
}

/// Kernels of one process in order of start, with their ranges and layers.
#[derive(Debug)]
pub struct LayeredScan {
    scan: SortedScan,
    /// Where the columns are not there yet.
    columns: Option<KernelColumns>,
}

impl LayeredScan {
    /// What could not be read.
    pub fn into_problems(self) -> Vec<Problem> {
        self.scan.into_problems()
    }
}

impl Iterator for LayeredScan {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.scan.next()?;
        Some(match &mut self.columns {
            Some(columns) => batch.and_then(|batch| columns.fill(&batch)),
            None => batch,
        })
    }
}

impl Session {
    /// A scan a process, with the columns asked for first; behind them may be some that ranges, layers and waves need. Also
    /// gives the files that could not be opened.
    pub fn layered_kernels(&self, columns: &[&str]) -> Result<(Vec<LayeredScan>, Vec<Problem>), SessionError> {
        let Parts { parts, problems } = self.parts("kernels")?;
        let mut processes = BTreeMap::<_, Parts>::new();
        for part in parts {
            processes.entry(part.process()).or_default().parts.push(part);
        }
        let is_compacted = self.manifest().state == SessionState::Compacted;
        let wanted = match is_compacted {
            true => wanted_schema("kernels", columns),
            false => wanted_schema("kernels", &with_needed(columns)),
        };
        let devices = wants_devices(columns).then(|| self.devices()).transpose()?;
        let mut scans = Vec::new();
        for (process, parts) in processes {
            let columns = match is_compacted {
                true => None,
                false => Some(KernelColumns::new(
                    self.path(),
                    process,
                    &parts,
                    devices.as_ref(),
                    &mut || (),
                )?),
            };
            scans.push(LayeredScan {
                scan: SortedScan::new(parts, Arc::clone(&wanted)),
                columns,
            });
        }
        Ok((scans, problems))
    }
}
