//! A device's hardware buffer: a sample an interval from the start on, as many as there is room for.

use std::collections::VecDeque;

use sim_abi::now_ns;
use sim_abi::truth::Truth;

use super::activity::{self, Busy};
use super::images::Sample;
use super::metrics::METRICS;

/// Bytes of the hardware buffer that each metric of a sample takes, about as on an H100.
const METRIC_BYTES: usize = 900;
/// A decode takes this much from the hardware buffer, whatever room its image has, as an H100 does.
const DECODE_BYTES: usize = 16 << 20;

/// What came of a decode.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Samples, and whether there is room for no more.
    Samples(Vec<Sample>, bool),
    Overflow,
}

/// Sampling of one device.
#[derive(Debug)]
pub(crate) struct Sampler {
    pub(crate) device: u32,
    pub(crate) metrics: Vec<u32>,
    interval: u64,
    /// Samples that the hardware buffer holds, and that a decode takes from it.
    room: u64,
    at_once: u64,
    /// Stretches of samples in the hardware buffer: begin of the first, and how many.
    held: VecDeque<(u64, u64)>,
    /// Everything before was sampled, or found no room; `None` before the first start.
    clock: Option<u64>,
    runs: bool,
    pub(crate) starts: u64,
}

impl Sampler {
    pub(crate) fn new(device: u32) -> Sampler {
        activity::watch();
        Sampler {
            device,
            metrics: Vec::new(),
            interval: 0,
            room: 0,
            at_once: 0,
            held: VecDeque::new(),
            clock: None,
            runs: false,
            starts: 0,
        }
    }

    pub(crate) fn configure(&mut self, metrics: Vec<u32>, buffer_bytes: usize, interval: u64, room: Option<u64>) {
        let bytes = METRIC_BYTES * metrics.len().max(1);
        self.room = room.unwrap_or((buffer_bytes / bytes) as u64);
        self.at_once = (DECODE_BYTES / bytes) as u64;
        self.metrics = metrics;
        // As on an H100, a second configuration changes nothing.
        if self.interval == 0 {
            self.interval = interval;
        }
    }

    pub(crate) fn is_configured(&self) -> bool {
        self.interval > 0
    }

    pub(crate) fn runs(&self) -> bool {
        self.runs
    }

    pub(crate) fn start(&mut self) {
        self.clock = Some(now_ns());
        self.runs = true;
        self.starts += 1;
    }

    pub(crate) fn stop(&mut self) {
        self.overflown();
        self.runs = false;
    }

    /// Lets the hardware sample until now; true where some found no room.
    fn overflown(&mut self) -> bool {
        let Some(clock) = self.clock.filter(|_| self.runs) else {
            return false;
        };
        let new = now_ns().saturating_sub(clock) / self.interval;
        let held: u64 = self.held.iter().map(|(_, count)| count).sum();
        let fits = new.min(self.room.saturating_sub(held));
        if fits > 0 {
            self.held.push_back((clock, fits));
        }
        self.clock = Some(clock + new * self.interval);
        fits < new
    }

    /// What the next decode gives, up to `most` samples. Others that it takes from the buffer are lost. An overflow of the
    /// buffer is told once, without samples.
    pub(crate) fn take(&mut self, most: usize) -> Taken {
        if self.overflown() {
            return Taken::Overflow;
        }
        let (mut samples, mut left) = (Vec::new(), self.at_once);
        if let Some((first, _)) = self.held.front() {
            let busy = activity::since(self.device, *first);
            let mut busy = &busy[..];
            while let Some((start, count)) = self.held.pop_front() {
                let taken = count.min(left);
                left -= taken;
                for index in 0..taken.min((most - samples.len()) as u64) {
                    let start = start + index * self.interval;
                    while busy.first().is_some_and(|one| one.end <= start) {
                        busy = &busy[1..];
                    }
                    samples.push(self.sample(start, busy));
                }
                if taken < count {
                    self.held.push_front((start + taken * self.interval, count - taken));
                    break;
                }
            }
        }
        let is_full = samples.len() == most;
        Taken::Samples(samples, is_full)
    }

    fn sample(&self, start: u64, busy: &[Busy]) -> Sample {
        let end = start + self.interval;
        let mut counts = vec![0; self.metrics.len()];
        for one in busy.iter().take_while(|one| one.start < end) {
            let overlap = one.end.min(end).saturating_sub(one.start.max(start));
            if overlap > 0 {
                self.add(&mut counts, &one.truth, overlap);
            }
        }
        Sample { start, end, counts }
    }

    fn add(&self, counts: &mut [u64], truth: &Truth, ns: u64) {
        for (count, number) in counts.iter_mut().zip(&self.metrics) {
            if let Some(metric) = METRICS.get(*number as usize) {
                *count += metric.count(truth, ns);
            }
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        activity::unwatch(self.device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_lost_and_said_once() {
        let mut sampler = Sampler::new(15);
        sampler.configure(vec![0], 0, 1_000, Some(10));
        sampler.start();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert_eq!(sampler.take(4), Taken::Overflow);
        sampler.stop();
        let Taken::Samples(samples, is_full) = sampler.take(1_000) else {
            panic!("an overflow is told twice");
        };
        assert!(!is_full && samples.len() >= 10);
        assert_eq!(sampler.take(10), Taken::Samples(Vec::new(), false));
    }

    #[test]
    fn what_an_image_has_no_room_for_is_lost() {
        let mut sampler = Sampler::new(14);
        sampler.configure(vec![0], 0, 1_000, Some(1_000_000));
        sampler.start();
        std::thread::sleep(std::time::Duration::from_millis(1));
        sampler.stop();
        assert!(matches!(sampler.take(4), Taken::Samples(samples, true) if samples.len() == 4));
        assert_eq!(sampler.take(10), Taken::Samples(Vec::new(), false));
    }
}
