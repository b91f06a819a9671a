//! For a terminal.

use std::fmt::Write as _;

use super::Compared;
use super::counted::counters_text;
use super::words::{NONE, SIDES, difference, heading, in_all, interval, name, notes, noun, relative, time, verdict};
use crate::analysis::compare::{Change, ComparedRow, Launches, Unit, Verdict};
use crate::report::show::duration;
use crate::report::table::{Column, fit};
use crate::run::words::{counted, grouped};

/// What the last column is not cut below.
const LEAST_NAME: usize = 24;

/// Head and weight of the columns before the name.
const COLUMNS: [(&str, u8); 8] = [
    ("count A → B", 4),
    ("total A → B", 1),
    ("median A → B", 2),
    ("a step A → B", 5),
    ("difference", 6),
    ("change", u8::MAX),
    ("95 % interval", 3),
    ("", u8::MAX),
];
/// The column of time a step, and its head where there are no steps.
const UNIT: (usize, &str) = (3, "mean A → B");

/// Two sessions and their rows.
pub fn compare_text(compared: Compared<'_>, width: usize) -> String {
    let comparison = compared.comparison;
    let mut text = String::new();
    for (side, letter) in SIDES.into_iter().enumerate() {
        let _ = writeln!(text, "{letter}  {}", heading(&compared, side));
    }
    for warning in &comparison.warnings {
        let _ = writeln!(text, "!  {warning}");
    }
    if comparison.rows.is_empty() {
        let _ = writeln!(text, "\nneither has a {}", noun(comparison.by));
        return text;
    }
    text.push('\n');
    let lines: Vec<Vec<String>> = in_all(comparison)
        .into_iter()
        .map(|(what, change)| in_all_row(what, change))
        .collect();
    let heads = ["in all", "A", "B", "difference", "change", "95 % interval", ""];
    let columns: Vec<Column> = heads
        .iter()
        .enumerate()
        .map(|(place, head)| column(head, place > 0, u8::MAX))
        .collect();
    text += &fit(&columns, &lines, width, 13);
    for note in notes(comparison) {
        let _ = writeln!(text, "{note}");
    }
    text.push('\n');
    let mut columns: Vec<Column> = COLUMNS
        .iter()
        .map(|&(head, weight)| column(head, true, weight))
        .collect();
    if comparison.unit == Unit::Launch {
        columns[UNIT.0].head = UNIT.1;
    }
    columns[COLUMNS.len() - 1].right = false;
    columns.push(column(noun(comparison.by), false, u8::MAX));
    let shown = compared.shown();
    let rows: Vec<Vec<String>> = comparison.rows[..shown]
        .iter()
        .map(|row| cells(row, name(row, comparison.by)))
        .collect();
    text += &fit(&columns, &rows, width, LEAST_NAME);
    let rest = comparison.rows.len() - shown;
    if rest > 0 {
        let noun = format!("more {}", noun(comparison.by));
        let _ = writeln!(text, "and {}: --limit 0 shows all", counted(rest as u64, &noun));
    }
    text + &counters_text(compared, width)
}

const fn column(head: &'static str, right: bool, weight: u8) -> Column {
    Column { head, right, weight }
}

fn in_all_row(what: &str, change: &Change) -> Vec<String> {
    vec![
        what.to_owned(),
        time(change.a_ns),
        time(change.b_ns),
        difference(change.difference_ns),
        relative(change.relative),
        interval(change),
        change.verdict.unwrap_or(Verdict::CannotTell).word().to_owned(),
    ]
}

fn cells(row: &ComparedRow, name: String) -> Vec<String> {
    let both = |what: fn(Launches) -> String| pair([row.a, row.b].map(|side| side.map_or(NONE.to_owned(), what)));
    let change = &row.change;
    vec![
        both(|side| grouped(side.count)),
        both(|side| duration(side.total_ns)),
        both(|side| side.median_ns.map_or(NONE.to_owned(), duration)),
        pair([time(change.a_ns), time(change.b_ns)]),
        difference(change.difference_ns),
        relative(change.relative),
        interval(change),
        verdict(row).to_owned(),
        name,
    ]
}

/// `384 → 360`, or `384` where both are the same.
fn pair([a, b]: [String; 2]) -> String {
    if a == b { a } else { format!("{a} → {b}") }
}
