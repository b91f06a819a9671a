//! Findings on the terminal, as Markdown and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::analysis::findings::{AffectedKernel, Finding, Findings, Value};
use crate::report::names::{printable, shortened, without_namespaces, without_parameters};
use crate::report::show::{JSON_VERSION, duration};
use crate::run::words::{counted, grouped};
use crate::schema::manifest::SessionState;
use crate::session::Session;

/// What is said where nothing was found.
fn nothing(findings: &Findings) -> String {
    format!(
        "no findings: {} rules looked at {} and {}",
        findings.rules,
        counted(findings.kernel_count, "kernel"),
        counted(findings.step_count, "step")
    )
}

/// The columns that the SQL of some findings needs are written by compaction.
fn caveat(session: &Session) -> Option<&'static str> {
    (session.manifest().state != SessionState::Compacted).then_some(
        "this session was not compacted: its `layer` and `waves` columns are empty on disk, so the SQL of findings on steps and \
         waves gives nothing there",
    )
}

/// A kernel's name as it fits a line; a pair keeps both.
pub(crate) fn short_name(name: &str, width: usize) -> String {
    let parts: Vec<_> = name.split(" → ").collect();
    let room = (width / parts.len()).saturating_sub(3);
    let short = |part: &&str| match *part {
        "" => "(no name)".to_owned(),
        part => shortened(&printable(&without_namespaces(without_parameters(part))), room.max(12)),
    };
    parts.iter().map(short).collect::<Vec<_>>().join(" → ")
}

/// `12 x 1.20 ms`: a figure for people.
pub(crate) fn figure_words(name: &str, value: Value) -> String {
    match value {
        Value::Whole(ns) if name.ends_with("_ns") => duration(ns),
        Value::Part(ns) if name.ends_with("_ns") => duration(ns as i64),
        Value::Whole(whole) => grouped(u64::try_from(whole).unwrap_or(0)),
        Value::Part(part) => format!("{part:.2}"),
    }
}

/// `kernels_ns` is `kernels time`: `kernels` may be another figure.
pub(crate) fn label(name: &str) -> String {
    name.replace("_ns", "_time").replace('_', " ")
}

/// For a terminal.
pub fn findings_text(session: &Session, findings: &Findings, with_sql: bool, width: usize) -> String {
    let manifest = session.manifest();
    let command = printable(&manifest.command.join(" "));
    let mut text = format!("session {}  {}\n", manifest.id, shortened(&command, 100));
    for problem in &findings.problems {
        let _ = writeln!(text, "! {}", printable(&problem.message));
    }
    if findings.findings.is_empty() {
        let _ = writeln!(text, "\n{}", nothing(findings));
        return text;
    }
    for finding in &findings.findings {
        let _ = write!(
            text,
            "\n{:6}  {}: {}\n",
            finding.severity.word(),
            finding.rule,
            finding.title
        );
        let _ = writeln!(text, "        {}", figures_line(finding));
        for kernel in &finding.kernels {
            let _ = writeln!(text, "        {}", kernel_line(kernel, width.saturating_sub(8)));
        }
        text += &wrapped(&format!("why: {}", finding.why), width, "        ");
        text += &wrapped(&format!("try: {}", finding.next), width, "        ");
        if with_sql {
            for line in finding.sql.lines() {
                let _ = writeln!(text, "        {line}");
            }
        }
    }
    if with_sql {
        if let Some(caveat) = caveat(session) {
            let _ = writeln!(text, "\n{caveat}");
        }
    } else {
        text += "\n--sql shows the query behind each\n";
    }
    text
}

fn figures_line(finding: &Finding) -> String {
    let figure = |figure: &crate::analysis::findings::Figure| {
        format!("{} {}", label(figure.name), figure_words(figure.name, figure.value))
    };
    finding.figures.iter().map(figure).collect::<Vec<_>>().join(", ")
}

fn kernel_line(kernel: &AffectedKernel, width: usize) -> String {
    let figures = format!("{:>9} {:>9}  ", grouped(kernel.count), duration(kernel.total_ns));
    let room = width.saturating_sub(figures.len()).max(24);
    figures + &short_name(&kernel.name, room)
}

