//! Two sessions side by side, for people and for machines.

use serde::Serialize;

use super::names::{printable, without_namespaces, without_parameters};
use super::table::{Column, fit};
use crate::analysis::{ComparedKernel, Comparison, Cost, Launches};
use crate::run::words::{counted, nanoseconds};
use crate::schema::manifest::Session as Manifest;
use crate::session::Session;

/// What the last column is not cut below.
const LEAST_NAME: usize = 24;

const COLUMNS: [Column; 8] = [
    column("launches A", 9),
    column("B", 8),
    column("total A", 4),
    column("B", 3),
    column("mean A", 7),
    column("B", 6),
    column("change", u8::MAX),
    Column {
        head: "kernel",
        right: false,
        weight: u8::MAX,
    },
];

const fn column(head: &'static str, weight: u8) -> Column {
    Column {
        head,
        right: true,
        weight,
    }
}

/// The comparison for a terminal.
pub fn compare_text(sessions: [&Session; 2], comparison: &Comparison, limit: Option<usize>, width: usize) -> String {
    let mut text = String::new();
    for (side, (session, cost)) in ["A", "B"].iter().zip(sessions.iter().zip(comparison.cost)) {
        text += &format!("{side}  {}\n", heading(session.manifest(), cost));
    }
    if sessions.iter().any(|session| session.manifest().evaluator == "ncu") {
        text += "   ncu runs each kernel alone, at its base clock and with cold caches: its times are longer\n";
    }
    let shown = limit.unwrap_or(usize::MAX).min(comparison.kernels.len());
    let rows: Vec<Vec<String>> = comparison.kernels[..shown].iter().map(row).collect();
    text.push('\n');
    if rows.is_empty() {
        return text + "neither has a kernel\n";
    }
    text += &fit(&COLUMNS, &rows, width, LEAST_NAME);
    let rest = &comparison.kernels[shown..];
    if !rest.is_empty() {
        text += &format!("and {}\n", counted(rest.len() as u64, "more kernel name"));
    }
    text
}

fn heading(manifest: &Manifest, cost: Cost) -> String {
    let name = manifest
        .name
        .as_ref()
        .map_or(String::new(), |name| format!(" ({name})"));
    let release = manifest
        .profiler
        .as_ref()
        .and_then(|profiler| profiler.release.as_deref());
    let release = release.and_then(|release| release.split('-').next());
    let release = release.map_or(String::new(), |release| format!(" {release}"));
    let kernels = counted(manifest.rows.get("kernels").copied().unwrap_or(0), "kernel");
    let run = cost.run_ns.map_or("did not end in order".to_owned(), |ns| {
        format!("ran {}", nanoseconds(ns))
    });
    let collect = cost.collect_ns.map_or(String::new(), |ns| {
        format!(", then its report was read for {}", nanoseconds(ns))
    });
    format!(
        "{}{name}  {}{release}  {kernels}  {run}{collect}",
        manifest.id, manifest.evaluator
    )
}

fn row(kernel: &ComparedKernel) -> Vec<String> {
    let both =
        |what: fn(Launches) -> String| [kernel.a, kernel.b].map(|launches| launches.map_or("–".to_owned(), what));
    let [launches_a, launches_b] = both(|launches| crate::run::words::grouped(launches.count));
    let [total_a, total_b] = both(|launches| nanoseconds(launches.total_ns.max(0).cast_unsigned()));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a duration in ns"
    )]
    let [mean_a, mean_b] = both(|launches| nanoseconds(launches.mean_ns.round() as u64));
    let change = kernel
        .mean_change
        .map_or("–".to_owned(), |change| format!("{:+.1} %", change * 100.0));
    let name = printable(&kernel.name);
    let name = without_namespaces(without_parameters(&name));
    vec![launches_a, launches_b, total_a, total_b, mean_a, mean_b, change, name]
}

/// The comparison for machines.
#[derive(Debug, Serialize)]
pub struct CompareJson<'a> {
    sessions: [Side<'a>; 2],
    equal_launches: u64,
    kernels: &'a [ComparedKernel],
}

#[derive(Debug, Serialize)]
struct Side<'a> {
    id: &'a str,
    evaluator: &'a str,
    release: Option<&'a str>,
    kernels: u64,
    #[serde(flatten)]
    cost: Cost,
}

impl<'a> CompareJson<'a> {
    /// All kernels, or the first `limit`.
    pub fn new(sessions: [&'a Session; 2], comparison: &'a Comparison, limit: Option<usize>) -> Self {
        let side = |place: usize| {
            let manifest = sessions[place].manifest();
            Side {
                id: &manifest.id,
                evaluator: &manifest.evaluator,
                release: manifest
                    .profiler
                    .as_ref()
                    .and_then(|profiler| profiler.release.as_deref()),
                kernels: sessions[place].rows("kernels"),
                cost: comparison.cost[place],
            }
        };
        let shown = limit.unwrap_or(usize::MAX).min(comparison.kernels.len());
        Self {
            sessions: [side(0), side(1)],
            equal_launches: comparison.equal_launches,
            kernels: &comparison.kernels[..shown],
        }
    }
}
