//! How often the intervals hold the truth, on kernels made up as gpu-sim's are.

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use sim_abi::truth::Truth;
use statrs::distribution::{ContinuousCDF as _, Normal};

use super::estimate::{Estimate, Input, MODEL, Trust};
use super::samples::Samples;
use super::timeline::Run;

const NAMES: [&str; 12] = [
    "_Z7rmsnormPf",
    "_Z4gemm_qkvPf",
    "_Z4ropePf",
    "_Z9attentionPf",
    "_Z8gemm_outPf",
    "_Z3addPf",
    "_Z7gemm_upPf",
    "_Z4siluPf",
    "_Z9gemm_downPf",
    "_Z7copy_kvPf",
    "_Z6samplePf",
    "_Z6gatherPf",
];
const DURATIONS_US: [f64; 12] = [2.0, 8.0, 2.2, 6.0, 5.0, 2.4, 12.0, 3.0, 9.0, 2.1, 15.0, 4.0];

/// A capture that is made up.
#[derive(Debug, Clone, Copy)]
struct Setting {
    interval_us: f64,
    seconds: f64,
    /// Standard deviation of a sample's value, points.
    noise: f64,
    /// Of a launch's figure, a part of it.
    wobble: f64,
    offset_ns: i64,
    seed: u64,
}

const PLAIN: Setting = Setting {
    interval_us: 100.0,
    seconds: 1.0,
    noise: 1.0,
    wobble: 0.03,
    offset_ns: 200,
    seed: 1,
};

fn truths(name: &str) -> [f64; 4] {
    let truth = Truth::of_kernel(name);
    [truth.dram_read_pct, truth.tensor_pct, truth.sm_pct, truth.active_pct]
}

struct Dice(Pcg64Mcg, Normal);

impl Dice {
    fn noise(&mut self) -> f64 {
        self.1.inverse_cdf(self.0.random_range(1e-12..1.0))
    }
}

/// Layers of all kernels but the last two, which come once a step; durations, figures and gaps vary.
fn capture(setting: Setting, mut extra: impl FnMut(&Run) -> Option<Run>) -> Input {
    let mut dice = Dice(Pcg64Mcg::seed_from_u64(setting.seed), Normal::new(0.0, 1.0).unwrap());
    let end_ns = (setting.seconds * 1e9) as i64;
    let mut runs: Vec<(Run, f64)> = Vec::new();
    let mut now = 0.0;
    while (now as i64) < end_ns {
        for kernel in (0..6).flat_map(|_| 0..10).chain(10..12) {
            let duration = DURATIONS_US[kernel] * 1e3 * (1.0 + 0.03 * dice.noise());
            let run = Run {
                start: now as i64,
                end: (now + duration) as i64,
                unit: u32::try_from(kernel).unwrap(),
            };
            let beside = extra(&run);
            runs.extend(
                [Some(run), beside]
                    .into_iter()
                    .flatten()
                    .map(|run| (run, 1.0 + setting.wobble * dice.noise())),
            );
            now += duration + 300.0 + 500.0 * dice.0.random_range(0.0..1.0);
        }
        now += 15_000.0 + 10_000.0 * dice.0.random_range(0.0..1.0);
    }
    let interval = (setting.interval_us * 1e3) as i64;
    let count = usize::try_from(end_ns / interval).unwrap();
    let mut values = vec![vec![0.0; count]; 4];
    for (run, factor) in &runs {
        let first = run.start / interval;
        for sample in first..=run.end / interval {
            let Ok(index) = usize::try_from(sample) else { continue };
            let overlap = run.end.min((sample + 1) * interval) - run.start.max(sample * interval);
            if index < count && overlap > 0 {
                let truth = truths(NAMES[run.unit as usize]);
                for (values, truth) in values.iter_mut().zip(truth) {
                    values[index] += truth * factor * overlap as f64 / interval as f64;
                }
            }
        }
    }
    for value in values.iter_mut().flatten() {
        *value = (*value + setting.noise * dice.noise()).max(0.0);
    }
    let starts: Vec<i64> = (0..count as i64)
        .map(|sample| sample * interval + setting.offset_ns)
        .collect();
    Input {
        samples: Samples {
            ends: starts.iter().map(|start| start + interval).collect(),
            starts,
            values,
        },
        runs: runs.into_iter().map(|(run, _)| run).collect(),
        units: NAMES.len(),
        most: vec![Some(100.0); 4],
    }
}

/// Figures told, those whose interval holds the truth, and the sum of errors.
#[derive(Debug, Default)]
struct Tally {
    told: usize,
    held: usize,
    untold: usize,
    error: f64,
}

impl Tally {
    fn add(&mut self, estimate: &Estimate) {
        for (unit, name) in NAMES.iter().enumerate() {
            for (metric, truth) in truths(name).into_iter().enumerate() {
                let figure = estimate.figure(&[(u32::try_from(unit).unwrap(), 1)], metric);
                let (Some(value), Some(high)) = (figure.value, figure.high) else {
                    self.untold += 1;
                    continue;
                };
                self.told += 1;
                // What is added for the model must not be needed where the model is true.
                let half = ((high - value).powi(2) - (MODEL * 100.0).powi(2)).max(0.0).sqrt();
                self.held += usize::from((value - truth).abs() <= half);
                self.error += (value - truth).abs();
            }
        }
    }
}

