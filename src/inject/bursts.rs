//! `--mode sampled`: while a window of the program's own gate is open, records are taken in short windows within it,
//! bursts, and counters all the time. What a window's end leaves behind in CUPTI stays (docs/architecture.md), so
//! between bursts a launch of a CUDA graph costs less than in one, but more than in a process without colonel.

use std::time::{Duration, Instant};

/// How long a burst is, and how long it is from one to the next in the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bursts {
    pub(crate) length: Duration,
    pub(crate) every: Duration,
}

impl Bursts {
    /// When the burst after one that began `began` begins. Up to a quarter sooner or later than `every`, so that bursts
    /// don't fall into step with a program that has a period of its own.
    pub(crate) fn next(&self, began: Instant, seed: u64) -> Instant {
        let share = f64::from(spread(seed)) / f64::from(u32::MAX);
        let next = self.every.mul_f64(0.75 + 0.5 * share);
        // A pause at least, however short `every` is.
        began + next.max(self.length + self.length / 4)
    }
}

/// The upper half of splitmix64's mixing: neighbouring seeds give unlike numbers.
fn spread(seed: u64) -> u32 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_come_as_often_as_asked_and_at_no_fixed_beat() {
        let bursts = Bursts {
            length: Duration::from_millis(20),
            every: Duration::from_secs(1),
        };
        let began = Instant::now();
        let waits: Vec<f64> = (0..10_000)
            .map(|seed| (bursts.next(began, seed) - began).as_secs_f64())
            .collect();
        let mean = waits.iter().sum::<f64>() / waits.len() as f64;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        assert!(waits.iter().all(|wait| (0.75..=1.25).contains(wait)));
        let early = waits.iter().filter(|wait| **wait < 0.875).count();
        assert!(
            (2_300..2_700).contains(&early),
            "evenly spread: {early} of 10,000 in the first quarter"
        );
    }

    #[test]
    fn bursts_never_touch() {
        let bursts = Bursts {
            length: Duration::from_millis(20),
            every: Duration::from_millis(21),
        };
        let began = Instant::now();
        assert!((0..1_000).all(|seed| bursts.next(began, seed) - began >= Duration::from_millis(25)));
    }
}
