//! How often the comparison is wrong, on runs made up of steps that drift: two windows of one run, and two of which the second
//! has a kernel that takes 5 % longer. `scripts/figures/compare.sh` prints the whole table, which docs/measurements keeps.

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use statrs::distribution::{ContinuousCDF as _, Normal};

use super::cells::{Cell, RowSum, Series};
use super::gather::{KindSteps, RowTotals, Side};
use super::{By, Comparison, Verdict};
use crate::analysis::durations::DurationCounts;
use crate::analysis::phases::Phase;

const KERNELS: usize = 20;
/// The kernel that becomes slower: a tenth of a step.
const PLANTED: usize = 3;
/// Relative noise of a step, and as much of each kernel in it. Kernels in the steps of an H100 have about as much,
const NOISE: f64 = 0.01;
/// and with twice that the rule of 1 % hides nothing.
const MUCH: f64 = 0.02;

/// How one step depends on the one before.
#[derive(Debug, Clone, Copy)]
struct Run {
    steps: usize,
    noise: f64,
    /// Correlation of a step with the next.
    memory: f64,
    /// Part of the variance that drifts so slowly that a window sees little of it.
    drift: f64,
}

struct Dice {
    random: Pcg64Mcg,
    normal: Normal,
}

impl Dice {
    fn new(seed: u64) -> Self {
        Self {
            random: Pcg64Mcg::seed_from_u64(seed),
            normal: Normal::new(0.0, 1.0).unwrap(),
        }
    }

    fn noise(&mut self) -> f64 {
        self.normal.inverse_cdf(self.random.random_range(1e-12..1.0))
    }

    /// Noise of variance 1 in which each value remembers the one before.
    fn series(&mut self, length: usize, memory: f64) -> Vec<f64> {
        let mut value = self.noise();
        (0..length)
            .map(|_| {
                let now = value;
                value = memory * value + (1.0 - memory * memory).sqrt() * self.noise();
                now
            })
            .collect()
    }
}

/// Two windows of one run, one after the other. In the second the planted kernel takes `slowdown` longer.
fn windows(run: Run, slowdown: f64, seed: u64) -> [Side; 2] {
    let mut dice = Dice::new(seed);
    let length = 2 * run.steps;
    let quick = dice.series(length, run.memory);
    let slow = dice.series(length, 0.99);
    let of_kernels: Vec<Vec<f64>> = (0..KERNELS).map(|_| dice.series(length, run.memory)).collect();
    let mut windows = [0, 1].map(|_| Window::default());
    for step in 0..length {
        let window = step / run.steps;
        let common = (1.0 - run.drift).sqrt() * quick[step] + run.drift.sqrt() * slow[step];
        // Now and then a whole step is slower, as when clocks fall.
        let is_slow = dice.random.random_range(0..200) == 0;
        let fall = if is_slow { 1.1 } else { 1.0 };
        let rows = (0..KERNELS).map(|kernel| {
            let base = 50_000.0 / (kernel + 2) as f64;
            let planted = if window == 1 && kernel == PLANTED {
                slowdown
            } else {
                0.0
            };
            let ns = base * (1.0 + planted) * (1.0 + run.noise * (common + of_kernels[kernel][step])) * fall;
            RowSum {
                row: u32::try_from(kernel).unwrap(),
                ns: ns as i64,
                launches: 24,
            }
        });
        windows[window].push(step as i64, rows.collect());
    }
    windows.map(Window::finish)
}

#[derive(Default)]
struct Window {
    rows: Vec<RowTotals>,
    series: Series,
    lengths: DurationCounts,
    steps: u64,
}

impl Window {
    fn push(&mut self, start_ns: i64, rows: Vec<RowSum>) {
        self.rows.resize_with(KERNELS, RowTotals::default);
        for sum in &rows {
            let row = &mut self.rows[sum.row as usize];
            row.text = format!("kernel {}", char::from(b'a' + u8::try_from(sum.row).unwrap()));
            row.launches += sum.launches;
            row.total_ns += sum.ns;
        }
        let kernels_ns = rows.iter().map(|row| row.ns).sum();
        self.lengths.add(kernels_ns);
        self.steps += 1;
        self.series.push(Cell {
            start_ns,
            steps: 1,
            length_ns: kernels_ns,
            kernels_ns,
            rows,
        });
    }

