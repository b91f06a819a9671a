//! Handing buffers back: from our own thread once they are full and all their records are finished, or in
//! `cuptiActivityFlushAll` on the thread that calls it.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cupti_sys::constants::{KIND_OVERHEAD, OVERHEAD_CUPTI_BUFFER_FLUSH, *};
use sim_abi::now_ns;

use crate::buffers::{Buffer, POOL, refuse_in_callback};
use crate::faults::{complain, faults};
use crate::kinds::KINDS_ENABLED;
use crate::records::{self, END};

/// The worker looks at least this often.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Starts the thread that hands full buffers back, once.
pub(crate) fn start_worker() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // A thread that can't be started leaves full buffers to `cuptiActivityFlushAll`.
        let _ = std::thread::Builder::new().name("sim-cupti".into()).spawn(work);
    });
}

fn work() {
    loop {
        POOL.complete_ready(now_ns());
        let wait = match POOL.next_ready_at() {
            Some(ready_at) => Duration::from_nanos(ready_at.saturating_sub(now_ns()).max(1_000)),
            None => LONGEST_WAIT,
        };
        POOL.wait_for_retired(wait.min(LONGEST_WAIT));
    }
}

/// `cuptiActivityFlushAll`. Unforced, it hands back what is finished; forced, everything, and an operation that still
/// runs then has no end.
pub(crate) fn flush_all(forced: bool) {
    static FLUSHING: AtomicBool = AtomicBool::new(false);
    refuse_in_callback("cuptiActivityFlushAll");
    if FLUSHING.swap(true, Ordering::AcqRel) {
        complain("cuptiActivityFlushAll called from two threads at once: the real CUPTI deadlocks here");
    }
    if let Some(ms) = faults().slow_flush_ms {
        std::thread::sleep(Duration::from_millis(ms));
    }
    while faults().hang_flush {
        std::thread::sleep(Duration::from_secs(1));
    }
    record_overhead();
    let begun = now_ns();
    let wanted = |buffer: &Buffer| forced || (buffer.ready_at() <= begun && !buffer.is_empty());
    let full = POOL.take_full(wanted);
    let current = POOL.take_current(wanted);
    for mut buffer in full.into_iter().chain(current) {
        if forced && buffer.ready_at() > begun {
            cut_unfinished(buffer.records_mut(), begun);
        }
        POOL.complete(buffer);
    }
    POOL.wait_for_worker();
    LAST_FLUSH[0].store(begun, Ordering::Release);
    LAST_FLUSH[1].store(now_ns(), Ordering::Release);
    FLUSHING.store(false, Ordering::Release);
}

/// Begin and end of the last flush.
static LAST_FLUSH: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Records what the flush before this one took.
fn record_overhead() {
    let [start, end] = LAST_FLUSH.each_ref().map(|time| time.load(Ordering::Acquire));
    if end != 0 && KINDS_ENABLED.is_enabled(KIND_OVERHEAD) {
        let record = records::overhead(OVERHEAD_CUPTI_BUFFER_FLUSH, start, end);
        POOL.write(|writer| records::push(writer, KIND_OVERHEAD, &record, 0));
    }
}

/// Takes the end from operations that are not finished at `now`.
fn cut_unfinished(records: &mut [u8], now: u64) {
    records::each(records, |kind, record| {
        if matches!(
            kind,
            KIND_CONCURRENT_KERNEL | KIND_KERNEL | KIND_MEMCPY | KIND_MEMCPY2 | KIND_MEMSET
        ) {
            let mut end = [0; 8];
            end.copy_from_slice(&record[END]);
            if u64::from_ne_bytes(end) + records::late_ns() > now {
                record[END].fill(0);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::strides;
    use cupti_sys::records::{Api, Kernel, Record, read};

    #[test]
    fn a_forced_flush_takes_the_end_from_what_still_runs() {
        let kernel = |end| Kernel {
            kind: KIND_CONCURRENT_KERNEL,
            start: 10,
            end,
            ..Kernel::zeroed()
        };
        let api = Api {
            kind: KIND_RUNTIME,
            start: 10,
            end: 5_000,
            ..Api::zeroed()
        };
        let size = strides().get(KIND_CONCURRENT_KERNEL).unwrap();
        let mut bytes = [
            &kernel(900).as_bytes()[..size],
            api.as_bytes(),
            &kernel(1_100).as_bytes()[..size],
        ]
        .concat();

        cut_unfinished(&mut bytes, 1_000);
        let ends = [0, size + 40].map(|at| read::<Kernel>(&bytes[at..at + size]).end);
        assert_eq!(ends, [900, 0]);
        assert_eq!(read::<Api>(&bytes[size..]).end, 5_000, "a call is no GPU work");
    }
}
