//! Getting records out of CUPTI: when to flush, when a closed window has arrived, when records may be turned off, and
//! whether they still come at all. Belongs to the steward, the only thread that flushes.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use crate::inject::guest::Guest;
use crate::inject::losses::Reason;
use crate::inject::threads::now_ns;
use crate::inject::writer::Message;

/// Between flushes while a window is open: with the writer's 0.9 s, a record is on disk within about a second.
const FLUSH_EVERY: Duration = Duration::from_millis(250);
/// Flushes after a window closed, for work launched before that still runs: every 10 ms at first, then ever rarer.
const DRAIN_FIRST: Duration = Duration::from_millis(10);
const DRAIN_LAST: Duration = Duration::from_secs(1);
/// Records stay on this long after a stop at most, for work launched before it.
const SETTLE_LIMIT: Duration = Duration::from_secs(1);
/// Records stay on until none of the closed window came for this long.
const SETTLE_QUIET: Duration = Duration::from_millis(200);
/// After a burst they stay on for less, once work that was launched later has come: recording costs as much as in a burst.
const BURST_QUIET: Duration = Duration::from_millis(10);
const BURST_DRAIN: Duration = Duration::from_millis(5);
/// Flushes in a row that brought nothing, after which draining rests until the next window or the end.
const DRAIN_IDLE: u32 = 20;
/// Silence of CUPTI that makes us suspicious, and the CUDA calls that the program must have made meanwhile: a program
/// that polls one long kernel makes few.
const SILENCE: Duration = Duration::from_secs(2);
const SILENCE_CALLS: u32 = 1_000;
/// The same for bursts in a row, which are too short each to be suspicious.
const SILENT_BURSTS: u32 = 3;
const SILENT_BURSTS_CALLS: u32 = 200;
/// Flushes at the process's end before the forced one.
const FINISH_FLUSHES: u32 = 10;
/// Longest wait for the writer to seal.
pub(crate) const SEAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The flushes of this process.
pub(crate) struct Delivery {
    guest: &'static Guest,
    next_flush: Option<Instant>,
    drain_step: Duration,
    idle_flushes: u32,
    canary: Canary,
    /// A window closed and the records are still on.
    settling: Option<Settling>,
    /// How many windows had closed at the last flush, and at the one before: the latter's records have all come.
    closed: usize,
    delivered: usize,
    /// The writer's answer to the last request to seal, if it is still to come.
    seal_asked: Option<Receiver<()>>,
}

/// Waits for what a closed window launched, so that the records can be turned off.
#[derive(Debug, Clone, Copy)]
struct Settling {
    since: Instant,
    /// Rows when they last grew, and when that was.
    rows: u64,
    grew: Instant,
    /// When it closed, Unix ns.
    closed_ns: i64,
}

/// Notices that no record reaches us any more though the program calls CUDA: somebody else registered buffers.
#[derive(Debug, Default)]
struct Canary {
    moved: u64,
    /// When buffers last moved, and the correlation id then.
    last: Option<(Instant, u32)>,
    silent: Option<Silence>,
    in_vain: InVain,
}

/// Bursts in a row that brought nothing, too short each to be suspicious.
#[derive(Debug, Default)]
struct InVain {
    /// How many buffers had moved when the last burst was settled.
    moved: u64,
    bursts: u32,
    /// CUDA calls in those.
    calls: u32,
}

/// How long, and how many calls.
#[derive(Debug, Clone, Copy)]
struct Silence {
    since: Instant,
    calls: u32,
}

impl Delivery {
    pub(crate) fn new(guest: &'static Guest) -> Delivery {
        Delivery {
            guest,
            next_flush: None,
            drain_step: DRAIN_FIRST,
            idle_flushes: 0,
            canary: Canary::default(),
            settling: None,
            closed: 0,
            delivered: 0,
            seal_asked: None,
        }
    }

