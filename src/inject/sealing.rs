//! Sealing: from rows collected in memory to one segment a table on disk.

use std::collections::BTreeMap;
use std::io;

use crate::inject::devices;
use crate::inject::guest::{Guest, lock};
use crate::inject::kernels::Kernels;
use crate::inject::losses::Reason;
use crate::inject::names::Names;
use crate::inject::rows::Rows;
use crate::inject::segments::Segments;
use crate::schema::columns::{Table, TableBuilder};
use crate::schema::manifest::Loss;
use crate::schema::tables::*;

/// What was sealed so far.
#[derive(Debug, Default)]
pub(crate) struct Sealing {
    segments: BTreeMap<&'static str, Segments>,
    windows: usize,
    devices: bool,
    losses: Vec<Loss>,
}

impl Sealing {
    /// Seals every table that has rows; the first error is returned, its rows are counted as lost.
    pub(crate) fn seal(&mut self, guest: &Guest, rows: &mut Rows, names: &Names) -> Option<io::Error> {
        // Before the kernels that need it.
        let mut errors = vec![self.table(guest, &mut rows.graph_ranges)];
        errors.push(self.kernels(guest, &mut rows.kernels, names));
        errors.push(self.table(guest, &mut rows.memcpys));
        errors.push(self.table(guest, &mut rows.memsets));
        errors.push(self.table(guest, &mut rows.synchronizations));
        errors.push(self.table(guest, &mut rows.api_calls));
        errors.push(self.table(guest, &mut rows.overheads));
        errors.push(self.table(guest, &mut rows.contexts));
        errors.push(self.table(guest, &mut rows.streams));
        errors.push(self.table(guest, &mut rows.nvtx_ranges));
        errors.push(self.devices(guest));
        errors.push(self.windows(guest));
        errors.push(self.losses(guest));
        errors.into_iter().find_map(Result::err)
    }

    fn segments(&mut self, guest: &Guest, table: &Table) -> &mut Segments {
        self.segments.entry(table.name).or_insert_with(|| {
            Segments::new(
                &guest.config.session,
                table.name,
                &guest.identity.folder_name(),
                table.arrow_schema(),
            )
        })
    }

    fn kernels(&mut self, guest: &Guest, kernels: &mut Kernels, names: &Names) -> io::Result<()> {
        let count = kernels.len();
        if count == 0 {
            return Ok(());
        }
        let table = KernelsBuilder::table();
        let segments = self.segments(guest, &table);
        let schema = segments.schema().clone();
        let result = segments.seal_with(|file| kernels.write(file, &schema, guest.identity.pid, names));
        kernels.clear();
        account(guest, table.name, count, result)
    }

    fn table<B: TableBuilder>(&mut self, guest: &Guest, builder: &mut B) -> io::Result<()> {
        let count = builder.len();
        if count == 0 {
            return Ok(());
        }
        let table = B::table();
        let columns = builder.finish();
        let result = self.segments(guest, &table).seal_columns(columns);
        account(guest, table.name, count, result)
    }

    /// The GPUs, once the driver can be asked about them.
    fn devices(&mut self, guest: &Guest) -> io::Result<()> {
        if self.devices {
            return Ok(());
        }
        let mut builder = DevicesBuilder::default();
        devices::push_all(guest.identity.pid, &mut builder);
        let found = !builder.is_empty();
        self.table(guest, &mut builder)?;
        self.devices = found;
        Ok(())
    }

    /// Windows that have closed since the last seal.
    fn windows(&mut self, guest: &Guest) -> io::Result<()> {
        let mut builder = WindowsBuilder::default();
        for window in guest.windows.closed_after(self.windows) {
            builder.push(WindowRow {
                pid: guest.identity.pid,
                window: window.number,
                start_ns: window.start_ns,
                end_ns: window.end_ns,
                trigger: &window.trigger,
                name: window.name.as_deref(),
            });
        }
        let closed = builder.len();
        self.table(guest, &mut builder)?;
        self.windows += closed;
        Ok(())
    }

    /// Losses since the last seal: the table's counts add up to the process file's.
    fn losses(&mut self, guest: &Guest) -> io::Result<()> {
        let now = guest.losses.manifest(guest.identity.pid);
        let mut builder = LossesBuilder::default();
        for loss in &now {
            let before = self
                .losses
                .iter()
                .find(|old| old.kind == loss.kind && old.reason == loss.reason);
            let count = match (loss.count, before.and_then(|old| old.count)) {
                (Some(count), Some(old)) => Some(count.saturating_sub(old)),
                (count, _) => count,
            };
            if before.is_some_and(|old| old.count == loss.count) {
                continue;
            }
            builder.push(LossRow {
                pid: guest.identity.pid,
                kind: &loss.kind,
                reason: &loss.reason,
                count,
                first_ns: before.map_or(loss.first_ns, |old| old.last_ns),
                last_ns: loss.last_ns,
            });
        }
        self.table(guest, &mut builder)?;
        self.losses = now;
        Ok(())
    }
}

fn account(guest: &Guest, table: &'static str, count: usize, result: io::Result<()>) -> io::Result<()> {
    match &result {
        Ok(()) => *lock(&guest.sealed).entry(table).or_default() += count as u64,
        // These come again with the next seal, and the process file has them.
        Err(_) if matches!(table, "losses" | "windows" | "devices") => {}
        Err(_) => guest.losses.add(table, Reason::WriteFailed, Some(count as u64)),
    }
    result
}
