//! Hardware counters of two sessions side by side, kernel by kernel: live figures with their intervals, or what ncu measured as
//! it ran each kernel by itself.

use std::collections::BTreeMap;

use arrow_array::Array as _;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use serde::Serialize;

use crate::analysis::SpeedOfLight;
use crate::analysis::columns::{i64s, texts};
use crate::schema::counters::METRICS;
use crate::session::{Selection, Session, SessionError};

/// What a session says of a metric of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Counted {
    /// `%` of the peak, or bytes a launch.
    pub value: f64,
    /// 90 % interval of a live figure.
    pub low: Option<f64>,
    /// See `low`.
    pub high: Option<f64>,
    /// Mean duration of the kernel where that was counted, ns.
    pub mean_ns: f64,
}

/// A metric of a kernel that both sessions have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CountedRow {
    /// Demangled name.
    pub kernel: String,
    /// Metric.
    pub metric: String,
    /// `%` or `bytes`.
    pub unit: &'static str,
    /// First session.
    pub a: Counted,
    /// Second session.
    pub b: Counted,
    /// B less A.
    pub difference: f64,
    /// The same with B's percentage put to A's duration: ncu has a kernel's launch in its time, so that the same work is a
    /// smaller part of a longer time.
    pub difference_at_same_time: f64,
}

/// By kernel, then metric.
type Side = BTreeMap<(String, &'static str), Counted>;

/// Metrics that both sessions have of a kernel of the same name, the longest kernel first.
pub fn counted(sessions: [&Session; 2], selections: [Option<&Selection>; 2]) -> Result<Vec<CountedRow>, SessionError> {
    let a = side(sessions[0], selections[0])?;
    if a.is_empty() {
        return Ok(Vec::new());
    }
    let b = side(sessions[1], selections[1])?;
    let row = |((kernel, metric), a): (&(String, &'static str), &Counted)| {
        let b = b.get(&(kernel.clone(), *metric))?;
        let unit = METRICS.iter().find(|known| known.name == *metric)?.unit;
        let scale = if unit == "%" {
            b.mean_ns / a.mean_ns.max(1.0)
        } else {
            1.0
        };
        Some(CountedRow {
            kernel: kernel.clone(),
            metric: (*metric).to_owned(),
            unit,
            a: *a,
            b: *b,
            difference: b.value - a.value,
            difference_at_same_time: b.value * scale - a.value,
        })
    };
    let place = |metric: &str| METRICS.iter().position(|known| known.name == metric);
    let mut rows: Vec<CountedRow> = a.iter().filter_map(row).collect();
    rows.sort_by(|x, y| {
        let by_time = y.a.mean_ns.total_cmp(&x.a.mean_ns);
        by_time
            .then_with(|| x.kernel.cmp(&y.kernel))
            .then_with(|| place(&x.metric).cmp(&place(&y.metric)))
    });
    Ok(rows)
}

fn side(session: &Session, selection: Option<&Selection>) -> Result<Side, SessionError> {
    let mut side = Side::new();
    for device in SpeedOfLight::of(session, selection)?.devices {
        for kernel in device.kernels {
            let mean_ns = kernel.total_ns as f64 / (kernel.count as f64).max(1.0);
            for figure in &kernel.figures {
                let Some(known) = METRICS.iter().find(|known| known.name == figure.metric) else {
                    continue;
                };
                let (Some(value), Some(low), Some(high)) = (figure.figure.value, figure.figure.low, figure.figure.high)
                else {
                    continue;
                };
                // Rates become bytes a launch.
                let scale = if known.unit == "bytes" { mean_ns } else { 1.0 };
                let counted = Counted {
                    value: value * scale,
                    low: Some(low * scale),
                    high: Some(high * scale),
                    mean_ns,
                };
                side.entry((kernel.name.clone(), known.name)).or_insert(counted);
            }
        }
    }
    if side.is_empty() {
        replayed(session, &mut side)?;
    }
    Ok(side)
}

/// Means of what ncu measured.
fn replayed(session: &Session, side: &mut Side) -> Result<(), SessionError> {
    let mut sums = BTreeMap::<(String, &'static str), (f64, f64)>::new();
    for batch in session.scan("kernel_counters", &["name", "metric", "value"])? {
        let (names, metrics) = (texts(&batch, 0), texts(&batch, 1));
        let (kernels, sources) = (names.values().as_string::<i32>(), metrics.values().as_string::<i32>());
        let values = batch.column(2).as_primitive::<Float64Type>();
        for row in (0..batch.num_rows()).filter(|row| values.is_valid(*row)) {
            let (Some(name), Some(metric)) = (names.key(row), metrics.key(row)) else {
                continue;
            };
            let source = sources.value(metric);
            if let Some(known) = METRICS.iter().find(|known| known.sources.contains(&source)) {
                let (sum, count) = sums.entry((kernels.value(name).to_owned(), known.name)).or_default();
                (*sum, *count) = (*sum + values.value(row), *count + 1.0);
            }
        }
    }
    if sums.is_empty() {
        return Ok(());
    }
    let mut times = BTreeMap::<String, (f64, f64)>::new();
    for batch in session.scan("kernels", &["name", "start_ns", "end_ns"])? {
        let names = texts(&batch, 0);
        let kernels = names.values().as_string::<i32>();
        let (starts, ends) = (i64s(&batch, 1), i64s(&batch, 2));
        for row in 0..batch.num_rows() {
            let Some(name) = names.key(row).map(|key| kernels.value(key)) else {
                continue;
            };
            let duration = ends[row].saturating_sub(starts[row]) as f64;
            match times.get_mut(name) {
                Some((sum, count)) => (*sum, *count) = (*sum + duration, *count + 1.0),
                None => drop(times.insert(name.to_owned(), (duration, 1.0))),
            }
        }
    }
    for ((kernel, metric), (sum, count)) in sums {
        if let Some((duration, launches)) = times.get(&kernel) {
            let counted = Counted {
                value: sum / count,
                low: None,
                high: None,
                mean_ns: duration / launches,
            };
            side.insert((kernel, metric), counted);
        }
    }
    Ok(())
}
