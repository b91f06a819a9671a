//! The second part of `colonel show --counters`: what part of the GPU's peaks each kernel and layer reaches.

use std::fmt::Write as _;

use crate::analysis::{Bound, DeviceSpeed, MetricFigure, Speed, SpeedOfLight, Trust};
use crate::report::findings::markdown;
use crate::report::show::{number, words};
use crate::report::table::{Column, fit};
use crate::run::words::{counted, grouped, nanoseconds};
use crate::schema::counters::{
    DRAM_READ_BYTES, DRAM_READ_THROUGHPUT, DRAM_THROUGHPUT, DRAM_WRITE_BYTES, DRAM_WRITE_THROUGHPUT, INSTRUCTIONS,
    L1_THROUGHPUT, L2_THROUGHPUT, NVLINK_RECEIVED_BYTES, NVLINK_SENT_BYTES, PCIE_THROUGHPUT, SM_ACTIVE, SM_THROUGHPUT,
    TENSOR_ACTIVE, WARPS_ACTIVE,
};

/// Metrics that have a column, where they were sampled: its head, and how much it matters.
pub(crate) const SHOWN: [(&str, &str, u8); 15] = [
    (DRAM_THROUGHPUT, "DRAM %", u8::MAX),
    (TENSOR_ACTIVE, "tensor %", 14),
    (INSTRUCTIONS, "instr. %", 13),
    (SM_THROUGHPUT, "SM %", 12),
    (SM_ACTIVE, "SMs busy %", 11),
    (WARPS_ACTIVE, "warps %", 8),
    (L2_THROUGHPUT, "L2 %", 10),
    (L1_THROUGHPUT, "L1 %", 9),
    (PCIE_THROUGHPUT, "PCIe %", 7),
    (DRAM_READ_BYTES, "read GB/s", 6),
    (DRAM_WRITE_BYTES, "written GB/s", 5),
    (DRAM_READ_THROUGHPUT, "reads %", 4),
    (DRAM_WRITE_THROUGHPUT, "writes %", 3),
    (NVLINK_RECEIVED_BYTES, "NVLink in GB/s", 2),
    (NVLINK_SENT_BYTES, "NVLink out GB/s", 1),
];

/// Rows of a table in Markdown.
const ROWS: usize = 30;

/// What a kernel's `compute_pct` is the busiest of.
pub(crate) const COMPUTE: &str =
    "the busiest of tensor pipes, instructions and SM throughput, as far as they were sampled";

/// Kernels and layers of a device.
pub(crate) fn speed_text(device: &DeviceSpeed, level: f64, limit: Option<usize>, width: usize) -> String {
    let mut text = format!("\nspeed of light by kernel, {}\n", of_what(device));
    let shown = limit.unwrap_or(usize::MAX).min(device.kernels.len());
    text += &table(device, &device.kernels[..shown], "kernel", width);
    if shown < device.kernels.len() {
        let rest = grouped((device.kernels.len() - shown) as u64);
        let _ = writeln!(text, "… and {rest} more kernels: `--limit 0` shows all");
    }
    if !device.layers.is_empty() {
        text += "\nby layer\n";
        text += &table(device, &alike_together(&device.layers), "layer", width);
    }
    text += &legend(device, level);
    text
}

/// `device 0 (NVIDIA H100): 30,437 samples of 100 us, clocks 0 ns ± 611 ns apart`.
pub(crate) fn of_what(device: &DeviceSpeed) -> String {
    let name = device.name.as_ref().map(|name| format!(" ({name})"));
    format!(
        "device {}{}: {} of {}, clocks {} ± {} apart",
        device.device_id,
        name.unwrap_or_default(),
        counted(device.samples, "sample"),
        nanoseconds(device.sample_ns.unsigned_abs()),
        signed(device.offset_ns),
        nanoseconds(device.offset_sd_ns as u64),
    )
}

