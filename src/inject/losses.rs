//! Records that did not become rows. Every one is counted here and nowhere else.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::inject::guest::lock;
use crate::inject::threads::now_ns;
use crate::schema::manifest;

/// Why a record did not become a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    BuffersExhausted,
    DroppedByCupti,
    InvalidTimestamp,
    UnknownKind,
    TruncatedBuffer,
    WriteFailed,
    CallbacksReplaced,
    NotSealed,
    QueueFull,
    TooManyOpen,
    TooManyGraphs,
    HardwareBufferFull,
}

impl Reason {
    /// Its word in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Reason::BuffersExhausted => "buffers_exhausted",
            Reason::DroppedByCupti => "dropped_by_cupti",
            Reason::InvalidTimestamp => "invalid_timestamp",
            Reason::UnknownKind => "unknown_kind",
            Reason::TruncatedBuffer => "truncated_buffer",
            Reason::WriteFailed => "write_failed",
            Reason::CallbacksReplaced => "callbacks_replaced",
            Reason::NotSealed => "not_sealed",
            Reason::QueueFull => "queue_full",
            Reason::TooManyOpen => "too_many_open",
            Reason::TooManyGraphs => "too_many_graphs",
            Reason::HardwareBufferFull => "hardware_buffer_full",
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Count {
    count: Option<u64>,
    first_ns: i64,
    last_ns: i64,
}

/// Losses of this process, by table and reason.
#[derive(Debug, Default)]
pub(crate) struct Losses(Mutex<BTreeMap<(&'static str, Reason), Count>>);

impl Losses {
    /// Counts records; `None` where nobody can tell how many.
    pub(crate) fn add(&self, kind: &'static str, reason: Reason, count: Option<u64>) {
        if count == Some(0) {
            return;
        }
        let now = now_ns();
        let mut counts = lock(&self.0);
        let entry = counts.entry((kind, reason)).or_insert(Count {
            count: Some(0),
            first_ns: now,
            last_ns: now,
        });
        entry.count = entry.count.zip(count).map(|(sum, more)| sum.saturating_add(more));
        entry.last_ns = now;
    }

    /// For the process file and the table `losses`.
    pub(crate) fn manifest(&self, pid: u32) -> Vec<manifest::Loss> {
        lock(&self.0)
            .iter()
            .map(|((kind, reason), count)| manifest::Loss {
                pid: Some(pid),
                kind: (*kind).to_owned(),
                reason: reason.name().to_owned(),
                count: count.count,
                first_ns: count.first_ns,
                last_ns: count.last_ns,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_unknown_stays_unknown() {
        let losses = Losses::default();
        losses.add("kernels", Reason::InvalidTimestamp, Some(2));
        losses.add("kernels", Reason::InvalidTimestamp, Some(3));
        losses.add("kernels", Reason::WriteFailed, Some(0));
        losses.add("records", Reason::CallbacksReplaced, None);
        losses.add("records", Reason::CallbacksReplaced, Some(1));
        let all = losses.manifest(7);
        assert_eq!(all.len(), 2, "nothing lost is no row");
        assert_eq!((all[0].kind.as_str(), all[0].count), ("kernels", Some(5)));
        assert_eq!((all[1].reason.as_str(), all[1].count), ("callbacks_replaced", None));
    }
}