#[test]
fn intervals_hold_the_truth_as_often_as_they_say() {
    let mut all = Tally::default();
    for (noise, interval_us) in [(0.2, 100.0), (1.0, 100.0), (3.0, 100.0), (2.0, 20.0)] {
        let mut tally = Tally::default();
        for seed in 0..2 {
            let setting = Setting {
                seconds: interval_us / 100.0,
                noise,
                interval_us,
                seed,
                offset_ns: 250 - 400 * i64::try_from(seed).unwrap(),
                ..PLAIN
            };
            let estimate = Estimate::new(capture(setting, |_| None)).unwrap();
            tally.add(&estimate);
        }
        let error = tally.error / tally.told as f64;
        eprintln!("noise {noise} every {interval_us}: {tally:?} {:.3} {error:.2}", tally.held as f64/tally.told as f64);
        assert!(error <= 3.0, "noise {noise}, every {interval_us} us: {error}");
        assert!(
            tally.held as f64 >= 0.82 * tally.told as f64,
            "noise {noise}, every {interval_us} us: {tally:?}"
        );
        all.told += tally.told;
        all.held += tally.held;
        all.untold += tally.untold;
    }
    let held = all.held as f64 / all.told as f64;
    assert!(held >= 0.9, "{all:?}");
    assert!(all.told > 4 * all.untold, "{all:?}");
}

#[test]
fn clocks_that_are_far_apart_are_put_together() {
    for offset_ns in [-9_000, 6_300] {
        let setting = Setting {
            offset_ns,
            noise: 0.3,
            ..PLAIN
        };
        let estimate = Estimate::new(capture(setting, |_| None)).unwrap();
        assert!(
            (estimate.offset.ns - offset_ns).abs() < 300,
            "{offset_ns}: {:?}",
            estimate.offset
        );
    }
}

#[test]
fn what_always_runs_beside_another_has_no_figure() {
    // The copy runs on another stream while the attention does, always.
    let beside = |run: &Run| (run.unit == 3).then_some(Run { unit: 9, ..*run });
    let mut input = capture(PLAIN, beside);
    input.runs.retain({
        let mut last = None;
        move |run| {
            // The copies of the layer itself, alone, are none here.
            let keep = run.unit != 9 || last == Some(3);
            last = Some(run.unit);
            keep
        }
    });
    let estimate = Estimate::new(input).unwrap();
    for unit in [3, 9] {
        assert_eq!(estimate.figure(&[(unit, 1)], 0).trust, Trust::Concurrent);
    }
}

#[test]
fn neighbours_of_a_fixed_rhythm_are_not_told_apart() {
    // Two kernels share each sample in the same parts: only their mixture is known.
    let interval = 100_000;
    let count = 3_000;
    let runs = (0..count).flat_map(|sample| {
        let start = sample * interval;
        let run = |from: i64, to: i64, unit| Run {
            start: start + from,
            end: start + to,
            unit,
        };
        // A third one comes and goes by itself.
        let third = (sample % 7 < 3).then(|| run(60_000, 90_000, 2));
        let pair = (sample % 5 > 0).then(|| [run(10_000, 20_000, 0), run(20_000, 50_000, 1)]);
        pair.into_iter().flatten().map(Some).chain([third]).collect::<Vec<_>>()
    });
    let mut dice = Dice(Pcg64Mcg::seed_from_u64(5), Normal::new(0.0, 1.0).unwrap());
    let value = |sample: i64| {
        let pair = if sample % 5 > 0 { 0.1 * 80.0 + 0.3 * 20.0 } else { 0.0 };
        pair + if sample % 7 < 3 { 0.3 * 50.0 } else { 0.0 }
    };
    let input = Input {
        samples: Samples {
            starts: (0..count).map(|sample| sample * interval).collect(),
            ends: (0..count).map(|sample| (sample + 1) * interval).collect(),
            values: vec![(0..count).map(|sample| value(sample) + 0.5 * dice.noise()).collect()],
        },
        runs: runs.flatten().collect::<Vec<_>>(),
        units: 3,
        most: vec![Some(100.0)],
    };
    let estimate = Estimate::new(input).unwrap();
    for unit in [0, 1] {
        let figure = estimate.figure(&[(unit, 1)], 0);
        assert_eq!((figure.value, figure.trust), (None, Trust::Inseparable));
    }
    let third = estimate.figure(&[(2, 1)], 0);
    assert!((third.value.unwrap() - 50.0).abs() < 1.0, "{third:?}");
}

#[test]
fn too_few_samples_give_no_figure() {
    let short = Setting { seconds: 0.01, ..PLAIN };
    let figure = Estimate::new(capture(short, |_| None)).map(|estimate| estimate.figure(&[(0, 1)], 0));
    assert!(figure.is_none_or(|figure| figure.value.is_none()), "{figure:?}");
}