/// Tables of kernels and layers, and the kernels' places under the roofline, as Markdown.
pub fn speed_markdown(speed: &SpeedOfLight) -> String {
    let mut text = String::new();
    for device in &speed.devices {
        let _ = writeln!(text, "\n## Speed of light\n\n{}\n", markdown(&of_what(device)));
        let layers = alike_together(&device.layers);
        for (what, speeds) in [("kernel", &device.kernels), ("layer", &layers)] {
            if speeds.is_empty() {
                continue;
            }
            let shown = &speeds[..ROWS.min(speeds.len())];
            let (columns, rows) = speed_rows(device, shown, what);
            let heads: Vec<&str> = columns.iter().map(|column| column.head).collect();
            let lines: Vec<&str> = columns
                .iter()
                .map(|column| if column.right { "---:" } else { "---" })
                .collect();
            let _ = writeln!(text, "| {} |\n|{}|", heads.join(" | "), lines.join("|"));
            for row in rows {
                let cells: Vec<String> = row.iter().map(|cell| markdown(cell)).collect();
                let _ = writeln!(text, "| {} |", cells.join(" | "));
            }
            let rest = speeds.len() - shown.len();
            if rest > 0 {
                let _ = writeln!(text, "\nand {} more", grouped(rest as u64));
            }
            text.push('\n');
        }
        let _ = writeln!(text, "{}", markdown(legend(device, speed.level).trim_end()));
        text += &places(device);
    }
    text
}

/// Where each kernel stands under the roofline.
fn places(device: &DeviceSpeed) -> String {
    let known: Vec<_> = device
        .kernels
        .iter()
        .filter_map(|kernel| Some((kernel, kernel.roofline?)))
        .collect();
    let mut text = format!(
        "\nRoofline: what part of the peaks of device memory and of compute ({COMPUTE}) each reaches.{}\n",
        not_placed(device)
    );
    if known.is_empty() {
        return text;
    }
    text += "\n| device memory | compute | FLOP a byte | bound by | kernel |\n|---:|---:|---:|---|---|\n";
    for (kernel, place) in known.iter().take(ROWS) {
        let flop = place
            .tensor_flop_per_byte
            .map_or_else(|| "-".to_owned(), |flop| format!("{flop:.1}"));
        let _ = writeln!(
            text,
            "| {:.1} % | {:.1} % | {flop} | {} | {} |",
            place.memory_pct,
            place.compute_pct,
            bound(place.bound),
            markdown(&kernel.short_name)
        );
    }
    text
}

/// Neighbours with the same figures become one: layers of the same kernels.
pub(crate) fn alike_together(layers: &[Speed]) -> Vec<Speed> {
    let is_alike = |a: &Speed, b: &Speed| a.figures == b.figures && a.count == b.count;
    let together = |layers: &[Speed]| {
        let mut all = layers.first()?.clone();
        if let Some(last) = layers.last().filter(|_| layers.len() > 1) {
            all.short_name = format!("{} to {}", all.name, last.name);
            all.share = layers.iter().map(|layer| layer.share).sum();
            all.total_ns = layers.iter().map(|layer| layer.total_ns).sum();
            all.count = layers.iter().map(|layer| layer.count).sum();
        }
        Some(all)
    };
    layers.chunk_by(is_alike).filter_map(together).collect()
}

fn signed(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    format!("{sign}{}", nanoseconds(ns.unsigned_abs()))
}

fn table(device: &DeviceSpeed, speeds: &[Speed], last: &'static str, width: usize) -> String {
    let (columns, rows) = speed_rows(device, speeds, last);
    fit(&columns, &rows, width, 16)
}

