//! From the program's threads to the writer: a queue of fixed length that neither end waits for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::inject::guest::lock;
use crate::inject::nvtx::registry::{DOMAINS, category};
use crate::inject::nvtx::stack::Range;
use crate::inject::threads::now_ns;
use crate::inject::windows::WindowFinder;
use crate::schema::columns::TableBuilder as _;
use crate::schema::tables::{NvtxRangeRow, NvtxRangesBuilder};

/// Ranges that wait for the writer, which comes every 20 ms: 800,000 a second.
const QUEUE: usize = 16_384;

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
    /// False: the queue is full.
    pub(crate) fn send(&self, range: Range) -> bool {
        let (sender, _) = self.queue.get_or_init(|| bounded(QUEUE));
        sender.try_send(range).is_ok()
    }

    /// True if the writer has to be called: not while a call is on its way, since windows by the thousand would fill the
    /// channel that buffers need.
    pub(crate) fn must_call(&self) -> bool {
        !self.called.swap(true, Ordering::AcqRel)
    }

    /// The writer heard it.
    pub(crate) fn heard(&self) {
        self.called.store(false, Ordering::Release);
    }

    /// Keeps ranges for the writer's next look.
    pub(crate) fn keep(&self, ranges: Vec<Range>) {
        lock(&self.kept).extend(ranges);
    }

    /// Takes what has come, at most as many as the queue holds at a time.
    pub(crate) fn take(&self) -> Vec<Range> {
        let queued = self.queue.get().map(|(_, receiver)| receiver.try_iter().take(QUEUE));
        let mut taken: Vec<Range> = queued.into_iter().flatten().collect();
        taken.append(&mut lock(&self.kept));
        taken
    }
}

/// A range's window: the one in which it started; of one that was open before, the one in which it ended.
pub(crate) fn window_of(range: &Range, windows: &WindowFinder) -> Option<u32> {
    let find = |mark: Option<u32>, ns| windows.find(mark.unwrap_or(0), ns);
    find(range.start.mark, range.start.ns).or_else(|| find(range.end_mark, range.end_ns.unwrap_or_else(now_ns)))
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
        path: range.path.text(),
        start_ns: range.start.ns,
        end_ns: range.end_ns,
        start_correlation_id: range.start.mark,
        end_correlation_id: range.end_mark,
        window,
    });
}
