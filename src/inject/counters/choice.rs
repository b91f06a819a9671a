//! Which of the wanted metrics this chip can count in one pass: sampling can't run a program several times.

use std::ffi::CStr;

use cupti_sys::counters::{Failure, Host, Names};
use cupti_sys::functions::Functions;

use crate::inject::counters::device::before_teardown;
use crate::schema::counters::Wanted;
use crate::schema::samples::SampledMetric;

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
    drop(before_teardown(Host::new(functions, chip, Some(availability)))?);
    let mut choice = Choice::default();
    for wanted in wanted {
        let (name, unit, sources): (&str, _, Vec<&str>) = match wanted {
            Wanted::Known(metric) => (metric.name, Some(metric.unit), metric.sources.to_vec()),
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
        match before_teardown(fitting) {
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
    use crate::schema::counters::METRICS;

    #[test]
    fn the_names_tell_the_units() {
        for metric in METRICS {
            assert!(
                metric.sources.iter().all(|source| unit_of(source) == metric.unit),
                "{}",
                metric.name
            );
        }
    }
}
