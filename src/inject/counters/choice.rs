//! Which of the wanted metrics this chip can count in one pass: sampling can't run a program several times.

use std::ffi::CStr;

use cupti_sys::counters::{Failure, Host, Names};
use cupti_sys::functions::Functions;

use crate::schema::counters::{Metric, Wanted, *};
use crate::schema::samples::SampledMetric;

/// What NVIDIA calls a metric: chips have either name, the first that fits is taken. Those with `Triage` are made for
/// sampling: the plain ones need many passes on a chip that has both.
fn candidates(metric: &Metric) -> &'static [&'static str] {
    match metric.name {
        DRAM_READ_THROUGHPUT => &[
            "FBSP.TriageCompute.dramc__read_throughput.avg.pct_of_peak_sustained_elapsed",
            "dram__read_throughput.avg.pct_of_peak_sustained_elapsed",
        ],
        DRAM_WRITE_THROUGHPUT => &[
            "FBSP.TriageCompute.dramc__write_throughput.avg.pct_of_peak_sustained_elapsed",
            "dram__write_throughput.avg.pct_of_peak_sustained_elapsed",
        ],
        DRAM_THROUGHPUT => &[
            "FBSP.TriageCompute.dramc__throughput.avg.pct_of_peak_sustained_elapsed",
            "dram__throughput.avg.pct_of_peak_sustained_elapsed",
        ],
        DRAM_READ_BYTES => &["dram__bytes_read.sum", "fbpa__dram_read_bytes.sum"],
        DRAM_WRITE_BYTES => &["dram__bytes_write.sum", "fbpa__dram_write_bytes.sum"],
        TENSOR_ACTIVE => &[
            "TPC.TriageCompute.sm__pipe_tensor_cycles_active_realtime.avg.pct_of_peak_sustained_elapsed",
            "sm__pipe_tensor_cycles_active_realtime.avg.pct_of_peak_sustained_elapsed",
            "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
        ],
        SM_THROUGHPUT => &[
            "TriageCompute.sm__throughput.avg.pct_of_peak_sustained_elapsed",
            "sm__throughput.avg.pct_of_peak_sustained_elapsed",
        ],
        SM_ACTIVE => &[
            "TPC.TriageCompute.sm__cycles_active.avg.pct_of_peak_sustained_elapsed",
            "sm__cycles_active.avg.pct_of_peak_sustained_elapsed",
        ],
        WARPS_ACTIVE => &[
            "TPC.TriageCompute.tpc__warps_active_shader_cs_realtime.avg.pct_of_peak_sustained_elapsed",
            "tpc__warps_active_shader_cs_realtime.avg.pct_of_peak_sustained_elapsed",
            "sm__warps_active.avg.pct_of_peak_sustained_elapsed",
        ],
        INSTRUCTIONS => &[
            "TPC.TriageCompute.sm__inst_executed_realtime.avg.pct_of_peak_sustained_elapsed",
            "sm__inst_executed_realtime.avg.pct_of_peak_sustained_elapsed",
            "sm__inst_executed.avg.pct_of_peak_sustained_elapsed",
        ],
        GPU_ACTIVE => &[
            "FE_B.TriageCompute.gr__cycles_active.avg.pct_of_peak_sustained_elapsed",
            "gr__cycles_active.avg.pct_of_peak_sustained_elapsed",
        ],
        L2_THROUGHPUT => &[
            "LTS.TriageCompute.lts__throughput.avg.pct_of_peak_sustained_elapsed",
            "lts__throughput.avg.pct_of_peak_sustained_elapsed",
        ],
        L2_HIT_RATE => &[
            "LTS.TriageCompute.lts__average_t_sector_hit_rate_realtime.pct",
            "lts__average_t_sector_hit_rate_realtime.pct",
        ],
        L1_THROUGHPUT => &[
            "SM_A.TriageCompute.l1tex__throughput.avg.pct_of_peak_sustained_elapsed",
            "l1tex__throughput.avg.pct_of_peak_sustained_elapsed",
        ],
        PCIE_THROUGHPUT => &[
            "PCI.TriageCompute.pcie__throughput.avg.pct_of_peak_sustained_elapsed",
            "pcie__throughput.avg.pct_of_peak_sustained_elapsed",
        ],
        PCIE_READ_BYTES => &["PCI.TriageCompute.pcie__read_bytes.sum", "pcie__read_bytes.sum"],
        PCIE_WRITE_BYTES => &["PCI.TriageCompute.pcie__write_bytes.sum", "pcie__write_bytes.sum"],
        NVLINK_RECEIVED_BYTES => &["nvlrx__bytes.sum"],
        NVLINK_SENT_BYTES => &["nvltx__bytes.sum"],
        SM_CLOCK => &[
            "gpc__cycles_elapsed.avg.per_second",
            "sm__cycles_elapsed.avg.per_second",
        ],
        _ => &[],
    }
}

/// Unit of a metric that was asked for by NVIDIA's name, as far as the name tells.
fn unit_of(source: &str) -> &'static str {
    if source.contains(".pct") {
        "%"
    } else if source.contains("bytes") && source.ends_with(".sum") {
        "bytes"
    } else if source.contains("cycles") && source.ends_with(".per_second") {
        "Hz"
    } else {
        "count"
    }
}

/// What is sampled on a device.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub(super) metrics: Vec<SampledMetric>,
    /// Wanted, and not among them.
    pub(super) left_out: Vec<String>,
    /// For `cuptiPmSamplingSetConfig`.
    pub(super) config: Vec<u8>,
}

/// Takes one metric after the other, as long as one pass suffices.
pub(super) fn choose(
    functions: &Functions,
    chip: &CStr,
    availability: &[u8],
    wanted: &[Wanted],
) -> Result<Choice, Failure> {
    // That the chip is unknown is told as such, not as a lack of every metric.
    drop(Host::new(functions, chip, Some(availability))?);
    let mut choice = Choice::default();
    for wanted in wanted {
        let (name, unit, sources): (&str, _, Vec<&str>) = match wanted {
            Wanted::Known(metric) => (metric.name, Some(metric.unit), candidates(metric).to_vec()),
            Wanted::Foreign(name) => (name, None, vec![name]),
        };
        let fitting = sources.into_iter().find_map(|source| {
            let names = choice
                .metrics
                .iter()
                .map(|metric| metric.source.as_str())
                .chain([source]);
            let config = one_pass(functions, chip, availability, &Names::new(names))?;
            Some((source, config))
        });
        match fitting {
            Some((source, config)) => {
                choice.metrics.push(SampledMetric {
                    name: name.to_owned(),
                    unit: unit.unwrap_or_else(|| unit_of(source)).to_owned(),
                    source: source.to_owned(),
                });
                choice.config = config;
            }
            None => choice.left_out.push(name.to_owned()),
        }
    }
    Ok(choice)
}

/// The configuration of these metrics, if the chip has them all and one pass suffices.
fn one_pass(functions: &Functions, chip: &CStr, availability: &[u8], names: &Names) -> Option<Vec<u8>> {
    let mut host = Host::new(functions, chip, Some(availability)).ok()?;
    host.add(names).ok()?;
    let mut config = host.config_image().ok()?;
    (host.passes(&mut config).ok()? == 1).then_some(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_name_of_nvidias() {
        for metric in METRICS {
            let sources = candidates(metric);
            assert!(!sources.is_empty(), "{}", metric.name);
            assert!(
                sources.iter().all(|source| unit_of(source) == metric.unit),
                "{}",
                metric.name
            );
        }
    }
}