/// Columns, and a row for each; names stand last.
pub(crate) fn speed_rows(
    device: &DeviceSpeed,
    speeds: &[Speed],
    last: &'static str,
) -> (Vec<Column>, Vec<Vec<String>>) {
    let has = |metric: &str| device.metrics.iter().any(|fitted| fitted.metric == metric);
    let shown: Vec<_> = SHOWN.iter().filter(|(metric, ..)| has(metric)).collect();
    let mut columns: Vec<Column> = vec![number("time", 16), number("mean", 15)];
    columns.extend(shown.iter().map(|(_, head, weight)| number(head, *weight)));
    columns.extend([words("bound by", u8::MAX), words(last, u8::MAX)]);
    let row = |speed: &Speed| {
        let mean = speed.total_ns.unsigned_abs() / speed.count.max(1);
        let mut cells = vec![format!("{:.1} %", speed.share * 100.0), nanoseconds(mean)];
        cells.extend(
            shown
                .iter()
                .map(|(metric, ..)| speed.figure(metric).map_or_else(String::new, cell)),
        );
        cells.push(speed.roofline.map_or("", |roofline| bound(roofline.bound)).to_owned());
        cells.push(speed.short_name.clone());
        cells
    };
    (columns, speeds.iter().map(row).collect())
}

pub(crate) fn bound(bound: Bound) -> &'static str {
    match bound {
        Bound::Memory => "memory",
        Bound::Compute => "compute",
        Bound::Latency => "latency",
    }
}

/// `91.8 ±1.2`, `~45.0 ±6.1`, or why there is none.
fn cell(figure: &MetricFigure) -> String {
    let (Some(value), Some(high)) = (figure.figure.value, figure.figure.high) else {
        return reason(figure.figure.trust).to_owned();
    };
    let about = if figure.figure.trust == Trust::Fair { "~" } else { "" };
    let digits = if figure.unit == "%" { 1 } else { 0 };
    format!("{about}{value:.digits$} ±{:.digits$}", high - value)
}

fn reason(trust: Trust) -> &'static str {
    match trust {
        Trust::Good | Trust::Fair => "",
        Trust::Concurrent => "beside",
        Trust::FewSamples => "few",
        Trust::Inseparable => "mixed",
    }
}

/// Says which kernels have no place under the roofline, if any.
pub(crate) fn not_placed(device: &DeviceSpeed) -> String {
    let unknown: Vec<&Speed> = device
        .kernels
        .iter()
        .filter(|kernel| kernel.roofline.is_none())
        .collect();
    if unknown.is_empty() {
        return String::new();
    }
    let share: f64 = unknown.iter().map(|kernel| kernel.share).sum();
    format!(
        " Left out: {} whose figures can't be told, {:.1} % of the time.",
        counted(unknown.len() as u64, "kernel"),
        share * 100.0
    )
}

/// What the cells mean, of those that occur.
pub(crate) fn legend(device: &DeviceSpeed, level: f64) -> String {
    let figures = || {
        device
            .kernels
            .iter()
            .chain(&device.layers)
            .flat_map(|speed| &speed.figures)
    };
    let occurs = |trust: Trust| figures().any(|figure| figure.figure.trust == trust);
    let mut text = format!("± is half of the {:.0} % interval", level * 100.0);
    for (trust, meaning) in [
        (Trust::Fair, "~: more than 4 points to either side"),
        (Trust::FewSamples, "few: too little of its time was sampled"),
        (
            Trust::Inseparable,
            "mixed: it shares its samples with the same neighbours, and can't be told from them",
        ),
        (
            Trust::Concurrent,
            "beside: it ran beside other kernels most of its time",
        ),
    ] {
        if occurs(trust) {
            let _ = write!(text, "; {meaning}");
        }
    }
    let poor = device
        .metrics
        .iter()
        .filter(|metric| metric.explained < 0.5)
        .map(|metric| metric.metric.as_str());
    let poor: Vec<&str> = poor.collect();
    if !poor.is_empty() {
        let _ = write!(
            text,
            "; kernels explain less than half of how the samples vary in {}",
            poor.join(", ")
        );
    }
    text + "\n"
}
