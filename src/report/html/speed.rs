//! The section on hardware counters: figures by kernel and layer as `colonel show --counters` has them, each kernel's place
//! under the roofline, and the counters over time.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::charts::Chart;
use crate::analysis::{BOUND_PCT, CounterLines, DeviceSpeed, Speed, SpeedOfLight};
use crate::report::findings::short_name;
use crate::report::names::printable;
use crate::report::speed_of_light::{COMPUTE, SHOWN, alike_together, bound, legend, not_placed, of_what, speed_rows};

/// Rows of a table.
const ROWS: usize = 50;
/// Kernels under the roofline.
const PLACED: usize = 60;
/// Lines of the chart over time: more can't be told apart.
const LINES: usize = 6;

/// Of each device that was sampled: its tables, and its charts.
pub(crate) fn sections(
    speed: &SpeedOfLight,
    lines: &BTreeMap<(u32, u32), CounterLines>,
    zero_ns: i64,
) -> Vec<(Value, Vec<Chart>)> {
    let section = |(at, device): (usize, &DeviceSpeed)| {
        let over_time = lines
            .get(&(device.pid, device.device_id))
            .and_then(|lines| over_time(at, lines, zero_ns));
        let charts: Vec<Chart> = roofline(at, device).into_iter().chain(over_time).collect();
        let layers = alike_together(&device.layers);
        let tables: Vec<Value> = [("kernel", &device.kernels), ("layer", &layers)]
            .into_iter()
            .filter(|(_, speeds)| !speeds.is_empty())
            .map(|(what, speeds)| table(device, speeds, what))
            .collect();
        let section = json!({
            "title": printable(&of_what(device)),
            "tables": tables,
            "legend": legend(device, speed.level).trim_end(),
            "charts": charts,
        });
        (section, charts)
    };
    speed.devices.iter().enumerate().map(section).collect()
}

fn table(device: &DeviceSpeed, speeds: &[Speed], what: &'static str) -> Value {
    let shown = &speeds[..ROWS.min(speeds.len())];
    let (columns, rows) = speed_rows(device, shown, what);
    let rows = rows.into_iter().zip(shown).map(|(cells, speed)| {
        let cells: Vec<String> = cells.iter().map(|cell| printable(cell)).collect();
        json!({"cells": cells, "name": printable(&speed.name)})
    });
    json!({
        "heads": columns.iter().map(|column| (column.head, column.right)).collect::<Vec<_>>(),
        "rows": rows.collect::<Vec<_>>(),
        "more": speeds.len() - shown.len(),
    })
}

/// Device memory and the busiest of what computes, in parts of their peaks: the roof is at 100 % of either.
fn roofline(at: usize, device: &DeviceSpeed) -> Option<Chart> {
    let placed = device
        .kernels
        .iter()
        .filter_map(|kernel| Some((kernel, kernel.roofline?)));
    let points: Vec<Value> = placed
        .clone()
        .take(PLACED)
        .map(|(kernel, place)| {
            let flop = place.tensor_flop_per_byte.map_or(Value::Null, |flop| json!(flop));
            let name = short_name(&kernel.name, 80);
            json!([
                place.memory_pct,
                place.compute_pct,
                kernel.share,
                name,
                bound(place.bound),
                flop
            ])
        })
        .collect();
    if points.is_empty() {
        return None;
    }
    let peaks = device.peaks;
    let memory = peaks.dram_gb_s.map(|peak| format!(" of {peak:.0} GB/s"));
    let compute = peaks
        .tensor_tflop_s
        .map(|peak| format!(", in tensor pipes of {peak:.0} TFLOP/s"));
    let axis = |name: String| json!({"type": "value", "min": 0, "max": 100, "name": name});
    let roof = |value: f64| [json!({"xAxis": value}), json!({"yAxis": value})];
    let option = json!({
        "unit": "%", "unitX": "%", "bubbles": "roofline",
        "xAxis": axis(format!("device memory, %{}", memory.unwrap_or_default())),
        "yAxis": axis(format!("compute, %{}", compute.unwrap_or_default())),
        "series": [{
            "type": "scatter", "data": points,
            "markLine": {"silent": true, "symbol": "none", "data": roof(BOUND_PCT)},
        }],
    });
    let most = if placed.count() > PLACED {
        format!(" The {PLACED} with most time.")
    } else {
        String::new()
    };
    let note = format!(
        "Each kernel by how near it comes to the peaks of device memory and of what computes ({COMPUTE}); the area is its time. \
         Right of the line memory bounds it, above the other compute, below both neither.{most}{}",
        not_placed(device)
    );
    Some(Chart::new(&format!("roofline{at}"), "Roofline", &note, 14, option))
}

fn over_time(at: usize, lines: &CounterLines, zero_ns: i64) -> Option<Chart> {
    let series: Vec<Value> = SHOWN
        .iter()
        .filter_map(|(metric, head, _)| Some((head, lines.line(metric)?)))
        .take(LINES)
        .map(|(head, line)| {
            let mut points = Vec::new();
            let mut before = None;
            for (start, mean) in line {
                let is_apart = before.is_some_and(|before| start - before > 4 * lines.stretch_ns);
                if is_apart {
                    points.push(json!([start - zero_ns, null]));
                }
                points.push(json!([start - zero_ns, (mean * 100.0).round() / 100.0]));
                before = Some(start);
            }
            let name = head.trim_end_matches(" %");
            json!({"type": "line", "name": name, "data": points, "showSymbol": false, "lineStyle": {"width": 1}})
        })
        .collect();
    let option = json!({
        "unit": "%", "unitX": "ns", "legend": {"top": 0}, "zoom": true,
        "xAxis": {"type": "value", "min": "dataMin", "max": "dataMax"},
        "yAxis": {"type": "value", "min": 0, "max": 100},
        "series": series,
    });
    let note = "Parts of the peaks over time, from the timeline's begin on, work of other processes on the GPU included. The wheel zooms.";
    (!series.is_empty()).then(|| Chart::new(&format!("counters{at}"), "Counters over time", note, 14, option))
}