    /// How long the steward may sleep.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        self.next_flush.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Flushes if it is time to.
    pub(crate) fn run_if_due(&mut self) {
        if self.guest.wake.drain.swap(false, Ordering::AcqRel) {
            let is_burst = self.guest.gate.is_open();
            self.drain_step = if is_burst { BURST_DRAIN } else { DRAIN_FIRST };
            self.idle_flushes = 0;
            if self.flush_and_seal((!is_burst).then_some(SEAL_TIMEOUT)) {
                self.canary.silent = None;
            }
            if is_burst {
                self.canary.in_vain.calls += self.guest.windows.calls_of_last_burst();
            } else {
                self.bury_canary();
            }
            let now = Instant::now();
            self.settling = Some(Settling {
                since: now,
                rows: self.guest.window_rows.load(Ordering::Acquire),
                grew: now,
                closed_ns: now_ns(),
            });
            self.next_flush = Some(Instant::now() + self.drain_step);
            return;
        }
        let open = self.guest.is_recording();
        let Some(at) = self.next_flush else {
            self.next_flush = open.then(|| Instant::now() + FLUSH_EVERY);
            return;
        };
        if at > Instant::now() {
            return;
        }
        let brought = self.flush(false);
        self.next_flush = if open {
            self.settling = None;
            self.listen_to_canary(brought);
            if self.guest.windows.sealed() < self.delivered {
                self.request_seal(None);
            }
            Some(Instant::now() + FLUSH_EVERY)
        } else {
            self.idle_flushes = if brought { 0 } else { self.idle_flushes + 1 };
            let is_burst = self.guest.gate.is_open() && self.settling.is_some();
            if brought || self.guest.windows.sealed() < self.delivered {
                self.request_seal(self.settling.filter(|_| !is_burst).map(|_| SEAL_TIMEOUT));
            }
            self.settle(is_burst);
            if !is_burst {
                self.drain_step = (self.drain_step * 2).min(DRAIN_LAST);
            }
            (self.idle_flushes < DRAIN_IDLE).then(|| Instant::now() + self.drain_step)
        };
    }

    /// Turns the records off once a flush brought nothing more of the closed window, or it took too long.
    fn settle(&mut self, is_burst: bool) {
        let Some(settling) = &mut self.settling else { return };
        let rows = self.guest.window_rows.load(Ordering::Acquire);
        if rows != settling.rows {
            settling.rows = rows;
            settling.grew = Instant::now();
        }
        // One long replay delivers nothing until it ends, so silence alone says little; a kernel launched later says more.
        let is_past = self.guest.latest_outside_ns.load(Ordering::Acquire) > settling.closed_ns;
        let quiet = if is_burst && is_past { BURST_QUIET } else { SETTLE_QUIET };
        let is_settled = settling.grew.elapsed() > quiet || settling.since.elapsed() > SETTLE_LIMIT;
        if is_settled && self.guest.disable_if_closed() {
            self.settling = None;
            self.count_burst();
        }
    }

    /// All of a burst has come, if anything did.
    fn count_burst(&mut self) {
        let moved = self.guest.pool.moved.load(Ordering::Relaxed);
        let in_vain = &mut self.canary.in_vain;
        if moved != in_vain.moved {
            *in_vain = InVain {
                moved,
                ..InVain::default()
            };
            return;
        }
        in_vain.bursts += 1;
        let InVain { bursts, calls, .. } = *in_vain;
        if calls > SILENT_BURSTS_CALLS && bursts >= SILENT_BURSTS {
            *in_vain = InVain {
                moved,
                ..InVain::default()
            };
            self.replaced(&format!(
                "no record came in {bursts} bursts though the program made {calls} CUDA calls in them"
            ));
        }
    }

    /// Flushes CUPTI and takes note of what is lost; true if buffers moved.
    fn flush(&mut self, forced: bool) -> bool {
        let losses = &self.guest.losses;
        // Not so where counters alone are sampled.
        if let Some(attached) = self.guest.attached.get() {
            attached.flush(forced);
            losses.add("records", Reason::DroppedByCupti, Some(attached.dropped()));
        }
        losses.add(
            "records",
            Reason::BuffersExhausted,
            Some(self.guest.pool.overflowed.swap(0, Ordering::Relaxed)),
        );
        if self.guest.pool.foreign.load(Ordering::Relaxed) > 0 {
            self.guest.problem(
                "foreign_buffers",
                "CUPTI gave us buffers that another profiler in this process had lent it (torch.profiler?); its \
                 profile lacks their records"
                    .to_owned(),
            );
        }
        let moved = self.guest.pool.moved.load(Ordering::Relaxed);
        let brought = moved != self.canary.moved;
        self.canary.moved = moved;
        self.delivered = std::mem::replace(&mut self.closed, self.guest.windows.closed());
        brought
    }

