//! Copies by direction, and fills: how many, how many bytes, how long.

use std::collections::BTreeMap;

use arrow_array::{Array as _, RecordBatch};
use serde::Serialize;

use crate::analysis::columns::{EntryMap, i64s, texts, u64s};

/// Copies of one direction, or fills.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// Operations.
    pub count: u64,
    /// Sum of bytes.
    pub bytes: u64,
    /// Sum of durations, ns; operations that ran at once count each.
    pub total_ns: i64,
}

impl Transfer {
    /// Bytes a nanosecond, which is GB/s; `None` where no time passed.
    pub fn gb_per_s(&self) -> Option<f64> {
        (self.total_ns > 0).then(|| self.bytes as f64 / self.total_ns as f64)
    }

    fn add(&mut self, bytes: u64, duration_ns: i64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.total_ns = self.total_ns.saturating_add(duration_ns);
    }
}

/// The fold over `memcpys`, or over `memsets`, which have no direction.
#[derive(Debug, Default)]
pub struct CopyFold {
    kinds: Vec<(String, Transfer)>,
    entries: EntryMap,
}

impl CopyFold {
    /// Columns of `memcpys` to read; a batch must have the first four, in this order.
    pub const COPY_COLUMNS: [&str; 6] = ["copy_kind", "start_ns", "end_ns", "bytes", "pid", "window"];
    /// Columns of `memsets` to read, likewise.
    pub const FILL_COLUMNS: [&str; 6] = ["memory_kind", "start_ns", "end_ns", "bytes", "pid", "window"];

    /// Adds a batch.
    pub fn add(&mut self, batch: &RecordBatch) {
        let names = texts(batch, 0);
        let kinds = &mut self.kinds;
        let map = self.entries.of(names, |name| kind_of(kinds, name));
        let unknown = (names.null_count() > 0).then(|| kind_of(kinds, "unknown"));
        let (starts, ends, bytes) = (i64s(batch, 1), i64s(batch, 2), u64s(batch, 3));
        for row in 0..batch.num_rows() {
            let kind = match unknown {
                Some(unknown) if names.is_null(row) => unknown,
                _ => map[names.keys().value(row) as usize],
            };
            kinds[kind as usize]
                .1
                .add(bytes[row], ends[row].saturating_sub(starts[row]));
        }
    }

    /// By kind, without kinds that did not occur.
    pub fn finish(self) -> BTreeMap<String, Transfer> {
        self.kinds
            .into_iter()
            .filter(|(_, transfer)| transfer.count > 0)
            .collect()
    }
}

fn kind_of(kinds: &mut Vec<(String, Transfer)>, name: &str) -> u32 {
    let index = kinds.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
        kinds.push((name.to_owned(), Transfer::default()));
        kinds.len() - 1
    });
    u32::try_from(index).unwrap_or(u32::MAX)
}
