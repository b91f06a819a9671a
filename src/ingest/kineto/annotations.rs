//! `user_annotation` events, torch's `record_function` and NVTX ranges: which lies in which, and in which of them each
//! kernel was launched. In a trace they stand in any order, and a kernel may stand before its launch.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::events::Event;
use crate::ingest::paths::{cut, joined};

/// The annotations and launches of a trace. Of each launch some bytes are kept.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    threads: BTreeMap<u32, Vec<Annotation>>,
    launches: Vec<Launch>,
}

/// A range on a thread.
#[derive(Debug)]
pub(super) struct Annotation {
    pub(super) thread_id: u32,
    pub(super) start_us: f64,
    /// None of one that has no end.
    pub(super) end_us: Option<f64>,
    pub(super) name: String,
    pub(super) domain: Option<String>,
    /// How many lie around it, and their names with its own.
    pub(super) depth: u32,
    pub(super) path: String,
}

#[derive(Debug)]
struct Launch {
    correlation_id: u32,
    thread_id: u32,
    at_us: f64,
}

/// The innermost range of each launch, by correlation id.
#[derive(Debug, Default)]
pub(super) struct LaunchPaths<'a>(HashMap<u32, &'a str>);

impl LaunchPaths<'_> {
    pub(super) fn of(&self, correlation_id: u32) -> Option<&str> {
        self.0.get(&correlation_id).copied()
    }
}

impl Annotation {
    fn is_open_at(&self, time_us: f64) -> bool {
        self.end_us.is_none_or(|end| end > time_us)
    }

    fn holds(&self, other: &Self) -> bool {
        let end = |of: &Self| of.end_us.unwrap_or(f64::INFINITY);
        self.is_open_at(other.start_us) && end(self) >= end(other)
    }
}

impl Annotations {
    /// Notes what concerns ranges.
    pub(super) fn event(&mut self, event: &Event) {
        let thread = event.tid.as_ref().and_then(Value::as_u64);
        let Some(thread_id) = thread.and_then(|thread| u32::try_from(thread).ok()) else {
            return;
        };
        if event.is_annotation() {
            let mut name = event.name.as_str().unwrap_or_default().to_owned();
            cut(&mut name);
            self.threads.entry(thread_id).or_default().push(Annotation {
                thread_id,
                start_us: event.ts,
                end_us: event.end_us(),
                name,
                domain: event.args["domain"].as_str().map(str::to_owned),
                depth: 0,
                path: String::new(),
            });
        } else if event.is_call() && event.name.as_str().is_some_and(|name| name.contains("Launch")) {
            let id = event.args["correlation"].as_u64().and_then(|id| u32::try_from(id).ok());
            self.launches.extend(id.map(|correlation_id| Launch {
                correlation_id,
                thread_id,
                at_us: event.ts,
            }));
        }
    }

    /// Puts the ranges of each thread into each other.
    pub(super) fn nest(&mut self) {
        for ranges in self.threads.values_mut() {
            // Outer ones before those within them.
            let end = |of: &Annotation| of.end_us.unwrap_or(f64::INFINITY);
            ranges.sort_by(|a, b| a.start_us.total_cmp(&b.start_us).then(end(b).total_cmp(&end(a))));
            let mut around: Vec<usize> = Vec::new();
            for place in 0..ranges.len() {
                around.retain(|&outer| ranges[outer].holds(&ranges[place]));
                let outer = around.last().map(|&outer| ranges[outer].path.as_str());
                ranges[place].path = joined(outer, &ranges[place].name);
                ranges[place].depth = u32::try_from(around.len()).unwrap_or(u32::MAX);
                around.push(place);
            }
        }
        self.launches
            .sort_by(|a, b| a.thread_id.cmp(&b.thread_id).then(a.at_us.total_cmp(&b.at_us)));
    }

    /// All ranges, by thread and start.
    pub(super) fn all(&self) -> impl Iterator<Item = &Annotation> {
        self.threads.values().flatten()
    }

    /// Which range each launch lies in.
    pub(super) fn launch_paths(&self) -> LaunchPaths<'_> {
        let mut paths = HashMap::new();
        for of_thread in self.launches.chunk_by(|a, b| a.thread_id == b.thread_id) {
            let thread = of_thread.first().and_then(|launch| self.threads.get(&launch.thread_id));
            let mut ranges = thread.into_iter().flatten().peekable();
            let mut open: Vec<&Annotation> = Vec::new();
            for launch in of_thread {
                open.extend(std::iter::from_fn(|| {
                    ranges.next_if(|range| range.start_us <= launch.at_us)
                }));
                open.retain(|range| range.is_open_at(launch.at_us));
                if let Some(innermost) = open.last() {
                    paths.insert(launch.correlation_id, innermost.path.as_str());
                }
            }
        }
        LaunchPaths(paths)
    }
}