    /// Looks after each flush of an open window whether records still come.
    fn listen_to_canary(&mut self, brought: bool) {
        // Of ids, those of the program: our own marks take one each.
        let mark = self.guest.attached.get().and_then(|attached| {
            let mark = attached.mark()?;
            Some(mark.wrapping_sub(attached.marks.load(Ordering::Relaxed)))
        });
        match (mark, self.canary.last) {
            (Some(mark), Some((since, then))) if !brought => {
                let calls = mark.wrapping_sub(then);
                if since.elapsed() > SILENCE && calls > SILENCE_CALLS {
                    self.canary.silent = Some(Silence { since, calls });
                }
            }
            (mark, _) => {
                self.canary.last = mark.map(|mark| (Instant::now(), mark));
                self.canary.silent = None;
            }
        }
    }

    /// The window closed: if records had stopped coming, what they were is lost.
    fn bury_canary(&mut self) {
        self.canary.last = None;
        if let Some(silence) = self.canary.silent.take() {
            self.replaced(&format!(
                "no record came in the last {:.1} s of a window though the program made {} CUDA calls",
                silence.since.elapsed().as_secs_f64(),
                silence.calls
            ));
        }
    }

    /// After the last, forced flush CUPTI has no buffer of ours any more, unless somebody else gets them, or threads that
    /// launch on asked for new ones meanwhile.
    fn count_missing_buffers(&self, requests: u64) {
        let lent = self.guest.pool.lent.load(Ordering::Relaxed);
        if lent > 0 && self.guest.pool.requests.load(Ordering::Relaxed) == requests {
            self.replaced(&format!("{lent} buffers never came back from CUPTI"));
        }
    }

    fn replaced(&self, what: &str) {
        self.guest.losses.add("records", Reason::CallbacksReplaced, None);
        self.guest.problem(
            "callbacks_replaced",
            format!(
                "{what}: another CUPTI client in the process (torch.profiler?) took them over; close that client, then \
                 run again"
            ),
        );
    }

    /// Flushes, and has what came sealed; true if buffers moved.
    pub(crate) fn flush_and_seal(&mut self, wait: Option<Duration>) -> bool {
        let brought = self.flush(false);
        self.request_seal(wait);
        brought
    }

    /// Flushes until the closed windows are on disk: who asks to stop may end the process next.
    pub(crate) fn deliver(&mut self) {
        for _ in 0..FINISH_FLUSHES {
            self.flush_and_seal(Some(SEAL_TIMEOUT));
            if self.guest.windows.sealed() >= self.guest.windows.closed() {
                break;
            }
            std::thread::sleep(DRAIN_FIRST);
        }
    }

    /// Asks the writer to seal; waits for it if a limit is given. False if it did not answer in time. One question at a
    /// time: behind a writer that a slow disk holds up, more of them would take the buffers' room in its channel.
    fn request_seal(&mut self, wait: Option<Duration>) -> bool {
        let Some(writer) = self.guest.writer.get() else {
            return true;
        };
        let until = Instant::now() + wait.unwrap_or_default();
        if let Some(asked) = self.seal_asked.take()
            && asked.recv_deadline(until) == Err(RecvTimeoutError::Timeout)
        {
            self.seal_asked = Some(asked);
            return false;
        }
        let (done, answer) = bounded(1);
        let message = Message::Seal {
            done,
            closed: self.delivered,
        };
        if writer.send_deadline(message, until).is_err() {
            return false;
        }
        if wait.is_some() && answer.recv_deadline(until).is_ok() {
            return true;
        }
        self.seal_asked = Some(answer);
        wait.is_none()
    }

    /// The last flushes of a process that ends; false if what came could not be sealed in time.
    pub(crate) fn finish(&mut self) -> bool {
        let requests = self.guest.pool.requests.load(Ordering::Relaxed);
        // Records that are on their way come within a few flushes.
        for _ in 0..FINISH_FLUSHES {
            if !self.flush(false) {
                break;
            }
            std::thread::sleep(DRAIN_FIRST);
        }
        self.bury_canary();
        // What is still in flight at exit comes with end = 0 and is counted as lost.
        self.flush(true);
        self.count_missing_buffers(requests);
        self.delivered = self.guest.windows.closed();
        self.request_seal(Some(SEAL_TIMEOUT))
    }
}
