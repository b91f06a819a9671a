//! Metrics of the chip that is played: a part of GH100's, with NVIDIA's names and the passes they take there.

use sim_abi::truth::{CYCLES_PER_NS, DRAM_BYTES_PER_NS, Truth};

/// The chip that is played.
pub(crate) const CHIP: &str = "GH100";

/// What a counter counts, in thousandths, each ns that something ran.
pub(crate) type PerNs = fn(&Truth) -> f64;

/// A metric.
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) passes: u32,
    count: PerNs,
    value: Value,
}

/// From a count to a value.
enum Value {
    /// Mean over the sample's time, 100 at most.
    Percent,
    /// The count itself.
    Sum,
    /// Counts a second, whatever ran.
    Constant(f64),
}

macro_rules! metrics {
    ($( $name:literal, $passes:literal, $value:expr, $count:expr; )*) => {
        pub(crate) const METRICS: &[Metric] = &[ $( Metric {
            name: $name, passes: $passes, count: $count, value: $value,
        }, )* ];
    };
}

metrics! {
    "FBSP.TriageCompute.dramc__read_throughput.avg.pct_of_peak_sustained_elapsed", 1, Value::Percent, |t| t.dram_read_pct;
    "FBSP.TriageCompute.dramc__write_throughput.avg.pct_of_peak_sustained_elapsed", 1, Value::Percent, |t| t.dram_write_pct;
    "FBSP.TriageCompute.dramc__throughput.avg.pct_of_peak_sustained_elapsed", 1, Value::Percent, |t| t.dram_read_pct + t.dram_write_pct;
    "dram__read_throughput.avg.pct_of_peak_sustained_elapsed", 1, Value::Percent, |t| t.dram_read_pct;
    "dram__write_throughput.avg.pct_of_peak_sustained_elapsed", 1, Value::Percent, |t| t.dram_write_pct;
    "dram__bytes_read.sum", 1, Value::Sum, |t| t.dram_read_pct / 100.0 * DRAM_BYTES_PER_NS;
    "dram__bytes_write.sum", 1, Value::Sum, |t| t.dram_write_pct / 100.0 * DRAM_BYTES_PER_NS;
    "TPC.TriageCompute.sm__pipe_tensor_cycles_active_realtime.avg.pct_of_peak_sustained_elapsed", 1, Value::Percent, |t| t.tensor_pct;
    "TriageCompute.sm__throughput.avg.pct_of_peak_sustained_elapsed", 1, Value::Percent, |t| t.sm_pct;
    "sm__throughput.avg.pct_of_peak_sustained_elapsed", 19, Value::Percent, |t| t.sm_pct;
    "TPC.TriageCompute.sm__cycles_active.avg.pct_of_peak_sustained_elapsed", 1, Value::Percent, |t| t.active_pct;
    "TPC.TriageCompute.tpc__warps_active_shader_cs_realtime.avg.pct_of_peak_sustained_elapsed", 1, Value::Percent, |t| t.active_pct / 2.0;
    "TPC.TriageCompute.sm__inst_executed_realtime.avg.pct_of_peak_sustained_elapsed", 1, Value::Percent, |t| t.sm_pct / 2.0;
    "FE_B.TriageCompute.gr__cycles_active.avg.pct_of_peak_sustained_elapsed", 1, Value::Percent, |_| 100.0;
    "LTS.TriageCompute.lts__throughput.avg.pct_of_peak_sustained_elapsed", 1, Value::Percent, |t| t.l2_pct;
    "lts__throughput.avg.pct_of_peak_sustained_elapsed", 4, Value::Percent, |t| t.l2_pct;
    "SM_A.TriageCompute.l1tex__throughput.avg.pct_of_peak_sustained_elapsed", 1, Value::Percent, |t| t.sm_pct / 3.0;
    "PCI.TriageCompute.pcie__read_bytes.sum", 1, Value::Sum, |_| 0.0;
    "PCI.TriageCompute.pcie__write_bytes.sum", 1, Value::Sum, |_| 0.0;
    "gpc__cycles_elapsed.avg.per_second", 1, Value::Constant(CYCLES_PER_NS * 1e9), |_| 0.0;
}

impl Metric {
    /// Counts in a stretch of time.
    pub(crate) fn count(&self, truth: &Truth, ns: u64) -> u64 {
        ((self.count)(truth) * ns as f64 * 1000.0) as u64
    }

    /// The value of a sample of that length with that count.
    pub(crate) fn value(&self, count: u64, ns: u64) -> f64 {
        let count = count as f64 / 1000.0;
        match self.value {
            Value::Percent => (count / ns.max(1) as f64).min(100.0),
            Value::Sum => count,
            Value::Constant(value) => value,
        }
    }
}

/// Number of a metric.
pub(crate) fn number(name: &str) -> Option<u32> {
    let index = METRICS.iter().position(|metric| metric.name == name)?;
    u32::try_from(index).ok()
}

/// Passes that metrics need together: each of those that need several has its own.
pub(crate) fn passes(numbers: &[u32]) -> u32 {
    let several = |number: &&u32| METRICS.get(**number as usize).map_or(0, |metric| metric.passes) > 1;
    let extra: u32 = numbers
        .iter()
        .filter(several)
        .filter_map(|number| METRICS.get(*number as usize))
        .map(|metric| metric.passes)
        .sum();
    1.max(extra)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_the_mean_over_time_and_a_sum_is_a_sum() {
        let truth = Truth::COPY;
        let value = |name: &str, busy: u64, length: u64| {
            let metric = &METRICS[number(name).unwrap() as usize];
            metric.value(metric.count(&truth, busy), length)
        };
        let reads = "dram__read_throughput.avg.pct_of_peak_sustained_elapsed";
        assert_eq!(value(reads, 500, 1000), truth.dram_read_pct / 2.0);
        assert!((value("dram__bytes_read.sum", 1000, 5000) - 0.3 * 3352e3).abs() < 1.0);
        assert_eq!(value("gpc__cycles_elapsed.avg.per_second", 0, 20), 1.755e9);
    }

    #[test]
    fn a_metric_of_many_passes_makes_it_many() {
        let one = number("dram__bytes_read.sum").unwrap();
        let many = number("sm__throughput.avg.pct_of_peak_sustained_elapsed").unwrap();
        assert_eq!([passes(&[one]), passes(&[one, many])], [1, 19]);
    }
}
