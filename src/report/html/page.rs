//! The page: what the template shows, with every text escaped by it.

use std::collections::BTreeSet;
use std::io::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use minijinja::{AutoEscape, Environment};
use serde_json::{Value, json};

use super::charts::charts;
use super::gather::Gathered;
use super::spans::{LaneKey, LaneKind, Lanes, encode};
use super::speed::sections;
use crate::analysis::findings::{Finding, Findings};
use crate::analysis::{CounterLines, KernelSummary, LayerSummary, SessionSummary};
use crate::report::findings::{figure_words, label, short_name};
use crate::report::names::{printable, shape};
use crate::report::show::{duration, how_it_ended, percent};
use crate::report::time::utc;
use crate::run::Summary;
use crate::run::words::{bytes, grouped};
use crate::session::{Selection, Session, SessionError};

/// Rows of the table of kernels.
const KERNELS: usize = 50;

const CSS: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const ECHARTS: &str = include_str!(env!("COLONEL_ECHARTS"));

/// The page, and the findings on it.
pub fn report_html(
    session: &Session,
    run: &Summary,
    summary: &SessionSummary,
    selection: Option<&Selection>,
) -> Result<(String, Findings), SessionError> {
    // Each is a pass over all kernels, and takes about as long as the other.
    let (layers, gathered) = std::thread::scope(|scope| {
        let layers = scope.spawn(|| LayerSummary::of(session, selection));
        let gathered = Gathered::of(session, selection);
        (
            layers.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            gathered,
        )
    });
    let (layers, gathered) = (layers?, gathered?);
    let charts = charts(summary, &layers, &gathered);
    let zero_ns = gathered.lanes.bounds().map_or(0, |(first_ns, _)| first_ns);
    let speed = gathered.evidence.speed_of_light();
    let (speed, of_speed): (Vec<_>, Vec<_>) = sections(speed, &CounterLines::of(session, selection)?, zero_ns)
        .into_iter()
        .unzip();
    let options: serde_json::Map<_, _> = charts
        .iter()
        .chain(of_speed.iter().flatten())
        .map(|chart| (chart.option().0.to_owned(), chart.option().1.clone()))
        .collect();
    let timeline = timeline(&gathered.lanes);
    let resolution_ns = gathered.lanes.resolution_ns();
    let findings = Findings::by(gathered.evidence, selection);
    let manifest = session.manifest();
    let (busy, span) = summary.devices.iter().fold((0_i64, 0_i64), |(busy, span), device| {
        (busy.saturating_add(device.busy_ns), span.saturating_add(device.span_ns))
    });
    let page = json!({
        "id": manifest.id,
        "name": manifest.name.as_deref().map(printable),
        "command": printable(&manifest.command.join(" ")),
        "facts": facts(session, run, summary),
        "tiles": [
            ("kernels", grouped(summary.kernel_count)),
            ("GPU time in kernels", duration(summary.kernels_ns)),
            ("GPU busy", if span > 0 { percent(busy as f64 / span as f64) } else { "-".to_owned() }),
            ("lost records", lost(run)),
        ],
        "warnings": run.warnings(),
        "why_no_kernels": run.why_no_kernels,
        "window": summary.window,
        "findings": findings.findings.iter().map(finding).collect::<Vec<_>>(),
        "rules": findings.rules,
        "steps": findings.step_count,
        "charts": charts,
        "speed": speed,
        "has_timeline": timeline != Value::Null,
        "merged": (resolution_ns > 0).then(|| duration(resolution_ns)),
        "kernels": summary.kernels.iter().take(KERNELS).map(kernel).collect::<Vec<_>>(),
        "more_kernels": summary.kernels.len().saturating_sub(KERNELS),
        "devices": summary.devices.iter().map(device).collect::<Vec<_>>(),
    });
    let data = json!({"charts": options, "timeline": timeline});
    Ok((render("page.html", include_str!("page.html"), page, &data), findings))
}

/// Fills a template in, which extends `frame.html`. `data` is for the script.
pub(crate) fn render(name: &str, text: &str, mut page: Value, data: &Value) -> String {
    let data = for_script(data);
    let of_frame = [
        ("css", CSS),
        ("script", SCRIPT),
        ("echarts", ECHARTS),
        ("data", &data),
        ("version", crate::VERSION),
    ];
    for (name, text) in of_frame {
        page[name] = text.into();
    }
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    // The templates are ours and tested: an error is a fault of this build, and says itself on the page.
    environment
        .add_template("frame.html", include_str!("frame.html"))
        .and_then(|()| {
            environment
                .template_from_named_str(name, text)?
                .render(minijinja::value::Serde(&page))
        })
        .unwrap_or_else(|error| format!("<!doctype html><pre>the page could not be made: {error}</pre>"))
}

