//! From the program's threads to the writer: a queue of fixed length that neither end waits for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::inject::guest::lock;
use crate::inject::nvtx::registry::{DOMAINS, category};
use crate::inject::nvtx::stack::Range;
use crate::inject::windows::WindowFinder;
use crate::schema::columns::TableBuilder as _;
use crate::schema::tables::{NvtxRangeRow, NvtxRangesBuilder};

/// Ranges that wait for the writer, which comes every 20 ms: 800,000 a second.
const QUEUE: usize = 16_384;
/// Ranges that are kept beside it.
const MAX_KEPT: usize = 2 * QUEUE;

/// Ranges on their way.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: OnceLock<(Sender<Range>, Receiver<Range>)>,
    /// Those that were open when a window closed: many at once, from a thread that may wait.
    kept: Mutex<Vec<Range>>,
    /// A message that makes the writer look is on its way.
    called: AtomicBool,
}

impl Outbox {
    /// Makes the queue, so that no thread of the program has to.
    pub(crate) fn prepare(&self) {
        self.queue();
    }

    fn queue(&self) -> &(Sender<Range>, Receiver<Range>) {
        self.queue.get_or_init(|| bounded(QUEUE))
    }

    /// False: the queue is full.
    pub(crate) fn send(&self, range: Range) -> bool {
        self.queue().0.try_send(range).is_ok()
    }

    /// True if the writer has to be called: not while a call is on its way, since windows by the thousand would fill the
    /// channel that buffers need.
    pub(crate) fn must_call(&self) -> bool {
        !self.called.swap(true, Ordering::AcqRel)
    }

    /// The writer heard it, and looks whether ranges are recorded only then: who was told by `must_call` that a call is on
    /// its way has said so before.
    pub(crate) fn heard(&self) {
        self.called.swap(false, Ordering::AcqRel);
    }

    /// Keeps ranges for the writer's next look; how many it could not.
    pub(crate) fn keep(&self, mut ranges: Vec<Range>) -> u64 {
        let mut kept = lock(&self.kept);
        let refused = (kept.len() + ranges.len()).saturating_sub(MAX_KEPT);
        // The innermost are the last.
        kept.extend(ranges.drain(refused.min(ranges.len())..));
        refused as u64
    }

    /// Takes what has come, at most as many as the queue holds at a time.
    pub(crate) fn take(&self) -> Vec<Range> {
        let queued = self.queue.get().map(|(_, receiver)| receiver.try_iter().take(QUEUE));
        let mut taken: Vec<Range> = queued.into_iter().flatten().collect();
        taken.append(&mut lock(&self.kept));
        taken
    }
}

/// A range's window: the one in which it started; of one that was open before, the one in which it ended, or was open.
pub(crate) fn window_of(range: &Range, windows: &WindowFinder) -> Option<u32> {
    let start = (range.start.mark.unwrap_or(0), range.start.ns);
    let end = (range.end_mark.unwrap_or(0), range.seen_ns);
    let started_in = windows.find(start.0, start.1).filter(|_| !range.is_again);
    started_in
        .or_else(|| windows.find(end.0, end.1))
        .or_else(|| windows.find_within(start, end))
}

/// Makes a row of a range.
pub(crate) fn push_row(rows: &mut NvtxRangesBuilder, pid: u32, range: &Range, window: u32) {
    rows.push(NvtxRangeRow {
        pid,
        thread_id: range.thread_id,
        domain: DOMAINS.get(range.details.domain),
        name: range.path.name(),
        category: category(range.details.domain, range.details.category).as_deref(),
        payload: range.details.payload.text().as_deref(),
        kind: range.kind.name(),
        depth: range.depth,
        path: &range.path.text(),
        start_ns: range.start.ns,
        end_ns: range.end_ns,
        start_correlation_id: range.start.mark,
        end_correlation_id: range.end_mark,
        window,
    });
}