    fn finish(self) -> Side {
        let kind = KindSteps {
            phase: Phase::Decode,
            batch: None,
            steps: self.steps,
            lengths: self.lengths,
            cells: self.series.cells().to_vec(),
            sequence: Vec::new(),
        };
        Side {
            rows: self.rows,
            kinds: vec![kind],
            ..Side::default()
        }
    }
}

/// Of so many pairs, each a share.
#[derive(Debug, Default)]
struct Rates {
    /// `no difference` in all.
    same_in_all: f64,
    /// The interval in all leaves out 0, whatever the words say.
    interval_missed: f64,
    /// Pairs with a row that is said to differ, other than the planted one.
    wrong_row: f64,
    /// The planted one is said to be slower.
    found: f64,
    /// Half of the interval in all, relative.
    half_width: f64,
}

fn rates(run: Run, slowdown: f64, pairs: u64) -> Rates {
    let mut rates = Rates::default();
    let share = 1.0 / pairs as f64;
    for seed in 0..pairs {
        let [a, b] = &windows(run, slowdown, seed);
        let compared = Comparison::of_sides([a, b], By::Kernel);
        let in_all = compared.kernels_in_all;
        let (low, high) = in_all.low.zip(in_all.high).unwrap();
        let planted = |name: &str| name == "kernel d";
        let differs = |row: &&super::ComparedRow| row.change.verdict != Some(Verdict::NoDifference);
        let is = |yes: bool| if yes { share } else { 0.0 };
        rates.same_in_all += is(compared.verdict() == Verdict::NoDifference);
        rates.interval_missed += is(low > 0.0 || high < 0.0);
        rates.half_width += share * (high - low) / 2.0;
        let mut rows = compared.rows.iter();
        rates.wrong_row += is(rows.clone().filter(differs).any(|row| !planted(&row.name)));
        rates.found += is(rows.any(|row| planted(&row.name) && row.change.verdict == Some(Verdict::Slower)));
    }
    rates
}

/// Independent steps, steps that remember the last two, and a slow drift beside those.
fn runs(steps: usize, noise: f64) -> [Run; 3] {
    let run = |memory, drift| Run {
        steps,
        noise,
        memory,
        drift,
    };
    [run(0.0, 0.0), run(0.5, 0.0), run(0.5, 0.05)]
}

#[test]
fn two_windows_of_a_run_are_no_different() {
    for run in runs(100, MUCH) {
        let rates = rates(run, 0.0, 200);
        assert!(rates.same_in_all >= 0.95, "{run:?}: {rates:?}");
        assert!(rates.wrong_row <= 0.05, "{run:?}: {rates:?}");
        assert!(
            rates.half_width < 0.02,
            "it is not just that all is within chance: {run:?}: {rates:?}"
        );
    }
}

#[test]
fn a_kernel_that_takes_5_percent_longer_is_found() {
    for run in runs(100, NOISE) {
        let rates = rates(run, 0.05, 50);
        assert!(rates.found >= 0.9, "{run:?}: {rates:?}");
    }
}

#[test]
#[ignore = "a table for docs/measurements: scripts/figures/compare.sh"]
fn table() {
    const PAIRS: u64 = 400;
    let mut lines = Vec::new();
    for steps in [8, 15, 50, 100, 200, 1_000] {
        for noise in [NOISE, MUCH] {
            let more = [0.8, 0.9, 0.95].map(|memory| Run {
                memory,
                ..runs(steps, noise)[0]
            });
            for run in runs(steps, noise).into_iter().chain(more) {
                let (same, slower) = (rates(run, 0.0, PAIRS), rates(run, 0.05, PAIRS));
                lines.push(serde_json::json!({
                    "steps": run.steps, "noise": run.noise, "memory": run.memory, "drift": run.drift, "pairs": PAIRS,
                    "no_difference_in_all": same.same_in_all, "interval_leaves_out_0": same.interval_missed,
                    "a_row_is_wrong": same.wrong_row, "half_width": same.half_width,
                    "planted_found": slower.found, "another_row_is_wrong": slower.wrong_row,
                }));
            }
        }
    }
    let path = std::env::var("COLONEL_FIGURES").unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(path, text).unwrap();
}
