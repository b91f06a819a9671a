//! Kernels with the layer that each belongs to: ranges say it, and where they don't, the structure of the process's
//! kernels does. Compaction writes it down; a reader of a session that was not compacted finds it anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use arrow_array::{Array as _, ArrayRef, DictionaryArray, RecordBatch, StringArray};
use arrow_schema::ArrowError;
use parquet::errors::ParquetError;

use crate::schema::manifest::{Problem, SessionState};
use crate::session::scan::{Parts, wanted_schema};
use crate::session::sorted::SortedScan;
use crate::session::structure::{COLUMNS, Finder, Lookup};
use crate::session::{Session, SessionError};

/// `layer_source` of a layer found by structure.
pub const BY_STRUCTURE: &str = "structure";

/// Fills the columns `layer` and `layer_source` in, where no range has.
#[derive(Debug)]
pub(crate) struct LayerFiller {
    /// `None` where the kernels have no structure.
    lookup: Option<Lookup>,
    texts: Vec<String>,
}

impl LayerFiller {
    /// For the kernels of one process. What can't be read is left out here, and told by who reads them next.
    pub(crate) fn new(parts: Parts) -> Result<Self, ArrowError> {
        let mut finder = Finder::default();
        let columns: Vec<&str> = std::iter::once("start_ns").chain(COLUMNS).collect();
        for batch in SortedScan::new(parts, wanted_schema("kernels", &columns)) {
            finder.add(&batch?)?;
        }
        let layers = finder.finish();
        Ok(Self {
            lookup: (!layers.is_empty()).then(|| Lookup::new(layers)),
            texts: Vec::new(),
        })
    }

    /// The batch with both columns filled in. Batches must come in the order of start, all of them.
    pub(crate) fn fill(&mut self, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let Some(lookup) = &mut self.lookup else {
            return Ok(batch);
        };
        let found = lookup.of(&batch)?;
        let schema = batch.schema();
        let (layer_at, source_at) = (schema.index_of("layer")?, schema.index_of("layer_source")?);
        let mut layers = TextColumn::new(&batch, layer_at)?;
        let mut sources = TextColumn::new(&batch, source_at)?;
        for (row, layer) in found.into_iter().enumerate() {
            match layer {
                Some(layer) if layers.is_null(row) => {
                    let layer = usize::from(layer);
                    while self.texts.len() <= layer {
                        self.texts.push(self.texts.len().to_string());
                    }
                    layers.builder.append(&self.texts[layer])?;
                    sources.builder.append(BY_STRUCTURE)?;
                }
                _ => {
                    layers.keep(row)?;
                    sources.keep(row)?;
                }
            }
        }
        let mut columns = batch.columns().to_vec();
        columns[layer_at] = layers.finish();
        columns[source_at] = sources.finish();
        RecordBatch::try_new(schema, columns)
    }
}

/// A text column that is written anew.
struct TextColumn<'a> {
    old: &'a DictionaryArray<Int32Type>,
    texts: &'a StringArray,
    builder: StringDictionaryBuilder<Int32Type>,
}

impl<'a> TextColumn<'a> {
    fn new(batch: &'a RecordBatch, column: usize) -> Result<Self, ArrowError> {
        let old: &DictionaryArray<Int32Type> = batch.column(column).as_dictionary();
        let wrong = || ArrowError::SchemaError("a text column holds no text".to_owned());
        Ok(Self {
            old,
            texts: old.values().as_any().downcast_ref().ok_or_else(wrong)?,
            builder: StringDictionaryBuilder::new(),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        self.old.is_null(row)
    }

    fn keep(&mut self, row: usize) -> Result<(), ArrowError> {
        match self.old.key(row) {
            Some(key) => self.builder.append(self.texts.value(key)).map(|_| ()),
            None => {
                self.builder.append_null();
                Ok(())
            }
        }
    }

    fn finish(mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}

/// Kernels of one process in order of start, with their layers.
#[derive(Debug)]
pub struct LayeredScan {
    scan: SortedScan,
    filler: Option<LayerFiller>,
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
        Some(match &mut self.filler {
            Some(filler) => batch.and_then(|batch| filler.fill(batch)),
            None => batch,
        })
    }
}

impl Session {
    /// A scan a process, with the columns asked for first, and then those that layers need. Also gives the files that could
    /// not be opened.
    pub fn layered_kernels(&self, columns: &[&str]) -> Result<(Vec<LayeredScan>, Vec<Problem>), SessionError> {
        let Parts { parts, problems } = self.parts("kernels")?;
        let mut processes = BTreeMap::<_, Parts>::new();
        for part in parts {
            processes.entry(part.process()).or_default().parts.push(part);
        }
        let needed = COLUMNS.iter().chain(&["start_ns", "layer", "layer_source"]);
        let more = needed.copied().filter(|needed| !columns.contains(needed));
        let all: Vec<&str> = columns.iter().copied().chain(more).collect();
        let wanted = wanted_schema("kernels", &all);
        let mut scans = Vec::new();
        for parts in processes.into_values() {
            let path = parts
                .parts
                .first()
                .map_or_else(|| self.path().to_owned(), |part| part.path().to_owned());
            let filler = match self.manifest().state {
                SessionState::Compacted if parts.parts.iter().any(|part| part.has_layers()) => None,
                _ => Some(
                    LayerFiller::new(parts.clone())
                        .map_err(|error| SessionError::parquet(&path)(ParquetError::from(error)))?,
                ),
            };
            scans.push(LayeredScan {
                scan: SortedScan::new(parts, Arc::clone(&wanted)),
                filler,
            });
        }
        Ok((scans, problems))
    }
}
