//! How far the clock of the samples is from that of the kernels: the offset at which the samples are told best.

use crate::analysis::speed_of_light::fit::Normal;
use crate::analysis::speed_of_light::samples::Samples;
use crate::analysis::speed_of_light::timeline::Stretch;

/// Looked for this far to both sides, in such steps at first.
const REACH_NS: i64 = 20_000;
const STEP_NS: i64 = 2_000;
/// Then to this.
const PRECISION_NS: i64 = 20;
/// Columns that are told apart meanwhile: those with most time.
const COLUMNS: u32 = 64;
/// Pieces of the capture that are looked at, and samples of each.
const PIECES: usize = 8;
const PIECE_SAMPLES: usize = 1_000;
/// Both clocks are the GPU's, put onto the host's by CUPTI: on an H100 they agreed this well.
const AGREED_NS: f64 = 300.0;
/// Another offset than none is believed where it takes away this part of what none leaves. Less has other reasons: a kernel's
/// memory traffic lags behind its start, and its last blocks leave the GPU half empty. On an H100 that was up to an eighth, with
/// offsets of -2 to 2 us, others for each set of metrics.
const GAIN: f64 = 0.25;

/// The offset, and its standard deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Offset {
    pub(super) ns: i64,
    pub(super) sd_ns: f64,
}

pub(super) fn estimate(samples: &Samples, stretches: &[Stretch], columns: usize) -> Offset {
    let stretches: Vec<Stretch> = stretches
        .iter()
        .map(|stretch| Stretch {
            column: if stretch.column < COLUMNS { stretch.column } else { 1 },
            ..*stretch
        })
        .collect();
    let columns = columns.min(COLUMNS as usize);
    let pieces = pieces(samples.len());
    let of_piece =
        |piece: &std::ops::Range<usize>, offset: i64| Normal::of(samples, piece.clone(), &stretches, offset, columns);
    let of_all = |offset: i64| {
        let mut normal = Normal::new(columns, samples.values.len());
        pieces.iter().for_each(|piece| normal.merge(&of_piece(piece, offset)));
        normal.residual()
    };
    let none = of_all(0);
    let grid = (-REACH_NS..=REACH_NS)
        .step_by(STEP_NS as usize)
        .map(|offset| (offset, of_all(offset)));
    let best = grid.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(offset, _)| offset);
    let ns = smallest(best, STEP_NS, of_all);
    let is_believed = none - of_all(ns) > GAIN * none;
    let used = if is_believed { ns } else { 0 };
    Offset {
        ns: used,
        // What fits better and is not believed may yet be so: it lies within the interval.
        sd_ns: AGREED_NS.max((ns - used).abs() as f64 / 2.0),
    }
}

/// Stretches of neighbouring samples, evenly over all.
fn pieces(count: usize) -> Vec<std::ops::Range<usize>> {
    (0..PIECES)
        .map(|piece| {
            let start = piece * count / PIECES;
            start..((piece + 1) * count / PIECES).min(start + PIECE_SAMPLES)
        })
        .filter(|piece| !piece.is_empty())
        .collect()
}

/// Where the function is smallest, by golden section.
fn smallest(around: i64, reach: i64, function: impl Fn(i64) -> f64) -> i64 {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    let (mut low, mut high) = (around - reach, around + reach);
    let inner = |low: i64, high: i64| ((high - low) as f64 * GOLDEN) as i64;
    let (mut left, mut right) = (high - inner(low, high), low + inner(low, high));
    let (mut at_left, mut at_right) = (function(left), function(right));
    while high - low > PRECISION_NS {
        if at_left < at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - inner(low, high);
            at_left = function(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + inner(low, high);
            at_right = function(right);
        }
    }
    i64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_is_found() {
        let found = smallest(0, 1_000, |offset| ((offset - 317) as f64).powi(2));
        assert!((found - 317).abs() <= PRECISION_NS, "{found}");
    }
}
