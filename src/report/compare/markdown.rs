//! For a pull request or an issue.

use std::fmt::Write as _;

use super::Compared;
use super::words::{NONE, SIDES, difference, heading, in_all, interval, name, notes, noun, relative, time, verdict};
use crate::analysis::compare::Verdict;
use crate::report::findings::markdown;
use crate::report::names::shortened;
use crate::run::words::{counted, grouped};

/// Characters of a name.
const NAME: usize = 120;

/// Two sessions and their rows.
pub fn compare_markdown(compared: Compared<'_>) -> String {
    let comparison = compared.comparison;
    let mut text = "# Comparison\n\n".to_owned();
    for (side, letter) in SIDES.into_iter().enumerate() {
        let _ = writeln!(text, "- {letter}: {}", markdown(&heading(&compared, side)));
    }
    for warning in &comparison.warnings {
        let _ = write!(text, "\n> {}\n", markdown(warning));
    }
    if comparison.rows.is_empty() {
        let _ = write!(text, "\nNeither has a {}.\n", noun(comparison.by));
        return text;
    }
    text += "\n| in all | A | B | difference | change | 95 % interval | |\n|---|---:|---:|---:|---:|---:|---|\n";
    for (what, change) in in_all(comparison) {
        let _ = writeln!(
            text,
            "| {what} | {} | {} | {} | {} | {} | {} |",
            time(change.a_ns),
            time(change.b_ns),
            difference(change.difference_ns),
            relative(change.relative),
            interval(change),
            change.verdict.unwrap_or(Verdict::CannotTell).word()
        );
    }
    for note in notes(comparison) {
        let _ = write!(text, "\n{}\n", markdown(&note));
    }
    let _ = write!(
        text,
        "\n| count A | B | A | B | difference | change | 95 % interval | | {} |\n|---:|---:|---:|---:|---:|---:|---:|---|---|\n",
        noun(comparison.by)
    );
    let shown = compared.shown();
    for row in &comparison.rows[..shown] {
        let [count_a, count_b] = [row.a, row.b].map(|side| side.map_or(NONE.to_owned(), |side| grouped(side.count)));
        let change = &row.change;
        let _ = writeln!(
            text,
            "| {count_a} | {count_b} | {} | {} | {} | {} | {} | {} | {} |",
            time(change.a_ns),
            time(change.b_ns),
            difference(change.difference_ns),
            relative(change.relative),
            interval(change),
            verdict(row),
            markdown(&shortened(&name(row, comparison.by), NAME))
        );
    }
    let rest = comparison.rows.len() - shown;
    if rest > 0 {
        let _ = write!(
            text,
            "\nand {}\n",
            counted(rest as u64, &format!("more {}", noun(comparison.by)))
        );
    }
    text
}
