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
    /// What the noise of a sample keeps of that of the one before.
    memory: f64,
    /// Reads from memory come so long after their kernel.
    lag_ns: i64,
    /// Of a launch's figure, a part of it.
    wobble: f64,
    offset_ns: i64,
    seed: u64,
}

const PLAIN: Setting = Setting {
    interval_us: 100.0,
    seconds: 0.4,
    noise: 1.0,
    memory: 0.0,
    lag_ns: 0,
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
    for (metric, values) in values.iter_mut().enumerate() {
        let lag = if metric == 0 { setting.lag_ns } else { 0 };
        for (run, factor) in &runs {
            let (start, end) = (run.start + lag, run.end + lag);
            let truth = truths(NAMES[run.unit as usize])[metric];
            for sample in start / interval..=(end / interval).min(count as i64 - 1) {
                let overlap = end.min((sample + 1) * interval) - start.max(sample * interval);
                values[sample as usize] += truth * factor * overlap as f64 / interval as f64;
            }
        }
        let mut noise = 0.0;
        for value in values {
            let fresh = (1.0 - setting.memory * setting.memory).sqrt() * dice.noise();
            noise = setting.memory * noise + fresh;
            *value = (*value + setting.noise * noise).max(0.0);
        }
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
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    told: usize,
    held: usize,
    untold: usize,
    error: f64,
}

impl Tally {
    /// Without what is added for the model's sake: `model` is what is left of it.
    fn add(&mut self, estimate: &Estimate, metrics: std::ops::Range<usize>, model: f64) {
        for (unit, name) in NAMES.iter().enumerate() {
            for metric in metrics.clone() {
                let truth = truths(name)[metric];
                let figure = estimate.figure(&[(u32::try_from(unit).unwrap(), 1)], metric);
                let (Some(value), Some(high)) = (figure.value, figure.high) else {
                    self.untold += 1;
                    continue;
                };
                self.told += 1;
                let half = (high - value).powi(2) - (MODEL * 100.0).powi(2) + (model * 100.0).powi(2);
                self.held += usize::from((value - truth).abs() <= half.max(0.0).sqrt());
                self.error += (value - truth).abs();
            }
        }
    }

    fn held(&self) -> f64 {
        self.held as f64 / self.told as f64
    }

    fn error(&self) -> f64 {
        self.error / self.told as f64
    }
}

/// Captures of a setting whose clocks are about as far apart as they are on an H100.
fn tallied(setting: Setting, metrics: std::ops::Range<usize>, model: f64) -> Tally {
    let mut tally = Tally::default();
    for (seed, offset_ns) in [(1, -350), (2, 210)] {
        let setting = Setting {
            seed,
            offset_ns,
            ..setting
        };
        let estimate = Estimate::new(capture(setting, |_| None)).unwrap();
        tally.add(&estimate, metrics.clone(), model);
    }
    tally
}

#[test]
fn intervals_hold_the_truth_as_often_as_they_say() {
    let settings = [
        Setting { noise: 0.2, ..PLAIN },
        Setting { noise: 1.0, ..PLAIN },
        Setting { noise: 3.0, ..PLAIN },
        Setting { memory: 0.95, ..PLAIN },
        Setting {
            noise: 2.0,
            interval_us: 20.0,
            seconds: 0.15,
            ..PLAIN
        },
    ];
    let mut all = Tally::default();
    for setting in settings {
        // What is added for the model must not be needed where the model is true.
        let tally = tallied(setting, 0..4, 0.0);
        assert!(tally.error() <= 3.0, "{setting:?}: {tally:?}");
        assert!(tally.held() >= 0.85, "{setting:?}: {tally:?}");
        all.told += tally.told;
        all.held += tally.held;
        all.untold += tally.untold;
    }
    assert!((0.85..=0.96).contains(&all.held()), "{all:?}");
    assert!(all.told > 4 * all.untold, "{all:?}");
}

#[test]
fn intervals_hold_the_truth_where_traffic_lags_behind() {
    for lag_ns in [500, 1_000, 2_000] {
        let setting = Setting { lag_ns, ..PLAIN };
        let tally = tallied(setting, 0..1, MODEL);
        assert!(tally.held() >= 0.85, "{lag_ns} ns: {tally:?}");
    }
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
fn clocks_that_are_somewhat_apart_make_intervals_wider() {
    // Too little to be told from traffic that lags.
    let mut tally = Tally::default();
    for (seed, offset_ns) in [(1, -2_000), (2, 1_500)] {
        let setting = Setting {
            offset_ns,
            seed,
            ..PLAIN
        };
        let estimate = Estimate::new(capture(setting, |_| None)).unwrap();
        assert_eq!(estimate.offset.ns, 0);
        tally.add(&estimate, 0..4, 0.0);
    }
    assert!(tally.held() >= 0.85, "{tally:?}");
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

#[test]
fn what_can_not_be_fitted_has_no_figures() {
    assert!(Estimate::new(Input::default()).is_none(), "nothing at all");
    let whole = || capture(Setting { seconds: 0.1, ..PLAIN }, |_| None);
    let without_runs = Input {
        runs: Vec::new(),
        ..whole()
    };
    assert!(Estimate::new(without_runs).is_none());
    let mut empty = whole();
    empty.runs.iter_mut().for_each(|run| run.end = run.start);
    if let Some(estimate) = Estimate::new(empty) {
        assert_eq!(estimate.figure(&[(0, 1)], 0).value, None, "runs of no length");
    }
    let once = Input {
        runs: whole().runs[..1].to_vec(),
        ..whole()
    };
    let estimate = Estimate::new(once).unwrap();
    assert_eq!(estimate.figure(&[(0, 1)], 0).trust, Trust::FewSamples, "one launch");
    assert_eq!(estimate.figure(&[(5, 1)], 0).value, None, "a kernel that never ran");
}

#[test]
fn a_kernel_that_fills_all_samples_has_their_mean() {
    let runs = (0..2_000).map(|number| Run {
        start: number * 50_000,
        end: (number + 1) * 50_000,
        unit: 0,
    });
    let input = Input {
        samples: Samples {
            starts: (0..1_000).map(|sample| sample * 100_000).collect(),
            ends: (1..=1_000).map(|sample| sample * 100_000).collect(),
            values: vec![vec![40.0; 1_000], vec![0.0; 1_000]],
        },
        runs: runs.collect(),
        units: 1,
        most: vec![Some(100.0), None],
    };
    let estimate = Estimate::new(input).unwrap();
    // What it does in each of its parts can't be told, only the mean of all.
    for (metric, mean) in [(0, 40.0), (1, 0.0)] {
        let value = estimate.figure(&[(0, 1)], metric).value;
        assert!(value.is_some_and(|value: f64| (value - mean).abs() < 0.1), "{value:?}");
    }
}

#[test]
fn lost_samples_leave_the_others_what_they_are() {
    let mut input = capture(PLAIN, |_| None);
    let of_all = Estimate::new(capture(PLAIN, |_| None)).unwrap().figure(&[(6, 1)], 2);
    let values = &mut input.samples.values[1];
    values
        .iter_mut()
        .skip(500)
        .step_by(9)
        .for_each(|value| *value = f64::NAN);
    input.samples.tidy();
    let of_most = Estimate::new(input).unwrap().figure(&[(6, 1)], 2);
    let (all, most) = (of_all.value.unwrap(), of_most.value.unwrap());
    assert!(
        (all - most).abs() < of_all.high.unwrap() - all,
        "{of_all:?} {of_most:?}"
    );
}
