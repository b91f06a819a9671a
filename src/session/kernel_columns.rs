//! The columns of kernels that need other tables, or all kernels of a process: ranges, layers, waves and occupancy.
//! Compaction writes them down; of a session that was not compacted every reader gets them from here.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use parquet::errors::ParquetError;

use crate::schema::columns::TableBuilder as _;
use crate::schema::manifest::{Problem, ProcessId};
use crate::schema::tables::KernelsBuilder;
use crate::session::annotate::{self, Annotator};
use crate::session::devices::Devices;
use crate::session::kernel_paths::{self, KernelPaths};
use crate::session::layered::LayerFiller;
use crate::session::scan::{Parts, wanted_schema};
use crate::session::structure;
use crate::session::table_writer::TableWriter;
use crate::session::{Session, SessionError};

/// These columns, and those that the filled ones need.
pub(crate) fn with_needed<'a>(columns: &[&'a str]) -> Vec<&'a str> {
    let mut all = columns.to_vec();
    let of_device: &[&str] = if wants_devices(columns) { &annotate::NEEDED } else { &[] };
    let needed = structure::COLUMNS.iter().chain(&kernel_paths::NEEDED).chain(of_device);
    for needed in needed.chain(&["layer", "layer_source"]) {
        if !all.contains(needed) {
            all.push(needed);
        }
    }
    all
}

/// Whether any of the columns needs the table `devices`.
pub(crate) fn wants_devices(columns: &[&str]) -> bool {
    columns.iter().any(|column| annotate::FILLED.contains(column))
}

/// Fills them in.
#[derive(Debug)]
pub(crate) struct KernelColumns {
    annotator: Option<Annotator>,
    paths: KernelPaths,
    layers: LayerFiller,
}

impl KernelColumns {
    /// For the kernels of one process of a session; without devices, waves and occupancy are left alone. Calls `looked` now
    /// and then.
    pub(crate) fn new(
        session: &Path,
        process: Option<ProcessId>,
        parts: &Parts,
        devices: Option<&Devices>,
        looked: &mut dyn FnMut(),
    ) -> Result<Self, SessionError> {
        let paths = KernelPaths::read(session, process).map_err(SessionError::io("read", session))?;
        let table = parts.parts.first().map_or(session, |part| part.path());
        let layers = LayerFiller::new(parts.clone(), &paths, looked)
            .map_err(|error| SessionError::parquet(table)(ParquetError::from(error)))?;
        Ok(Self {
            annotator: devices.map(|devices| Annotator::new(devices.clone())),
            paths,
            layers,
        })
    }

    /// The batch, which has the columns of [`with_needed`]. Batches must come in the order of start, all of them.
    pub(crate) fn fill(&mut self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let batch = self.paths.fill(batch)?;
        let batch = match &mut self.annotator {
            Some(annotator) => annotator.annotate(&batch)?,
            None => batch,
        };
        self.layers.fill(batch)
    }
}

impl Session {
    /// Writes its kernels with all columns into a folder, a file a process, for readers of Parquet. Gives the files, and what
    /// could not be read.
    pub fn write_kernels(&self, folder: &Path) -> Result<(Vec<PathBuf>, Vec<Problem>), SessionError> {
        fs::create_dir_all(folder).map_err(SessionError::io("create", folder))?;
        let table = KernelsBuilder::table();
        let columns: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
        let (scans, mut problems) = self.layered_kernels(&columns)?;
        let mut files = Vec::new();
        for mut scan in scans {
            let path = folder.join(format!("{:06}.parquet", files.len() + 1));
            let failed = |error: ParquetError| SessionError::parquet(&path)(error);
            let file = File::create(&path).map_err(SessionError::io("create", &path))?;
            let mut writer = TableWriter::new(file, wanted_schema(table.name, &columns)).map_err(failed)?;
            for batch in scan.by_ref() {
                let batch = batch.map_err(|error| failed(error.into()))?;
                writer.write(&batch).map_err(failed)?;
            }
            writer.finish().map_err(failed)?;
            problems.extend(scan.into_problems());
            files.push(path);
        }
        Ok((files, problems))
    }
}
