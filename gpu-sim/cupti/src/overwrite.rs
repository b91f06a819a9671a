//! End times that a later replay overwrites. The times of a graph's nodes lie in memory of the executable; while
//! kernels are recorded CUPTI reads those of a replay before the next one writes there. Once they are not, it no longer
//! does, and the nodes still write: of the last replay before that, what was not handed back yet gets the end of the
//! same node in the next replay, in the first nodes. Seen on an H100 with 13.0.85: 45 to 59 of 338 kernels.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cupti_sys::constants::{KIND_CONCURRENT_KERNEL, KIND_KERNEL};
use cupti_sys::records::{Kernel, View};
use sim_abi::{Op, Submission, op};

use crate::buffers::{POOL, lock};
use crate::faults::faults;
use crate::records::{self, COMPLETED, END};

/// Share of the kernels whose end is overwritten.
const PERCENT: usize = 15;

/// The last recorded replay of each graph executable, as long as none came after it that was not recorded.
struct Replays {
    correlations: Mutex<Option<HashMap<u32, u32>>>,
    /// How many there are, so that a launch while nothing is recorded need not look.
    count: AtomicUsize,
}

static REPLAYS: Replays = Replays::new();

impl Replays {
    const fn new() -> Replays {
        Replays {
            correlations: Mutex::new(None),
            count: AtomicUsize::new(0),
        }
    }

    fn change<R>(&self, change: impl FnOnce(&mut HashMap<u32, u32>) -> R) -> R {
        let mut correlations = lock(&self.correlations);
        let correlations = correlations.get_or_insert_default();
        let result = change(correlations);
        self.count.store(correlations.len(), Ordering::Release);
        result
    }

    fn remember(&self, exec: u32, correlation: u32) {
        self.change(|replays| replays.insert(exec, correlation));
    }

    /// The correlation id of the replay, which is forgotten.
    fn take(&self, exec: u32) -> Option<u32> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.change(|replays| replays.remove(&exec))
    }
}

/// A graph was launched whose kernels are recorded.
pub(crate) fn recorded(exec: u32, correlation: u32) {
    if !faults().kept_ends {
        REPLAYS.remember(exec, correlation);
    }
}

/// A graph was launched whose kernels are not recorded: its nodes write over the times of the last that were.
pub(crate) fn not_recorded(later: &Submission, ops: &[Op]) {
    if let Some(correlation) = REPLAYS.take(later.graph_exec) {
        let ops = first_kernels(ops);
        POOL.change_undelivered(|records| overwrite(records, correlation, later, ops));
    }
}

/// The executable is gone, and what it held can't be written any more.
pub(crate) fn graph_destroyed(exec: u32) {
    REPLAYS.take(exec);
}

/// The nodes up to the last whose end is overwritten.
fn first_kernels(ops: &[Op]) -> &[Op] {
    let is_kernel = |op: &Op| op.kind == op::KERNEL;
    let kernels = ops.iter().filter(|op| is_kernel(op)).count();
    let wanted = (kernels * PERCENT / 100).max(1);
    let last = ops
        .iter()
        .enumerate()
        .filter(|(_, op)| is_kernel(op))
        .nth(wanted - 1)
        .map_or(0, |(index, _)| index + 1);
    &ops[..last]
}

