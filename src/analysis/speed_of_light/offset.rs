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
const COLUMNS: u32 = 32;
/// Pieces of the capture that are looked at, and samples of each.
const PIECES: usize = 8;
const PIECE_SAMPLES: usize = 2_000;
/// Both clocks are CUPTI's, so more than this is not believed where samples do not tell.
const PRIOR_NS: f64 = 500.0;
/// What another offset than none must explain of what none leaves, times samples: less is chance.
const GAIN: f64 = 30.0;

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
    let count: usize = pieces.iter().map(ExactSizeIterator::len).sum();
    if none - of_all(ns) < GAIN * none / count as f64 {
        return Offset { ns: 0, sd_ns: PRIOR_NS };
    }
    let by_piece = pieces
        .iter()
        .map(|piece| smallest(ns, 2 * STEP_NS, |offset| of_piece(piece, offset).residual()));
    let by_piece: Vec<f64> = by_piece.map(|offset| (offset - ns) as f64).collect();
    let spread = by_piece.iter().map(|distance| distance * distance).sum::<f64>();
    let count = by_piece.len() as f64;
    Offset {
        ns,
        sd_ns: (spread / count / (count - 1.0).max(1.0))
            .sqrt()
            .clamp(PRECISION_NS as f64, PRIOR_NS),
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
