//! As one page, made as the report's is.

use serde_json::{Value, json};

use super::words::{SIDES, difference, heading, in_all, interval, name, notes, noun, relative, time, verdict};
use super::{Compared, words};
use crate::analysis::Comparison;
use crate::analysis::compare::{Change, ComparedRow, StepTime, Verdict};
use crate::report::html::{Chart, bars, render};
use crate::report::names::{printable, shortened};
use crate::run::words::grouped;

/// Rows in a chart.
const BARS: usize = 15;
/// Characters of a name in a chart, and in the table.
const NAMES: [usize; 2] = [44, 90];

/// The page.
pub fn compare_html(compared: Compared<'_>) -> String {
    let comparison = compared.comparison;
    let charts: Vec<Chart> = [
        difference_chart(comparison),
        both_chart(comparison),
        steps_chart(comparison),
    ]
    .into_iter()
    .flatten()
    .collect();
    let options: serde_json::Map<_, _> = charts
        .iter()
        .map(|chart| (chart.option().0.to_owned(), chart.option().1.clone()))
        .collect();
    let lines = in_all(comparison);
    let page = json!({
        "ids": compared.sessions.map(|session| session.manifest().id.clone()),
        "headings": SIDES.iter().zip([0, 1].map(|side| heading(&compared, side))).collect::<Vec<_>>(),
        "verdict": comparison.verdict().word(),
        "warnings": comparison.warnings,
        "in_all": lines.iter().map(|(what, change)| line(what, change)).collect::<Vec<_>>(),
        "notes": notes(comparison),
        "charts": charts,
        "noun": noun(comparison.by),
        "unit": words::unit(comparison),
        "rows": comparison.rows[..compared.shown()].iter().map(|row| cells(row, comparison)).collect::<Vec<_>>(),
        "more": comparison.rows.len() - compared.shown(),
    });
    render(
        "compare.html",
        include_str!("compare.html"),
        page,
        &json!({"charts": options}),
    )
}

fn line(what: &str, change: &Change) -> Value {
    json!({
        "what": what,
        "change": changed(change),
        "verdict": change.verdict.unwrap_or(Verdict::CannotTell).word(),
    })
}

fn changed(change: &Change) -> [String; 5] {
    [
        time(change.a_ns),
        time(change.b_ns),
        difference(change.difference_ns),
        relative(change.relative),
        interval(change),
    ]
}

fn cells(row: &ComparedRow, comparison: &Comparison) -> Value {
    let full = match &row.name_b {
        Some(name_b) => format!("{} → {name_b}", row.name),
        None => row.name.clone(),
    };
    let counts = [row.a, row.b].map(|side| side.map_or(words::NONE.to_owned(), |side| grouped(side.count)));
    json!({
        "counts": counts,
        "change": changed(&row.change),
        "verdict": verdict(row),
        "short": shortened(&name(row, comparison.by), NAMES[1]),
        "name": printable(&full),
    })
}

fn label(row: &ComparedRow, comparison: &Comparison) -> String {
    shortened(&name(row, comparison.by), NAMES[0])
}

fn difference_chart(comparison: &Comparison) -> Option<Chart> {
    let with = comparison
        .rows
        .iter()
        .filter(|row| row.contribution_ns.is_some_and(|ns| ns != 0.0));
    let shown: Vec<&ComparedRow> = with.take(BARS).collect();
    let labels: Vec<_> = shown.iter().map(|row| label(row, comparison)).collect();
    let values = shown.iter().map(|row| json!(row.contribution_ns)).collect();
    let rows = labels.len();
    let note = "What each contributes to the difference from A to B: to the right, B takes longer.";
    (rows > 0).then(|| {
        Chart::new(
            "difference",
            "What makes the difference",
            note,
            rows,
            bars(labels, values, "ns"),
        )
    })
}

fn both_chart(comparison: &Comparison) -> Option<Chart> {
    let longest = |row: &&ComparedRow| row.change.a_ns.unwrap_or(0.0).max(row.change.b_ns.unwrap_or(0.0));
    let mut rows: Vec<&ComparedRow> = comparison.rows.iter().collect();
    rows.sort_by(|a, b| longest(b).total_cmp(&longest(a)));
    rows.truncate(BARS);
    let labels: Vec<_> = rows.iter().map(|row| label(row, comparison)).collect();
    let mut option = bars(labels, Vec::new(), "ns");
    let series = |name: &str, of: fn(&Change) -> Option<f64>| {
        let values: Vec<_> = rows.iter().map(|row| of(&row.change)).collect();
        json!({"type": "bar", "name": name, "data": values, "barMaxWidth": 9})
    };
    option["series"] = json!([series("A", |change| change.a_ns), series("B", |change| change.b_ns)]);
    option["legend"] = json!({"top": 0});
    let note = format!("Time {}.", words::unit(comparison));
    (!rows.is_empty()).then(|| Chart::new("both", "The longest", &note, rows.len() + 2, option))
}

/// So that drift is seen.
fn steps_chart(comparison: &Comparison) -> Option<Chart> {
    let points = |steps: &[StepTime]| {
        let points = steps.iter().map(|step| json!([step.after_ns, step.kernels_ns]));
        points.collect::<Vec<_>>()
    };
    let [a, b] = [&comparison.steps[0], &comparison.steps[1]];
    let option = json!({
        "unit": "ns", "unitX": "ns", "legend": {"top": 0},
        "xAxis": {"type": "value"},
        "yAxis": {"type": "value", "scale": true},
        "series": [
            {"name": "A", "type": "scatter", "symbolSize": 6, "data": points(a)},
            {"name": "B", "type": "scatter", "symbolSize": 6, "data": points(b)},
        ],
    });
    let note = "Time in kernels of each step that was compared, since the first of its session.";
    (!a.is_empty() && !b.is_empty()).then(|| Chart::new("steps", "Steps", note, 9, option))
}
