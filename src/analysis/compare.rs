//! Two sessions side by side, kernel by kernel, whoever recorded them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::analysis::SessionSummary;
use crate::schema::manifest::Session as Manifest;

/// Kernels of one name in one session.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Launches {
    /// How many.
    pub count: u64,
    /// Sum of their durations, ns.
    pub total_ns: i64,
    /// Their mean, ns.
    pub mean_ns: f64,
}

/// Kernels of one name in both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparedKernel {
    /// Demangled name.
    pub name: String,
    /// In the first session; null where it has none.
    pub a: Option<Launches>,
    /// In the second.
    pub b: Option<Launches>,
    /// Mean of the second over that of the first, less 1; null where one has none.
    pub mean_change: Option<f64>,
}

/// What a session cost in wall time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// From the making of the session to the command's end, its profiler's start and end included, ns; null where it
    /// did not end in order.
    pub run_ns: Option<u64>,
    /// From there until the profiler's report had been read, ns; null where there was none to read.
    pub collect_ns: Option<u64>,
}

/// The whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The longest in total first.
    pub kernels: Vec<ComparedKernel>,
    /// Launches of names that both have, and as often.
    pub equal_launches: u64,
    /// Costs of both.
    pub cost: [Cost; 2],
}

impl Comparison {
    /// Puts two sessions side by side.
    pub fn of(summaries: [&SessionSummary; 2], manifests: [&Manifest; 2]) -> Self {
        let mut names: BTreeMap<&str, [Option<Launches>; 2]> = BTreeMap::new();
        for (side, summary) in summaries.into_iter().enumerate() {
            for kernel in &summary.kernels {
                let durations = &kernel.durations;
                names.entry(&kernel.name).or_default()[side] = Some(Launches {
                    count: durations.count,
                    total_ns: durations.total_ns,
                    mean_ns: durations.total_ns as f64 / durations.count.max(1) as f64,
                });
            }
        }
        let compare = |(name, [a, b]): (&str, [Option<Launches>; 2])| ComparedKernel {
            name: name.to_owned(),
            a,
            b,
            mean_change: a
                .zip(b)
                .filter(|(a, _)| a.mean_ns > 0.0)
                .map(|(a, b)| b.mean_ns / a.mean_ns - 1.0),
        };
        let mut kernels: Vec<ComparedKernel> = names.into_iter().map(compare).collect();
        kernels.sort_by_key(|kernel| {
            let total = [kernel.a, kernel.b]
                .into_iter()
                .flatten()
                .map(|launches| launches.total_ns)
                .max();
            (std::cmp::Reverse(total), kernel.name.clone())
        });
        let equal = |kernel: &ComparedKernel| {
            let (a, b) = kernel.a.zip(kernel.b)?;
            (a.count == b.count).then_some(a.count)
        };
        Self {
            equal_launches: kernels.iter().filter_map(equal).sum(),
            kernels,
            cost: manifests.map(cost),
        }
    }
}

fn cost(manifest: &Manifest) -> Cost {
    let ended = manifest.ended_ns;
    Cost {
        run_ns: ended.and_then(|ended| u64::try_from(ended - manifest.created_ns).ok()),
        collect_ns: manifest.profiler.as_ref().and_then(|profiler| profiler.collect_ns),
    }
}