/// JSON inside of a script element: nothing in it ends the element.
fn for_script(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

fn lost(run: &Summary) -> String {
    match (run.lost_uncounted, run.lost) {
        (false, lost) => grouped(lost),
        (true, 0) => "unknown".to_owned(),
        (true, lost) => format!("{}, and more", grouped(lost)),
    }
}

fn facts(session: &Session, run: &Summary, summary: &SessionSummary) -> Vec<(&'static str, String)> {
    let manifest = session.manifest();
    let mut gpus: Vec<_> = summary
        .devices
        .iter()
        .filter_map(|device| device.name.clone())
        .collect();
    gpus.sort_unstable();
    gpus.dedup();
    let processes: Vec<_> = run
        .processes
        .iter()
        .map(|process| format!("{} (pid {})", process.name, process.pid))
        .collect();
    let mut facts = vec![
        (
            "when",
            format!("{} UTC, {}", utc(manifest.created_ns), how_it_ended(session)),
        ),
        ("where", manifest.host.name.clone()),
        ("GPU", gpus.join(", ")),
        ("processes", processes.join(", ")),
        ("recorded", run.windows_in_words(", ")),
        ("on disk", bytes(run.bytes)),
    ];
    if manifest.simulated {
        facts.push(("simulated", "by gpu-sim: no GPU was there".to_owned()));
    }
    facts.retain(|(_, fact)| !fact.is_empty());
    facts.iter_mut().for_each(|(_, fact)| *fact = printable(fact));
    facts
}

fn finding(finding: &Finding) -> Value {
    let figures: Vec<_> = finding
        .figures
        .iter()
        .map(|figure| (label(figure.name), figure_words(figure.name, figure.value)))
        .collect();
    let kernels: Vec<_> = finding
        .kernels
        .iter()
        .map(|kernel| {
            (
                short_name(&kernel.name, 120),
                grouped(kernel.count),
                duration(kernel.total_ns),
            )
        })
        .collect();
    json!({
        "rule": finding.rule,
        "severity": finding.severity.word(),
        "title": finding.title,
        "why": finding.why,
        "next": finding.next,
        "sql": finding.sql,
        "figures": figures,
        "kernels": kernels,
    })
}

fn kernel(kernel: &KernelSummary) -> Value {
    let durations = &kernel.durations;
    json!({
        "share": percent(kernel.share),
        "count": grouped(durations.count),
        "total": duration(durations.total_ns),
        "median": duration(durations.median_ns),
        "p95": duration(durations.p95_ns),
        "max": duration(durations.max_ns),
        "shape": shape(kernel.shape),
        "short": short_name(&kernel.name, 70),
        "name": printable(&kernel.name),
    })
}

fn device(device: &crate::analysis::DeviceSummary) -> [String; 7] {
    [
        format!("pid {}, GPU {}", device.pid, device.device_id),
        grouped(device.kernels),
        duration(device.busy_ns),
        duration(device.idle_ns),
        percent(device.busy_ns as f64 / device.span_ns.max(1) as f64),
        duration(device.longest_gap_ns),
        device.name.clone().unwrap_or_else(|| "unknown".to_owned()),
    ]
}

/// Lanes, names, and the spans of all lanes as one compressed block.
fn timeline(lanes: &Lanes) -> Value {
    let Some((first_ns, last_ns)) = lanes.bounds() else {
        return Value::Null;
    };
    // What is the same for all lanes tells nothing.
    let pids: BTreeSet<u32> = lanes.lanes().map(|(key, _)| key.0).collect();
    let on_gpu = lanes.lanes().filter(|(key, _)| key.1 != LaneKind::Range);
    let gpus: BTreeSet<u32> = on_gpu.map(|(key, _)| key.2).collect();
    let mut raw = Vec::new();
    let mut described = Vec::new();
    for (key, spans) in lanes.lanes() {
        encode(spans, first_ns, &mut raw);
        described.push(
            json!({"label": lane_label(*key, pids.len() > 1, gpus.len() > 1), "kind": key.1, "spans": spans.len()}),
        );
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Into memory, so it can't fail.
    let packed = encoder
        .write_all(&raw)
        .and_then(|()| encoder.finish())
        .unwrap_or_default();
    json!({
        "length": last_ns.saturating_sub(first_ns),
        "lanes": described,
        "names": lanes.name_texts(),
        "spans": BASE64_STANDARD.encode(packed),
    })
}

fn lane_label((pid, kind, first, second): LaneKey, with_pid: bool, with_gpu: bool) -> String {
    let what = match kind {
        LaneKind::Range => format!("NVTX {second}, thread {first}"),
        LaneKind::Step => "steps".to_owned(),
        LaneKind::Layer => "layers".to_owned(),
        LaneKind::Stream => format!("stream {second}"),
        LaneKind::Copy => "copies".to_owned(),
    };
    let pid = if with_pid {
        format!(", pid {pid}")
    } else {
        String::new()
    };
    let gpu = match with_gpu && kind != LaneKind::Range {
        true => format!(", GPU {first}"),
        false => String::new(),
    };
    what + &gpu + &pid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_end_its_script() {
        let text = for_script(&json!({"name": "</script><script>alert(1)"}));
        assert!(!text.contains('<'), "{text}");
        let back: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back["name"], "</script><script>alert(1)");
    }
}
