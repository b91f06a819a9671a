//! `colonel show --counters`: hardware counters by window and device.

use std::fmt::Write as _;

use serde::Serialize;

use crate::analysis::{CounterSummary, Counters};
use crate::report::show::{JSON_VERSION, number, words};
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
pub fn counters_text(session: &Session, counters: &Counters, width: usize) -> String {
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
}

impl<'a> CountersJson<'a> {
    /// Of the windows asked for.
    pub fn new(session: &'a Session, counters: &'a Counters, window: Option<&'a str>) -> Self {
        let manifest = session.manifest();
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
        }
    }
}
