//! `summary.md`: a session in short, as Markdown.

use std::fmt::Write as _;

use crate::analysis::SessionSummary;
use crate::report::findings::{markdown, short_name};
use crate::report::names::shape;
use crate::report::show::{duration, how_it_ended, percent};
use crate::report::time::utc;
use crate::run::Summary;
use crate::run::words::{bytes, counted, grouped};
use crate::session::Session;

/// Kernels listed.
const KERNELS: usize = 30;

/// What ran, what was lost, and where the time went.
pub fn summary_markdown(session: &Session, run: &Summary, summary: &SessionSummary) -> String {
    let manifest = session.manifest();
    let mut text = format!("# Session {}\n\n", markdown(&manifest.id));
    let _ = writeln!(text, "{}\n", markdown(&manifest.command.join(" ")));
    let _ = writeln!(text, "{} UTC, {}\n", utc(manifest.created_ns), how_it_ended(session));
    for warning in run.warnings() {
        let _ = writeln!(text, "> {}\n", markdown(&warning));
    }
    if summary.kernels.is_empty() {
        let why = run.why_no_kernels.as_deref().unwrap_or("the session does not say why");
        let _ = writeln!(text, "No kernels: {}", markdown(why));
        return text;
    }
    text += "| GPU | kernels | busy | idle | busy share | longest gap |\n|---|---:|---:|---:|---:|---:|\n";
    for device in &summary.devices {
        let _ = writeln!(
            text,
            "| {} (pid {}) | {} | {} | {} | {} | {} |",
            markdown(device.name.as_deref().unwrap_or("unknown")),
            device.pid,
            grouped(device.kernels),
            duration(device.busy_ns),
            duration(device.idle_ns),
            percent(device.busy_ns as f64 / device.span_ns.max(1) as f64),
            duration(device.longest_gap_ns)
        );
    }
    let _ = write!(
        text,
        "\n{} of {}, {} of GPU time\n\n| share | count | total | median | p95 | grid x block | kernel |\n\
         |---:|---:|---:|---:|---:|---|---|\n",
        counted(summary.kernel_count, "kernel"),
        counted(summary.kernels.len() as u64, "name"),
        duration(summary.kernels_ns)
    );
    for kernel in summary.kernels.iter().take(KERNELS) {
        let durations = &kernel.durations;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            percent(kernel.share),
            grouped(durations.count),
            duration(durations.total_ns),
            duration(durations.median_ns),
            duration(durations.p95_ns),
            shape(kernel.shape),
            markdown(&short_name(&kernel.name, 120))
        );
    }
    let rest = summary.kernels.len().saturating_sub(KERNELS);
    if rest > 0 {
        let _ = writeln!(text, "\nand {} more", counted(rest as u64, "name"));
    }
    let copies = summary.memcpys.iter().map(|(kind, copy)| (kind.clone(), copy));
    let fills = summary
        .memsets
        .iter()
        .map(|(kind, fill)| (format!("fill {kind}"), fill));
    let mut rows = copies.chain(fills).peekable();
    if rows.peek().is_some() {
        text += "\n| copies | count | size | total |\n|---|---:|---:|---:|\n";
        for (kind, transfer) in rows {
            let size = bytes(transfer.bytes);
            let total = duration(transfer.total_ns);
            let _ = writeln!(
                text,
                "| {} | {} | {size} | {total} |",
                markdown(&kind),
                grouped(transfer.count)
            );
        }
    }
    text
}
