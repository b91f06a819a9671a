//! The rows of a session, table by table, each process's in order of start.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt32Type;
use arrow_schema::ArrowError;

use super::ExportError;
use crate::schema::columns::{Table, TableBuilder};
use crate::schema::manifest::Problem;
use crate::schema::tables::{
    ApiCallsBuilder, DeviceRow, DevicesBuilder, KernelsBuilder, MemcpysBuilder, MemsetsBuilder, NvtxRangesBuilder,
    SynchronizationsBuilder,
};
use crate::session::{Parts, SESSION_CHANGED, Session, SortedScan, wanted_schema};

/// A session, or one process of it, as exports read it.
#[derive(Debug)]
pub struct Source<'a> {
    session: &'a Session,
    pid: Option<u32>,
    /// What could not be read, and is missing in the export.
    pub problems: Vec<Problem>,
    /// Rows given out, a table.
    pub rows: BTreeMap<&'static str, u64>,
}

impl<'a> Source<'a> {
    /// Of all processes, or of one.
    pub fn new(session: &'a Session, pid: Option<u32>) -> Result<Self, ExportError> {
        let pids: BTreeSet<u32> = session.manifest().processes.iter().map(|process| process.pid).collect();
        match pid {
            Some(pid) if !pids.contains(&pid) => {
                let known: Vec<_> = pids.iter().map(u32::to_string).collect();
                let known = if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                };
                let id = session.manifest().id.clone();
                Err(ExportError::NoProcess { id, pid, known })
            }
            _ => Ok(Self {
                session,
                pid,
                problems: Vec::new(),
                rows: BTreeMap::new(),
            }),
        }
    }

    /// The session.
    pub fn session(&self) -> &'a Session {
        self.session
    }

    /// Whether the rows can be of one process only.
    pub(super) fn is_one_process(&self) -> bool {
        self.pid.is_some() || self.session.manifest().processes.len() <= 1
    }

    /// Whether the session has rows of a table.
    pub(super) fn has(&self, table: &str) -> Result<bool, ExportError> {
        Ok(!self.session.parts(table)?.parts.is_empty())
    }

    /// The command of a process.
    pub(super) fn command(&self, pid: u32) -> String {
        let processes = &self.session.manifest().processes;
        let process = processes.iter().find(|process| process.pid == pid);
        process.map_or_else(String::new, |process| process.command.join(" "))
    }

    /// Calls with each row of a table.
    pub(super) fn each<B: TableBuilder>(
        &mut self,
        mut row: impl FnMut(B::Row<'_>) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let table = B::table();
        self.batches(&table, |batch| {
            (0..batch.num_rows()).try_for_each(|index| row(B::row(batch, index)))
        })
    }

    /// Calls with each batch of a table, which has the columns of the definition. Kernels have their layers.
    pub(super) fn batches(
        &mut self,
        table: &Table,
        mut each: impl FnMut(&RecordBatch) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let columns: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
        let mut count = 0;
        let mut give = |batch: Result<RecordBatch, ArrowError>| {
            let batch = batch?;
            // Behind them may be columns that only layers need.
            let batch = batch.project(&(0..columns.len()).collect::<Vec<_>>())?;
            count += batch.num_rows() as u64;
            each(&batch)
        };
        let mut problems;
        if table.name == "kernels" {
            let scans;
            (scans, problems) = self.session.layered_kernels(&columns)?;
            for mut scan in scans {
                for batch in scan.by_ref() {
                    if self.wants(batch.as_ref()) {
                        give(batch)?;
                    }
                }
                problems.extend(scan.into_problems());
            }
        } else {
            let parts = self.session.parts(table.name)?;
            problems = parts.problems.clone();
            for parts in by_process(parts) {
                let mut scan = SortedScan::new(parts, wanted_schema(table.name, &columns));
                for batch in scan.by_ref() {
                    if self.wants(batch.as_ref()) {
                        give(batch)?;
                    }
                }
                problems.extend(scan.into_problems());
            }
        }
        *self.rows.entry(table.name).or_default() += count;
        if problems.iter().any(|problem| problem.code == SESSION_CHANGED) {
            return Err(ExportError::Changed(self.session.manifest().id.clone()));
        }
        self.problems.extend(problems);
        Ok(())
    }

    /// The rows of a file are of one process.
    fn wants(&self, batch: Result<&RecordBatch, &ArrowError>) -> bool {
        let of = |batch: &RecordBatch| {
            let pids = batch.column_by_name("pid")?.as_primitive::<UInt32Type>();
            pids.values().first().copied()
        };
        self.pid.is_none() || batch.map_or(true, |batch| of(batch) == self.pid)
    }

    /// The GPUs, each of each process.
    pub(super) fn devices(&mut self) -> Result<Vec<Gpu>, ExportError> {
        let mut devices = Vec::new();
        self.each::<DevicesBuilder>(|device| {
            devices.push(Gpu::of(&device));
            Ok(())
        })?;
        devices.dedup_by_key(|device| (device.pid, device.device_id));
        Ok(devices)
    }

    /// Before everything that has a time: times in traces are counted from there.
    pub(super) fn base_ns(&self) -> Result<i64, ExportError> {
        let tables = [
            KernelsBuilder::table(),
            MemcpysBuilder::table(),
            MemsetsBuilder::table(),
            SynchronizationsBuilder::table(),
            ApiCallsBuilder::table(),
            NvtxRangesBuilder::table(),
        ];
        let mut first = None;
        for table in tables {
            let parts = self.session.parts(table.name)?.parts;
            let starts = parts
                .iter()
                .filter_map(|part| part.start_range())
                .map(|(start, _)| start);
            first = starts.chain(first).min();
        }
        Ok(first.unwrap_or_else(|| self.session.manifest().created_ns))
    }

    /// An export without any of these rows is refused: it would look like a program that used no GPU.
    pub(super) fn refuse_empty(&self) -> Result<(), ExportError> {
        if self.rows.values().any(|&rows| rows > 0) {
            return Ok(());
        }
        let id = &self.session.manifest().id;
        let what = self.pid.map_or_else(
            || format!("session `{id}`"),
            |pid| format!("process {pid} of session `{id}`"),
        );
        Err(ExportError::Empty(format!(
            "{what} has no rows to export; `colonel show {id}` says why"
        )))
    }
}

