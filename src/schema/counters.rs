//! Hardware counters under colonel's names: the same on every chip, whatever NVIDIA calls them there.

use std::time::Duration;

/// A metric of the table `counters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// `counters.metric`.
    pub name: &'static str,
    /// `counters.unit`.
    pub unit: &'static str,
    /// Set that it is in, for `--counters=SET`.
    pub set: &'static str,
    /// CPU time that a sample of it adds to those of the others, in the process that is sampled: us on an H100, rounded up.
    pub cost_us: u32,
    /// What it says.
    pub doc: &'static str,
    /// What NVIDIA calls it: the first name that a chip has and that fits is taken. Those with `Triage` are made for
    /// sampling; the plain ones need many passes on a chip that has both.
    pub sources: &'static [&'static str],
}

macro_rules! metrics {
    ($( $constant:ident = $name:literal, $unit:literal, $set:literal, $cost:literal, $doc:literal, [$( $source:literal ),* $(,)?]; )*) => {
        $( #[doc = $doc] pub const $constant: &str = $name; )*
        /// All of them, most wanted first: where not all fit into one pass, the last ones are left out.
        pub const METRICS: &[Metric] = &[ $( Metric {
            name: $name,
            unit: $unit,
            set: $set,
            cost_us: $cost,
            doc: $doc,
            sources: &[ $( $source ),* ],
        }, )* ];
    };
}

metrics! {
    DRAM_READ_THROUGHPUT = "dram_read_throughput", "%", "dram", 3, "Reads from device memory, of its peak bandwidth.", [
        "FBSP.TriageCompute.dramc__read_throughput.avg.pct_of_peak_sustained_elapsed",
        "dram__read_throughput.avg.pct_of_peak_sustained_elapsed",
    ];
    DRAM_WRITE_THROUGHPUT = "dram_write_throughput", "%", "dram", 3, "Writes to device memory, of its peak bandwidth.", [
        "FBSP.TriageCompute.dramc__write_throughput.avg.pct_of_peak_sustained_elapsed",
        "dram__write_throughput.avg.pct_of_peak_sustained_elapsed",
    ];
    DRAM_THROUGHPUT = "dram_throughput", "%", "dram", 3, "Device memory, busiest of its parts.", [
        "FBSP.TriageCompute.dramc__throughput.avg.pct_of_peak_sustained_elapsed",
        "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    ];
    DRAM_READ_BYTES = "dram_read_bytes", "bytes", "dram", 3, "Read from device memory.", [
        "dram__bytes_read.sum",
        "fbpa__dram_read_bytes.sum",
    ];
    DRAM_WRITE_BYTES = "dram_write_bytes", "bytes", "dram", 3, "Written to device memory.", [
        "dram__bytes_write.sum",
        "fbpa__dram_write_bytes.sum",
    ];
    TENSOR_ACTIVE = "tensor_active", "%", "tensor", 20, "Cycles in which the tensor pipes worked.", [
        "TPC.TriageCompute.sm__pipe_tensor_cycles_active_realtime.avg.pct_of_peak_sustained_elapsed",
        "sm__pipe_tensor_cycles_active_realtime.avg.pct_of_peak_sustained_elapsed",
        "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
    ];
    SM_THROUGHPUT = "sm_throughput", "%", "sm", 180, "Streaming multiprocessors, busiest of their parts.", [
        "TriageCompute.sm__throughput.avg.pct_of_peak_sustained_elapsed",
        "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    ];
    SM_ACTIVE = "sm_active", "%", "sm", 20, "Cycles in which an SM had a warp, mean over SMs.", [
        "TPC.TriageCompute.sm__cycles_active.avg.pct_of_peak_sustained_elapsed",
        "sm__cycles_active.avg.pct_of_peak_sustained_elapsed",
    ];
    WARPS_ACTIVE = "warps_active", "%", "sm", 15, "Warps resident, of what the SMs hold.", [
        "TPC.TriageCompute.tpc__warps_active_shader_cs_realtime.avg.pct_of_peak_sustained_elapsed",
        "tpc__warps_active_shader_cs_realtime.avg.pct_of_peak_sustained_elapsed",
        "sm__warps_active.avg.pct_of_peak_sustained_elapsed",
    ];
    INSTRUCTIONS = "instructions", "%", "sm", 20, "Instructions executed, of the SMs' peak.", [
        "TPC.TriageCompute.sm__inst_executed_realtime.avg.pct_of_peak_sustained_elapsed",
        "sm__inst_executed_realtime.avg.pct_of_peak_sustained_elapsed",
        "sm__inst_executed.avg.pct_of_peak_sustained_elapsed",
    ];
    GPU_ACTIVE = "gpu_active", "%", "sm", 5, "Cycles in which the graphics and compute engine worked.", [
        "FE_B.TriageCompute.gr__cycles_active.avg.pct_of_peak_sustained_elapsed",
        "gr__cycles_active.avg.pct_of_peak_sustained_elapsed",
    ];
    L2_THROUGHPUT = "l2_throughput", "%", "l2", 35, "L2 cache, busiest of its parts.", [
        "LTS.TriageCompute.lts__throughput.avg.pct_of_peak_sustained_elapsed",
        "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    ];
    L2_HIT_RATE = "l2_hit_rate", "%", "l2", 35, "Sectors found in the L2 cache.", [
        "LTS.TriageCompute.lts__average_t_sector_hit_rate_realtime.pct",
        "lts__average_t_sector_hit_rate_realtime.pct",
    ];
    L1_THROUGHPUT = "l1_throughput", "%", "l1", 75, "L1 cache, busiest of its parts.", [
        "SM_A.TriageCompute.l1tex__throughput.avg.pct_of_peak_sustained_elapsed",
        "l1tex__throughput.avg.pct_of_peak_sustained_elapsed",
    ];
    PCIE_THROUGHPUT = "pcie_throughput", "%", "pcie", 2, "PCIe, of its peak.", [
        "PCI.TriageCompute.pcie__throughput.avg.pct_of_peak_sustained_elapsed",
        "pcie__throughput.avg.pct_of_peak_sustained_elapsed",
    ];
    PCIE_READ_BYTES = "pcie_read_bytes", "bytes", "pcie", 2, "Read over PCIe.", [
        "PCI.TriageCompute.pcie__read_bytes.sum",
        "pcie__read_bytes.sum",
    ];
    PCIE_WRITE_BYTES = "pcie_write_bytes", "bytes", "pcie", 2, "Written over PCIe.", [
        "PCI.TriageCompute.pcie__write_bytes.sum",
        "pcie__write_bytes.sum",
    ];
    NVLINK_RECEIVED_BYTES = "nvlink_received_bytes", "bytes", "nvlink", 5, "Received over NVLink.", [
        "nvlrx__bytes.sum",
    ];
    NVLINK_SENT_BYTES = "nvlink_sent_bytes", "bytes", "nvlink", 5, "Sent over NVLink.", [
        "nvltx__bytes.sum",
    ];
    SM_CLOCK = "sm_clock", "Hz", "clocks", 5, "Clock of the SMs, cycles over time.", [
        "gpc__cycles_elapsed.avg.per_second",
        "sm__cycles_elapsed.avg.per_second",
    ];
}

/// Metrics that are asked for by one word, beside the sets that each is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bundle {
    /// The word.
    pub name: &'static str,
    /// Sets and metrics.
    pub words: &'static [&'static str],
    /// What it is for.
    pub doc: &'static str,
}

/// The word for what is sampled unless others are named.
pub const DEFAULT: &str = "default";

/// All of them.
pub const BUNDLES: &[Bundle] = &[
    Bundle {
        name: DEFAULT,
        words: &["dram", TENSOR_ACTIVE, SM_ACTIVE, INSTRUCTIONS],
        doc: "what tells memory-bound, compute-bound and waiting kernels apart, and keeps up with 100 us",
    },
    Bundle {
        name: "memory",
        words: &["dram", "l2", "pcie"],
        doc: "the ways of data",
    },
    Bundle {
        name: "compute",
        words: &["tensor", SM_ACTIVE, WARPS_ACTIVE, INSTRUCTIONS],
        doc: "the SMs",
    },
    Bundle {
        name: "full",
        words: &["dram", "tensor", "sm", "l2", "l1", "pcie", "nvlink", "clocks"],
        doc: "all that fit into one pass",
    },
];

/// Shortest interval that is chosen, and longest.
const INTERVALS_US: [u32; 2] = [100, 1_600];

/// An interval that these metrics keep up with: 100 us, doubled until they take four fifths of a core at most.
pub fn interval(wanted: &[Wanted]) -> Duration {
    let cost = |wanted: &Wanted| match wanted {
        Wanted::Known(metric) => metric.cost_us,
        Wanted::Foreign(_) => FOREIGN_COST_US,
    };
    let needed = wanted.iter().map(cost).sum::<u32>() * 5 / 4;
    let [mut interval, longest] = INTERVALS_US;
    while interval < needed && interval < longest {
        interval *= 2;
    }
    Duration::from_micros(interval.into())
}

/// Of a metric that colonel knows nothing of: as one of the SMs costs.
const FOREIGN_COST_US: u32 = 20;

/// A metric that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// One of [`METRICS`].
    Known(&'static Metric),
    /// By NVIDIA's own name.
    Foreign(String),
}

/// The metrics that `SET|METRIC,…` means, each once, in the order of [`METRICS`], NVIDIA's own names behind them; and
/// the words that are none.
pub fn wanted(text: &str) -> (Vec<Wanted>, Vec<String>) {
    let words: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let is_foreign = |word: &str| word.contains("__");
    let is = |metric: &Metric, word: &str| word == metric.set || word == metric.name;
    let bundled = |word: &str| BUNDLES.iter().find(|bundle| bundle.name == word);
    let names = |metric: &Metric, word: &str| {
        is(metric, word) || bundled(word).is_some_and(|bundle| bundle.words.iter().any(|word| is(metric, word)))
    };
    let mut wanted: Vec<Wanted> = METRICS
        .iter()
        .filter(|metric| words.iter().any(|word| names(metric, word)))
        .map(Wanted::Known)
        .collect();
    let mut unknown = Vec::new();
    for word in words {
        let foreign = Wanted::Foreign(word.to_owned());
        if is_foreign(word) && !wanted.contains(&foreign) {
            wanted.push(foreign);
        } else if !is_foreign(word) && !METRICS.iter().any(|metric| names(metric, word)) {
            unknown.push(word.to_owned());
        }
    }
    (wanted, unknown)
}

/// Words for several metrics, each once.
pub fn sets() -> Vec<&'static str> {
    let mut sets: Vec<&str> = METRICS.iter().map(|metric| metric.set).collect();
    sets.dedup();
    BUNDLES.iter().map(|bundle| bundle.name).chain(sets).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let (wanted, unknown) = wanted(text);
        assert_eq!(unknown, Vec::<String>::new());
        let name = |wanted: &Wanted| match wanted {
            Wanted::Known(metric) => metric.name.to_owned(),
            Wanted::Foreign(name) => name.clone(),
        };
        wanted.iter().map(name).collect()
    }

    #[test]
    fn sets_and_names_mean_metrics_each_once() {
        assert_eq!(names("full").len(), METRICS.len());
        assert_eq!(names("default").len(), 8);
        assert_eq!(
            names("tensor,sm_active,sm_active,tensor_active"),
            [TENSOR_ACTIVE, SM_ACTIVE]
        );
        assert_eq!(names("idc__requests.sum, l1"), [L1_THROUGHPUT, "idc__requests.sum"]);
        assert_eq!(names(""), Vec::<String>::new());
    }

    #[test]
    fn the_interval_is_one_that_keeps_up() {
        let us = |text: &str| interval(&wanted(text).0).as_micros();
        assert_eq!(["default", "compute", "dram", "l2"].map(us), [100; 4]);
        assert_eq!(
            [us("memory"), us("sm_throughput"), us("full"), us("")],
            [200, 400, 800, 100]
        );
        assert_eq!(us("default,idc__requests.sum,lts__t_sectors.sum"), 200);
    }

    #[test]
    fn bundles_are_of_sets_and_metrics() {
        let is_known = |word: &&str| METRICS.iter().any(|metric| metric.set == *word || metric.name == *word);
        assert!(BUNDLES.iter().all(|bundle| bundle.words.iter().all(is_known)));
    }

    #[test]
    fn every_metric_has_a_name_of_nvidias() {
        assert!(METRICS.iter().all(|metric| !metric.sources.is_empty()));
    }

    #[test]
    fn what_is_neither_is_told() {
        assert_eq!(wanted("dram,bananas").1, ["bananas"]);
    }

    #[test]
    fn names_of_sets_and_metrics_differ() {
        let mut all: Vec<&str> = METRICS.iter().map(|metric| metric.name).chain(sets()).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(all.iter().all(|name| !name.contains("__")));
    }
}