/// Gives the kernels of one replay the ends that those of `ops` have in the later one. A record that another fault
/// spoilt stays as it is.
fn overwrite(records: &mut [u8], correlation: u32, later: &Submission, ops: &[Op]) {
    records::each(records, |kind, record| {
        if !matches!(kind, KIND_CONCURRENT_KERNEL | KIND_KERNEL) {
            return;
        }
        let Some(kernel) = View::<Kernel>::new(record) else {
            return;
        };
        if kernel.graph_id() != later.graph_exec
            || kernel.correlation_id() != correlation
            || kernel.start() >= kernel.end()
        {
            return;
        }
        let node = kernel.graph_node_id();
        if let Some(op) = ops.iter().find(|op| op.graph_node == node) {
            let end = (later.base_ns + op.offset_ns + op.duration_ns).to_ne_bytes();
            record[END].copy_from_slice(&end);
            record[COMPLETED].copy_from_slice(&end);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::strides;
    use cupti_sys::constants::KIND_MEMSET;
    use cupti_sys::records::{Memset, Record, read};

    const EXEC: u32 = 5;

    /// A fill, then kernels of 10 ns each, one every 100 ns.
    fn graph(kernels: u64) -> Vec<Op> {
        let op = |index| Op {
            kind: if index == 0 { op::MEMSET } else { op::KERNEL },
            offset_ns: index * 100,
            duration_ns: 10,
            graph_node: u64::from(EXEC) << 32 | index,
            ..Op::EMPTY
        };
        (0..=kernels).map(op).collect()
    }

    fn later(ops: &[Op]) -> Submission {
        Submission {
            ops: ops.as_ptr(),
            count: ops.len(),
            base_ns: 1_000_000,
            device: 0,
            context: 1,
            stream: 13,
            graph_exec: EXEC,
        }
    }

    fn kernel(node: u64, correlation_id: u32) -> Kernel {
        Kernel {
            kind: KIND_CONCURRENT_KERNEL,
            start: 500 + node * 100,
            end: 510 + node * 100,
            graph_id: EXEC,
            graph_node_id: u64::from(EXEC) << 32 | node,
            correlation_id,
            ..Kernel::zeroed()
        }
    }

    fn ends(kernels: &[Kernel], ops: &[Op]) -> Vec<u64> {
        let size = strides().get(KIND_CONCURRENT_KERNEL).unwrap();
        let mut bytes: Vec<u8> = kernels
            .iter()
            .flat_map(|kernel| kernel.as_bytes()[..size].to_vec())
            .collect();
        // Twice: a buffer may be met again on its way from being filled to being full.
        overwrite(&mut bytes, 77, &later(ops), first_kernels(ops));
        overwrite(&mut bytes, 77, &later(ops), first_kernels(ops));
        let kernels = bytes.chunks(size).map(read::<Kernel>);
        kernels
            .inspect(|kernel| assert!(kernel.end == kernel.completed || kernel.completed == 0))
            .map(|kernel| kernel.end)
            .collect()
    }

    #[test]
    fn the_first_kernels_of_that_replay_end_as_in_the_later_one() {
        let ops = graph(20);
        let replay: Vec<_> = (1..=20).map(|node| kernel(node, 77)).collect();
        let expected: Vec<_> = (1..=20)
            .map(|node| {
                if node <= 3 {
                    1_000_010 + node * 100
                } else {
                    510 + node * 100
                }
            })
            .collect();
        assert_eq!(ends(&replay, &ops), expected);
        assert_eq!(first_kernels(&graph(338)).len(), 1 + 50);
        assert_eq!(first_kernels(&graph(2)).len(), 1 + 1, "at least one");
        assert_eq!(first_kernels(&graph(0)).len(), 0);
    }

    #[test]
    fn other_replays_other_graphs_and_spoilt_records_stay() {
        let untouched = [
            kernel(1, 76),
            Kernel {
                graph_id: 6,
                ..kernel(1, 77)
            },
            Kernel {
                start: 0,
                end: 0,
                ..kernel(1, 77)
            },
            Kernel {
                start: 610,
                end: 600,
                ..kernel(1, 77)
            },
        ];
        assert_eq!(ends(&untouched, &graph(20)), untouched.map(|kernel| kernel.end));

        let fill = Memset {
            kind: KIND_MEMSET,
            start: 500,
            end: 510,
            graph_id: EXEC,
            graph_node_id: u64::from(EXEC) << 32,
            correlation_id: 77,
            ..Memset::zeroed()
        };
        let mut bytes = fill.as_bytes()[..strides().get(KIND_MEMSET).unwrap()].to_vec();
        let ops = graph(20);
        overwrite(&mut bytes, 77, &later(&ops), first_kernels(&ops));
        assert_eq!(read::<Memset>(&bytes).end, 510);
    }

    #[test]
    fn only_the_last_replay_is_overwritten_and_only_once() {
        let replays = Replays::new();
        replays.remember(EXEC, 76);
        replays.remember(EXEC, 77);
        replays.remember(6, 80);
        assert_eq!(
            [EXEC, EXEC, 7, 6].map(|exec| replays.take(exec)),
            [Some(77), None, None, Some(80)]
        );
        assert_eq!(replays.count.load(Ordering::Acquire), 0);
    }
}
