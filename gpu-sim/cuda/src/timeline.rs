//! When the GPU does what. A stream runs its work in order; each operation's times are settled when it is submitted,
//! and waiting for it means waiting until that time has come, so that timestamps are as honest as a real GPU's.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sim_abi::now_ns;

/// From the launch until an idle GPU begins.
const LATENCY_NS: u64 = 2_200;
/// Between two operations of one stream; within a graph it is shorter.
const GAP_NS: u64 = 900;
/// Between two nodes of a graph.
pub(crate) const GRAPH_GAP_NS: u64 = 500;
/// A sleep may overshoot by this much (timer slack is 50 us): the rest is waited for awake.
const SLEEP_MARGIN_NS: u64 = 70_000;

/// How many times faster than an H100 the GPU is: `COLONEL_SIM_SPEED`, default 1.
pub(crate) fn speed() -> u64 {
    static SPEED: OnceLock<u64> = OnceLock::new();
    *SPEED.get_or_init(|| speed_of(std::env::var("COLONEL_SIM_SPEED").ok().as_deref()))
}

fn speed_of(value: Option<&str>) -> u64 {
    value
        .and_then(|value| value.parse().ok())
        .filter(|speed| *speed > 0)
        .unwrap_or(1)
}

/// A duration on this GPU: at least a nanosecond.
pub(crate) fn scaled(ns: u64) -> u64 {
    (ns / speed()).max(1)
}

/// The order of one stream: the time at which it will be done with all that it was given.
pub(crate) struct Timeline {
    free_at: AtomicU64,
}

impl Timeline {
    pub(crate) const fn new() -> Self {
        Timeline {
            free_at: AtomicU64::new(0),
        }
    }

    /// Appends work of `length_ns` and returns when it starts.
    pub(crate) fn append(&self, length_ns: u64) -> u64 {
        self.append_at(now_ns(), length_ns)
    }

    fn append_at(&self, now: u64, length_ns: u64) -> u64 {
        let earliest = now + scaled(LATENCY_NS);
        let start = |free_at: u64| earliest.max(free_at + scaled(GAP_NS));
        let update = |free_at| Some(start(free_at) + length_ns);
        // The closure never refuses, so both variants hold the time before.
        let (Ok(before) | Err(before)) = self.free_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
        start(before)
    }

    /// When all work given so far is done.
    pub(crate) fn done_at(&self) -> u64 {
        self.free_at.load(Ordering::Acquire)
    }

    /// Nothing appended from now on starts before `time`.
    pub(crate) fn hold_until(&self, time: u64) {
        self.free_at.fetch_max(time, Ordering::AcqRel);
    }
}

/// Returns once `time` has passed.
pub(crate) fn wait_until(time: u64) {
    loop {
        let now = now_ns();
        if now >= time {
            return;
        }
        match time - now {
            left if left > SLEEP_MARGIN_NS => std::thread::sleep(Duration::from_nanos(left - SLEEP_MARGIN_NS)),
            left if left > 5_000 => std::thread::yield_now(),
            _ => std::hint::spin_loop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_stream_starts_after_the_latency_and_a_busy_one_after_what_it_has() {
        let timeline = Timeline::new();
        assert_eq!(timeline.append_at(1_000_000, 3_000), 1_000_000 + LATENCY_NS);
        assert_eq!(timeline.done_at(), 1_000_000 + LATENCY_NS + 3_000);
        assert_eq!(
            timeline.append_at(1_000_100, 10),
            1_000_000 + LATENCY_NS + 3_000 + GAP_NS
        );
        assert_eq!(timeline.append_at(9_000_000, 10), 9_000_000 + LATENCY_NS);
    }

    #[test]
    fn a_held_stream_does_not_start_early_and_a_past_hold_changes_nothing() {
        let timeline = Timeline::new();
        timeline.hold_until(5_000_000);
        assert_eq!(timeline.append_at(1_000_000, 10), 5_000_000 + GAP_NS);
        timeline.hold_until(7);
        assert_eq!(timeline.done_at(), 5_000_000 + GAP_NS + 10);
    }

    #[test]
    fn waiting_ends_at_the_time_and_not_before() {
        let time = now_ns() + 300_000;
        wait_until(time);
        assert!(now_ns() >= time);
        wait_until(1);
    }

    #[test]
    fn speed_is_a_positive_number_or_one() {
        assert_eq!(speed_of(Some("64")), 64);
        assert_eq!([None, Some("0"), Some("fast")].map(speed_of), [1, 1, 1]);
    }
}
