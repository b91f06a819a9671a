//! What all formats say in the same words.

use super::Compared;
use crate::analysis::Comparison;
use crate::analysis::compare::{By, Change, ComparedRow, Match, PhaseSteps, Unit, Verdict};
use crate::report::names::{printable, without_namespaces, without_parameters};
use crate::report::show::duration;
use crate::run::words::{counted, grouped, nanoseconds};

/// What is not there.
pub(super) const NONE: &str = "–";

pub(super) const SIDES: [&str; 2] = ["A", "B"];

/// `5e27fc0e (name), window 2  cupti  4,928 kernels  ran 85.8 s`.
pub(super) fn heading(compared: &Compared<'_>, side: usize) -> String {
    let manifest = compared.sessions[side].manifest();
    let cost = compared.comparison.cost[side];
    let name = manifest.name.as_ref();
    let name = name.map_or(String::new(), |name| format!(" ({})", printable(name)));
    let window = compared.windows[side].map_or(String::new(), |window| format!(", window {}", printable(window)));
    let profiler = manifest.profiler.as_ref();
    let release = profiler.and_then(|profiler| profiler.release.as_deref());
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
        "{}{name}{window}  {}{release}  {kernels}  {run}{collect}",
        manifest.id, manifest.evaluator
    )
}

/// What a row's time is of.
pub(super) fn unit(comparison: &Comparison) -> &'static str {
    match comparison.unit {
        Unit::Step => "a step",
        Unit::Launch => "a launch",
    }
}

/// Lines of the table in all: what it is, and its change.
pub(super) fn in_all(comparison: &Comparison) -> Vec<(&'static str, &Change)> {
    let kernels = match comparison.unit {
        Unit::Step => "time in kernels, a step",
        Unit::Launch => "time of A's launches",
    };
    let steps = comparison.steps_in_all.as_ref();
    let mut lines = vec![(kernels, &comparison.kernels_in_all)];
    lines.extend(steps.map(|steps| ("length of a step", steps)));
    lines
}

/// What was compared, and what was not, in sentences.
pub(super) fn notes(comparison: &Comparison) -> Vec<String> {
    let mut notes = Vec::new();
    let steps = |phase: &PhaseSteps| {
        let word = phase.phase.map_or("of all phases", |phase| phase.word());
        format!("{word} {} in A and {} in B", grouped(phase.a), grouped(phase.b))
    };
    let listed = |is_compared: bool| {
        let phases = comparison
            .phases
            .iter()
            .filter(|phase| phase.is_compared == is_compared);
        phases.map(steps).collect::<Vec<_>>().join(", ")
    };
    if comparison.unit == Unit::Step {
        let left_out = match listed(false) {
            left_out if left_out.is_empty() => String::new(),
            left_out => format!("; left out, too few in one: {left_out}"),
        };
        let mix = match comparison.phases.iter().filter(|phase| phase.is_compared).count() {
            0 | 1 => "",
            _ => ", at A's share of each phase",
        };
        notes.push(format!("steps compared: {}{mix}{left_out}", listed(true)));
    } else {
        notes.push(
            "one session has no steps, so times are means of launches, and in all those of A's launches at A's and at B's means"
                .to_owned(),
        );
    }
    match &comparison.why_no_interval {
        Some(why) => notes.push(format!("no interval: {why}")),
        None => notes.push(
            "95 % intervals by a block bootstrap; the words of rows hold for all rows together, and less than 1 % is no difference"
                .to_owned(),
        ),
    }
    notes
}

/// What the rows are called.
pub(super) fn noun(by: By) -> &'static str {
    match by {
        By::Kernel => "kernel",
        By::Layer => "layer",
        By::Step => "kind of step",
    }
}

/// `+5.3 %`.
pub(super) fn relative(part: Option<f64>) -> String {
    part.map_or(NONE.to_owned(), |part| {
        let text = format!("{:+.1} %", part * 100.0);
        if text == "-0.0 %" { "+0.0 %".to_owned() } else { text }
    })
}

/// `+4.1 to +6.4 %`.
pub(super) fn interval(change: &Change) -> String {
    match (change.low, change.high) {
        (Some(low), high) => format!("{} to {}", relative(Some(low)).trim_end_matches(" %"), relative(high)),
        _ => NONE.to_owned(),
    }
}

/// `+58.0 us`.
pub(super) fn difference(ns: Option<f64>) -> String {
    ns.map_or(NONE.to_owned(), |ns| {
        let sign = if ns < 0.0 { '-' } else { '+' };
        format!("{sign}{}", time(Some(ns.abs())))
    })
}

#[expect(clippy::cast_possible_truncation, reason = "a duration in ns")]
pub(super) fn time(ns: Option<f64>) -> String {
    ns.map_or(NONE.to_owned(), |ns| duration(ns.round() as i64))
}

/// In a word.
pub(super) fn verdict(row: &ComparedRow) -> &'static str {
    match row.how {
        Match::OnlyA | Match::OnlyB => row.how.word(),
        _ => row.change.verdict.map_or(NONE, Verdict::word),
    }
}

/// The row's name for people, with how it was matched where that is not by the same name and shape.
pub(super) fn name(row: &ComparedRow, by: By) -> String {
    let short = |name: &str| match (by, name) {
        (By::Kernel, "") => "(no name)".to_owned(),
        (By::Layer, "") => "(no layer)".to_owned(),
        (By::Layer, name) if name.chars().all(|c| c.is_ascii_digit()) => format!("layer {name}"),
        (By::Kernel, name) => without_namespaces(without_parameters(&printable(name))),
        (_, name) => printable(name),
    };
    let how = match row.how {
        Match::Reshaped | Match::Renamed => format!("{}: ", row.how.word()),
        _ => String::new(),
    };
    let arrow = row
        .name_b
        .as_ref()
        .map_or(String::new(), |name| format!(" → {}", short(name)));
    format!("{how}{}{arrow}", short(&row.name))
}
