//! `colonel show --counters`: hardware counters by window and device, and by kernel and layer.

use std::fmt::Write as _;

use serde::Serialize;

use crate::analysis::{CounterSummary, Counters, DeviceSpeed, SpeedOfLight};
use crate::report::show::{JSON_VERSION, number, words};
use crate::report::speed_of_light::speed_text;
use crate::report::table::{Column, fit};
use crate::run::words::{counted, grouped, nanoseconds};
use crate::schema::counters::METRICS;
use crate::schema::manifest::{Evaluation, Sampled};
use crate::session::Session;

const COLUMNS: [Column; 5] = [
    words("metric", u8::MAX),
    number("mean", u8::MAX),
    number("median", u8::MAX),
    number("max", u8::MAX),
    words("meaning", 1),
];

/// As text, for a terminal of some width.
pub fn counters_text(
    session: &Session,
    counters: &Counters,
    speed: &SpeedOfLight,
    limit: Option<usize>,
    width: usize,
) -> String {
    let mut text = format!("session {}\n", session.manifest().id);
    for sampled in session
        .manifest()
        .processes
        .iter()
        .flat_map(|process| &process.counters)
    {
        let _ = writeln!(text, "{}", sampling(sampled));
    }
    if counters.metrics.is_empty() {
        text += "\nno samples of hardware counters: `colonel run --counters` takes them\n";
        return text;
    }
    let same_place =
        |a: &CounterSummary, b: &CounterSummary| (a.pid, a.window, a.device_id) == (b.pid, b.window, b.device_id);
    for of_place in counters.metrics.chunk_by(same_place) {
        let Some(first) = of_place.first() else { continue };
        let _ = writeln!(
            text,
            "\nwindow {} of pid {}, device {}: {}",
            first.window,
            first.pid,
            first.device_id,
            counted(first.samples, "sample")
        );
        let rows: Vec<_> = of_place.iter().map(row).collect();
        text += &fit(&COLUMNS, &rows, width, 12);
    }
    for device in &speed.devices {
        text += &speed_text(device, speed.level, limit, width);
    }
    if speed.devices.is_empty() && session.rows("kernels") > 0 {
        text += "\nno figures of kernels: too few samples were taken while they ran\n";
    }
    text
}

/// `device 0 (GH100): 50,000 samples every 20 us, 0 lost`.
fn sampling(sampled: &Sampled) -> String {
    let mut text = format!(
        "device {} ({}): {} every {}, {} lost",
        sampled.device_id,
        sampled.chip,
        counted(sampled.samples, "sample"),
        nanoseconds(sampled.interval_ns),
        grouped(sampled.lost_samples)
    );
    if !sampled.left_out.is_empty() {
        let _ = write!(
            text,
            "; not on this device, or not in the same pass: {}",
            sampled.left_out.join(", ")
        );
    }
    text
}

fn row(counter: &CounterSummary) -> Vec<String> {
    let meaning = METRICS.iter().find(|metric| metric.name == counter.metric);
    vec![
        counter.metric.clone(),
        shown(counter.mean, &counter.unit),
        shown(counter.median, &counter.unit),
        shown(counter.max, &counter.unit),
        meaning.map_or("", |metric| metric.doc).to_owned(),
    ]
}

fn shown(value: f64, unit: &str) -> String {
    match unit {
        "%" => format!("{value:.1} %"),
        "Hz" => format!("{:.3} GHz", value / 1e9),
        "count" => format!("{value:.1}"),
        unit => format!("{value:.2} {unit}"),
    }
}

/// `colonel show --counters --json`.
#[derive(Debug, Serialize)]
pub struct CountersJson<'a> {
    version: u32,
    id: &'a str,
    window: Option<&'a str>,
    /// How each device was sampled.
    sampled: Vec<&'a Sampled>,
    evaluation: Option<&'a Evaluation>,
    #[serde(flatten)]
    counters: &'a Counters,
    /// Probability of the kernels' intervals.
    level: f64,
    speed_of_light: Vec<DeviceSpeed>,
}

impl<'a> CountersJson<'a> {
    /// Of the windows asked for.
    pub fn new(
        session: &'a Session,
        counters: &'a Counters,
        speed: &SpeedOfLight,
        window: Option<&'a str>,
        limit: Option<usize>,
    ) -> Self {
        let manifest = session.manifest();
        let mut devices = speed.devices.clone();
        for device in &mut devices {
            device.kernels.truncate(limit.unwrap_or(usize::MAX));
        }
        Self {
            version: JSON_VERSION,
            id: &manifest.id,
            window,
            sampled: manifest
                .processes
                .iter()
                .flat_map(|process| &process.counters)
                .collect(),
            evaluation: manifest.evaluation.as_ref(),
            counters,
            level: speed.level,
            speed_of_light: devices,
        }
    }
}
