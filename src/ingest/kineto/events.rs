//! The trace as a stream: fields of its head, and its events one by one.

use std::fmt;
use std::io::Read;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// What a trace says of itself.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Unix ns from which times count. Older traces have none: theirs count from 1970.
    base_ns: i64,
    pub(super) devices: Vec<Device>,
}

impl Head {
    pub(super) fn unix_ns(&self, time_us: f64) -> i64 {
        self.base_ns.saturating_add((time_us * 1000.0).round() as i64)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Device {
    pub(super) id: u32,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) total_global_mem: u64,
    #[serde(default)]
    pub(super) compute_major: u32,
    #[serde(default)]
    pub(super) compute_minor: u32,
    #[serde(default)]
    pub(super) max_threads_per_multiprocessor: u32,
    #[serde(default)]
    pub(super) regs_per_multiprocessor: u32,
    #[serde(default)]
    pub(super) warp_size: u32,
    #[serde(default)]
    pub(super) shared_mem_per_multiprocessor: u32,
    #[serde(default)]
    pub(super) num_sms: u32,
}

/// An event, with what any kind of event may lack.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    #[serde(default)]
    pub(super) ph: String,
    #[serde(default)]
    pub(super) cat: String,
    #[serde(default)]
    pub(super) name: Value,
    pub(super) pid: Option<Value>,
    pub(super) tid: Option<Value>,
    #[serde(default)]
    pub(super) ts: f64,
    dur: Option<f64>,
    #[serde(default)]
    pub(super) args: Value,
}

impl Event {
    /// Whether it becomes a row.
    pub(super) fn has_row(&self) -> bool {
        self.ph == "X" && (self.is_work() || self.is_call() || self.is_sync())
    }

    /// Work of a GPU.
    pub(super) fn is_work(&self) -> bool {
        matches!(self.cat.as_str(), "kernel" | "gpu_memcpy" | "gpu_memset")
    }

    pub(super) fn is_call(&self) -> bool {
        matches!(self.cat.as_str(), "cuda_runtime" | "cuda_driver")
    }

    /// A wait, of the host or of a stream.
    pub(super) fn is_sync(&self) -> bool {
        self.cat == "cuda_sync"
    }

    /// A range. What colonel exports of one that was left open is an instant.
    pub(super) fn is_annotation(&self) -> bool {
        self.cat == "user_annotation" && matches!(self.ph.as_str(), "X" | "i")
    }

    /// Its pid is a process's; that of work is a GPU's.
    pub(super) fn is_host(&self) -> bool {
        self.is_call() || matches!(self.cat.as_str(), "cpu_op" | "user_annotation")
    }

    pub(super) fn end_us(&self) -> Option<f64> {
        self.dur.map(|dur| self.ts + dur)
    }

    /// Start and end, where these are times of a window: neither reversed nor beyond all clocks.
    pub(super) fn span_us(&self) -> Option<(f64, f64)> {
        const MOST_US: f64 = i64::MAX as f64 / 1000.0;
        let end = self.end_us()?;
        (self.ts <= end && end < MOST_US).then_some((self.ts, end))
    }

    pub(super) fn dur_us(&self) -> Option<f64> {
        self.dur
    }
}

/// Reads a trace to its end and calls with each event.
pub(super) fn read(reader: impl Read, each: impl FnMut(Event) -> Result<(), String>) -> serde_json::Result<Head> {
    let mut json = serde_json::Deserializer::from_reader(reader);
    let head = (&mut json).deserialize_map(Trace { each })?;
    json.end()?;
    Ok(head)
}

struct Trace<F> {
    each: F,
}

impl<'de, F: FnMut(Event) -> Result<(), String>> Visitor<'de> for Trace<F> {
    type Value = Head;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with `traceEvents`")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Head, A::Error> {
        let (mut head, mut has_events) = (Head::default(), false);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "baseTimeNanoseconds" => head.base_ns = map.next_value()?,
                "deviceProperties" => head.devices = map.next_value()?,
                "traceEvents" => {
                    map.next_value_seed(Events { each: &mut self.each })?;
                    has_events = true;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if has_events {
            Ok(head)
        } else {
            Err(A::Error::missing_field("traceEvents"))
        }
    }
}

struct Events<'a, F> {
    each: &'a mut F,
}

impl<'de, F: FnMut(Event) -> Result<(), String>> DeserializeSeed<'de> for Events<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(Event) -> Result<(), String>> Visitor<'de> for Events<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut events: A) -> Result<(), A::Error> {
        while let Some(event) = events.next_element()? {
            (self.each)(event).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}