fn by_process(parts: Parts) -> impl Iterator<Item = Parts> {
    let mut processes = BTreeMap::<_, Parts>::new();
    for part in parts.parts {
        processes.entry(part.process()).or_default().parts.push(part);
    }
    processes.into_values()
}

/// A GPU as traces describe it.
#[derive(Debug, Clone)]
pub(super) struct Gpu {
    pub(super) pid: u32,
    pub(super) device_id: u32,
    pub(super) name: String,
    pub(super) uuid: Option<String>,
    pub(super) compute: (u32, u32),
    pub(super) sm_count: u32,
    pub(super) max_threads_per_sm: u32,
    pub(super) max_blocks_per_sm: u32,
    pub(super) registers_per_sm: u32,
    pub(super) shared_bytes_per_sm: u32,
    pub(super) warp_size: u32,
    pub(super) l2_bytes: u64,
    pub(super) memory_bytes: u64,
    pub(super) memory_bandwidth_bytes_per_s: Option<u64>,
    pub(super) clock_khz: u32,
}

impl Gpu {
    fn of(row: &DeviceRow<'_>) -> Self {
        Self {
            pid: row.pid,
            device_id: row.device_id,
            name: row.name.to_owned(),
            uuid: row.uuid.map(str::to_owned),
            compute: (row.compute_major, row.compute_minor),
            sm_count: row.sm_count,
            max_threads_per_sm: row.max_threads_per_sm,
            max_blocks_per_sm: row.max_blocks_per_sm,
            registers_per_sm: row.registers_per_sm,
            shared_bytes_per_sm: row.shared_bytes_per_sm,
            warp_size: row.warp_size,
            l2_bytes: row.l2_bytes,
            memory_bytes: row.memory_bytes,
            memory_bandwidth_bytes_per_s: row.memory_bandwidth_bytes_per_s,
            clock_khz: row.clock_khz,
        }
    }
}