/// Breaks at spaces.
fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let room = width.saturating_sub(indent.len()).max(40);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always one");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.iter().map(|line| format!("{indent}{line}\n")).collect()
}

/// For a run's closing lines: the gravest, a line each.
pub fn findings_in_short(findings: &Findings) -> Vec<String> {
    const SHOWN: usize = 3;
    let grave = findings.findings.iter().take(SHOWN);
    let mut lines: Vec<_> = grave
        .map(|finding| format!("{}: {}", finding.rule, finding.title))
        .collect();
    let rest = findings.findings.len().saturating_sub(SHOWN);
    if rest > 0 {
        lines.push(format!("and {}", counted(rest as u64, "finding")));
    }
    lines
}

/// Foreign text in Markdown: nothing in it is markup.
pub(crate) fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in printable(text).chars() {
        match character {
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '&' => escaped += "&amp;",
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '$' => {
                escaped.push('\\');
                escaped.push(character);
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

/// `bottlenecks.md`.
pub fn findings_markdown(session: &Session, findings: &Findings) -> String {
    let mut text = format!("# Bottlenecks of session {}\n\n", markdown(&session.manifest().id));
    for problem in &findings.problems {
        let _ = writeln!(text, "> **!** {}\n", markdown(&problem.message));
    }
    if findings.findings.is_empty() {
        let _ = writeln!(text, "{}", nothing(findings));
        return text;
    }
    for (number, finding) in (1..).zip(&findings.findings) {
        let _ = write!(
            text,
            "## {number}. {} ({})\n\n**{}**\n\n{}\n\n*Try:* {}\n\n| figure | value |\n|---|---:|\n",
            markdown(finding.rule),
            finding.severity.word(),
            markdown(&finding.title),
            finding.why,
            finding.next
        );
        for figure in &finding.figures {
            let _ = writeln!(
                text,
                "| {} | {} |",
                label(figure.name),
                figure_words(figure.name, figure.value)
            );
        }
        if !finding.kernels.is_empty() {
            text += "\n| kernel | count | total |\n|---|---:|---:|\n";
            for kernel in &finding.kernels {
                let _ = writeln!(
                    text,
                    "| {} | {} | {} |",
                    markdown(&short_name(&kernel.name, 140)),
                    grouped(kernel.count),
                    duration(kernel.total_ns)
                );
            }
        }
        let _ = write!(text, "\n```sql\n{}\n```\n\n", finding.sql);
    }
    if let Some(caveat) = caveat(session) {
        let _ = writeln!(text, "> {caveat}");
    }
    text
}

/// `colonel analyze --json`.
#[derive(Debug, Serialize)]
pub struct FindingsJson<'a> {
    version: u32,
    id: &'a str,
    window: Option<&'a str>,
    #[serde(flatten)]
    findings: &'a Findings,
    #[serde(skip_serializing_if = "Option::is_none")]
    narrative: Option<&'a str>,
}

impl<'a> FindingsJson<'a> {
    /// With what a model said, if one was asked.
    pub fn new(
        session: &'a Session,
        findings: &'a Findings,
        window: Option<&'a str>,
        narrative: Option<&'a str>,
    ) -> Self {
        Self {
            version: JSON_VERSION,
            id: &session.manifest().id,
            window,
            findings,
            narrative,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_no_markup() {
        assert_eq!(markdown("f<a|b>*[x](y)`"), "f&lt;a\\|b&gt;\\*\\[x\\](y)\\`");
        assert_eq!(markdown("a\n# b"), "a?\\# b");
    }

    #[test]
    fn lines_break_at_words() {
        let text = wrapped(&"word ".repeat(20), 48, "    ");
        assert!(text.lines().all(|line| line.len() <= 48), "{text}");
        assert_eq!(text.split_whitespace().count(), 20);
    }

    #[test]
    fn a_pair_keeps_both_names() {
        assert_eq!(short_name("void f<int>(int) → g", 60), "f<int> → g");
        assert_eq!(short_name("", 20), "(no name)");
    }
}
