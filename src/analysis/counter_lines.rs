//! Hardware counters over time: each metric's mean in equal stretches of time, for a chart.

use std::collections::BTreeMap;

use arrow_array::Array as _;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;

use crate::analysis::columns::{i64s, texts, u32s};
use crate::session::{Selection, Session, SessionError};

/// Stretches of a device at most: as many as a wide screen has dots, about.
const MOST: usize = 2_000;
/// Samples of a stretch at first.
const SAMPLES: i64 = 4;

/// Sum of values by their time, and the time.
type Sums = (f64, f64);

/// A device's metrics over time.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct CounterLines {
    /// Length of a stretch; number `n` begins at `n * stretch_ns`.
    pub(crate) stretch_ns: i64,
    /// By metric in %, then number.
    metrics: BTreeMap<String, BTreeMap<i64, Sums>>,
}

impl CounterLines {
    /// By process and CUDA ordinal.
    pub(crate) fn of(
        session: &Session,
        selection: Option<&Selection>,
    ) -> Result<BTreeMap<(u32, u32), Self>, SessionError> {
        let mut devices = BTreeMap::<(u32, u32), Self>::new();
        if session.rows("counters") == 0 {
            return Ok(devices);
        }
        let columns = ["metric", "unit", "value", "start_ns", "end_ns", "pid", "device_id"];
        for batch in session.scan("counters", &columns)? {
            let batch = selection.map_or_else(|| batch.clone(), |selection| selection.filter(&batch));
            let (metrics, units) = (texts(&batch, 0), texts(&batch, 1));
            let (names, unit_names) = (metrics.values().as_string::<i32>(), units.values().as_string::<i32>());
            let values = batch.column(2).as_primitive::<Float64Type>();
            let (starts, ends) = (i64s(&batch, 3), i64s(&batch, 4));
            let (pids, ordinals) = (u32s(&batch, 5), u32s(&batch, 6));
            for row in (0..batch.num_rows()).filter(|row| values.is_valid(*row)) {
                let (Some(metric), Some(unit)) = (metrics.key(row), units.key(row)) else {
                    continue;
                };
                if unit_names.value(unit) == "%" && ends[row] > starts[row] {
                    let device = devices.entry((pids[row], ordinals[row])).or_default();
                    device.add(names.value(metric), (starts[row], ends[row]), values.value(row));
                }
            }
        }
        Ok(devices)
    }

    fn add(&mut self, metric: &str, (start, end): (i64, i64), value: f64) {
        let length = end.saturating_sub(start);
        if self.stretch_ns == 0 {
            self.stretch_ns = length.saturating_mul(SAMPLES);
        }
        let number = i64::midpoint(start, end).div_euclid(self.stretch_ns);
        if !self.metrics.contains_key(metric) {
            self.metrics.insert(metric.to_owned(), BTreeMap::new());
        }
        let Some(line) = self.metrics.get_mut(metric) else {
            return;
        };
        let sums = line.entry(number).or_default();
        *sums = (sums.0 + value * length as f64, sums.1 + length as f64);
        if line.len() > MOST {
            self.coarsen();
        }
    }

    /// Two stretches become one.
    fn coarsen(&mut self) {
        self.stretch_ns = self.stretch_ns.saturating_mul(2);
        for line in self.metrics.values_mut() {
            let mut merged = BTreeMap::<i64, Sums>::new();
            for (number, sums) in std::mem::take(line) {
                let both = merged.entry(number.div_euclid(2)).or_default();
                *both = (both.0 + sums.0, both.1 + sums.1);
            }
            *line = merged;
        }
    }

    /// Starts of stretches and means of a metric, in order; nothing where there were no samples.
    pub(crate) fn line(&self, metric: &str) -> Option<impl Iterator<Item = (i64, f64)>> {
        let line = self.metrics.get(metric)?;
        let start = |number: i64| number.saturating_mul(self.stretch_ns);
        Some(
            line.iter()
                .map(move |(number, (sum, time))| (start(*number), sum / time)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stretch_has_the_mean_by_time() {
        let mut lines = CounterLines::default();
        lines.add("a", (0, 100), 10.0);
        lines.add("a", (100, 400), 50.0);
        lines.add("a", (400, 500), 7.0);
        assert_eq!(lines.line("a").unwrap().collect::<Vec<_>>(), [(0, 40.0), (400, 7.0)]);
        assert!(lines.line("b").is_none());
    }

    proptest! {
        #[test]
        fn however_long_the_mean_of_all_stays(values in prop::collection::vec(0.0..100.0_f64, 1..30_000)) {
            let mut lines = CounterLines::default();
            for (at, value) in (0..).zip(&values) {
                lines.add("a", (at * 100, at * 100 + 100), *value);
            }
            let sums: Vec<Sums> = lines.metrics["a"].values().copied().collect();
            prop_assert!(sums.len() <= MOST);
            let sum: f64 = sums.iter().map(|(sum, _)| sum).sum();
            let time: f64 = sums.iter().map(|(_, time)| time).sum();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            prop_assert!((sum / time - mean).abs() < 1e-6);
            prop_assert_eq!(time, values.len() as f64 * 100.0);
        }
    }
}
