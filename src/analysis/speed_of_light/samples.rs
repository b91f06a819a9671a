//! Samples of a device, and what part of each a column of the fit had.

use crate::analysis::speed_of_light::timeline::{IDLE, Stretch};

/// Samples in the order of start, without overlap.
#[derive(Debug, Default, Clone)]
pub(super) struct Samples {
    pub(super) starts: Vec<i64>,
    pub(super) ends: Vec<i64>,
    /// By metric, then sample.
    pub(super) values: Vec<Vec<f64>>,
}

impl Samples {
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Median length, ns; 0 without samples.
    pub(super) fn length_ns(&self) -> i64 {
        let mut lengths: Vec<i64> = self
            .starts
            .iter()
            .zip(&self.ends)
            .map(|(start, end)| end - start)
            .collect();
        let middle = lengths.len() / 2;
        if lengths.is_empty() {
            0
        } else {
            *lengths.select_nth_unstable(middle).1
        }
    }

    /// Puts them in order, and takes out those in which a metric has no value.
    pub(super) fn tidy(&mut self) {
        let is_whole = |sample: &usize| self.values.iter().all(|values| values[*sample].is_finite());
        let mut order: Vec<usize> = (0..self.len()).filter(is_whole).collect();
        order.sort_by_key(|sample| self.starts[*sample]);
        self.take(&order);
    }

    /// Leaves those that lie within one of these stretches of time, which are in order.
    pub(super) fn keep_within(&mut self, known: &[(i64, i64)]) {
        let is_known = |sample: &usize| {
            let next = known.partition_point(|(start, _)| *start <= self.starts[*sample]);
            next > 0 && self.ends[*sample] <= known[next - 1].1
        };
        let kept: Vec<usize> = (0..self.len()).filter(is_known).collect();
        self.take(&kept);
    }

    fn take(&mut self, order: &[usize]) {
        let times = |of: &[i64]| order.iter().map(|sample| of[*sample]).collect();
        (self.starts, self.ends) = (times(&self.starts), times(&self.ends));
        for values in &mut self.values {
            *values = order.iter().map(|sample| values[*sample]).collect();
        }
    }
}

/// A sample's row of the fit: its number, and the columns that had a part of it, with that part.
pub(super) type Row<'a> = (usize, &'a [(u32, f64)]);

/// Calls `take` for the samples of a range, with stretches moved by `offset_ns`.
pub(super) fn each_row(
    samples: &Samples,
    range: std::ops::Range<usize>,
    stretches: &[Stretch],
    offset_ns: i64,
    mut take: impl FnMut(Row<'_>),
) {
    let Some(&first) = samples.starts.get(range.start) else {
        return;
    };
    let mut next = stretches.partition_point(|stretch| stretch.end + offset_ns <= first);
    let mut row: Vec<(u32, f64)> = Vec::new();
    for sample in range {
        let (start, end) = (samples.starts[sample], samples.ends[sample]);
        let length = (end - start) as f64;
        while stretches
            .get(next)
            .is_some_and(|stretch| stretch.end + offset_ns <= start)
        {
            next += 1;
        }
        row.clear();
        let mut idle = length;
        for stretch in &stretches[next..] {
            if stretch.start + offset_ns >= end {
                break;
            }
            let overlap = (stretch.end + offset_ns).min(end) - (stretch.start + offset_ns).max(start);
            idle -= overlap as f64;
            let part = overlap as f64 / length;
            match row.iter_mut().find(|(column, _)| *column == stretch.column) {
                Some((_, parts)) => *parts += part,
                None => row.push((stretch.column, part)),
            }
        }
        if idle > 0.0 {
            row.push((IDLE, idle / length));
        }
        take((sample, &row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_parts_of_each_column() {
        let samples = Samples {
            starts: vec![0, 10, 20],
            ends: vec![10, 20, 30],
            values: vec![vec![1.0, f64::NAN, 3.0]],
        };
        let stretch = |start, end, column| Stretch { start, end, column };
        let stretches = [stretch(-4, 2, 2), stretch(5, 9, 3), stretch(9, 25, 2)];
        let mut rows = Vec::new();
        each_row(&samples, 0..3, &stretches, 0, |(_, row)| rows.push(row.to_vec()));
        let expected = [
            vec![(2, 0.30000000000000004), (3, 0.4), (0, 0.3)],
            vec![(2, 1.0)],
            vec![(2, 0.5), (0, 0.5)],
        ];
        assert_eq!(rows, expected);
        rows.clear();
        each_row(&samples, 1..2, &stretches, 5, |(_, row)| rows.push(row.to_vec()));
        assert_eq!(rows, [vec![(3, 0.4), (2, 0.6)]]);
        let mut whole = samples.clone();
        whole.tidy();
        assert_eq!((&whole.starts, &whole.values), (&vec![0, 20], &vec![vec![1.0, 3.0]]));
        whole.keep_within(&[(-5, 9), (15, 30)]);
        assert_eq!((whole.starts, whole.ends), (vec![20], vec![30]));
    }
}
