//! Exact statistics of durations: they are integers with few distinct values, so counting each is cheap and a quantile
//! is a value that occurred, the same that DuckDB's `quantile_disc` gives.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde::Serialize;

/// How often each duration occurred.
#[derive(Debug, Clone, Default)]
pub struct DurationCounts {
    counts: FxHashMap<i64, u64>,
}

/// What a column of durations comes to, all exact but the mean, which is the nearest float.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DurationStats {
    /// Rows.
    pub count: u64,
    /// Sum, ns.
    pub total_ns: i64,
    /// Sum over count, ns.
    pub mean_ns: f64,
    /// `quantile_disc(0.5)`, ns.
    pub median_ns: i64,
    /// `quantile_disc(0.95)`, ns.
    pub p95_ns: i64,
    /// Shortest, ns.
    pub min_ns: i64,
    /// Longest, ns.
    pub max_ns: i64,
}

impl DurationCounts {
    /// Counts one.
    pub fn add(&mut self, duration_ns: i64) {
        *self.counts.entry(duration_ns).or_default() += 1;
    }

    /// Takes over the counts of another.
    pub fn merge(&mut self, other: &Self) {
        for (&duration, &count) in &other.counts {
            *self.counts.entry(duration).or_default() += count;
        }
    }

    /// The statistics; `None` of nothing.
    pub fn stats(&self) -> Option<DurationStats> {
        let sorted: BTreeMap<i64, u64> = self
            .counts
            .iter()
            .map(|(&duration, &count)| (duration, count))
            .collect();
        let count: u64 = sorted.values().sum();
        let total: i128 = sorted
            .iter()
            .map(|(&duration, &count)| i128::from(duration) * i128::from(count))
            .sum();
        let total_ns = i64::try_from(total).unwrap_or(i64::MAX);
        Some(DurationStats {
            count,
            total_ns,
            mean_ns: total_ns as f64 / count as f64,
            median_ns: quantile_disc(&sorted, count, 50)?,
            p95_ns: quantile_disc(&sorted, count, 95)?,
            min_ns: *sorted.first_key_value()?.0,
            max_ns: *sorted.last_key_value()?.0,
        })
    }
}

/// The smallest value that at least `percent` of the rows do not exceed.
fn quantile_disc(sorted: &BTreeMap<i64, u64>, count: u64, percent: u64) -> Option<i64> {
    let rank = u64::try_from((u128::from(count) * u128::from(percent)).div_ceil(100))
        .unwrap_or(count)
        .max(1);
    let mut seen = 0;
    sorted
        .iter()
        .find(|(_, count)| {
            seen += **count;
            seen >= rank
        })
        .map(|(&duration, _)| duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(durations: &[i64]) -> DurationCounts {
        let mut counts = DurationCounts::default();
        durations.iter().for_each(|&duration| counts.add(duration));
        counts
    }

    #[test]
    fn nothing_has_no_statistics() {
        assert_eq!(DurationCounts::default().stats(), None);
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let stats = counted(&[4, 1, 3, 2]).stats().unwrap();
        assert_eq!((stats.median_ns, stats.p95_ns, stats.mean_ns), (2, 4, 2.5));
        let twenty: Vec<i64> = (1..=20).collect();
        assert_eq!(counted(&twenty).stats().unwrap().p95_ns, 19);
        let twenty_one: Vec<i64> = (1..=21).collect();
        assert_eq!(counted(&twenty_one).stats().unwrap().p95_ns, 20);
    }

    proptest! {
        #[test]
        fn statistics_equal_the_naive_ones(mut durations in prop::collection::vec(0..50i64, 1..300), cut in 0..300usize) {
            let (left, right) = durations.split_at(cut.min(durations.len()));
            let mut counts = counted(left);
            counts.merge(&counted(right));
            let stats = counts.stats().unwrap();
            durations.sort_unstable();
            // DuckDB: index max(1, n - floor(n - n q)) - 1 of the sorted values, in integers.
            let at = |percent: usize| {
                let n = durations.len();
                durations[(n - (n * 100 - n * percent) / 100).max(1) - 1]
            };
            prop_assert_eq!(stats.count, durations.len() as u64);
            prop_assert_eq!(stats.total_ns, durations.iter().sum::<i64>());
            prop_assert_eq!((stats.median_ns, stats.p95_ns), (at(50), at(95)));
            prop_assert_eq!((stats.min_ns, stats.max_ns), (durations[0], durations[durations.len() - 1]));
        }
    }
}
