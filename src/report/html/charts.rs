//! The charts, as options of ECharts. What is the same in each (colours, fonts, formats) page.js adds.

use serde_json::{Value, json};

use super::gather::{BARS_AN_OCTAVE, Gathered, Histogram};
use crate::analysis::findings::Step;
use crate::analysis::{LayerSummary, SessionSummary, StepClass};
use crate::report::findings::short_name;
use crate::run::words::counted;

/// Kernels in a chart.
const KERNELS: usize = 15;
/// Kinds of steps with a chart of their layers.
const CLASSES: usize = 2;
/// Points of the chart of steps: more than a screen has.
const POINTS: usize = 4_000;
/// Characters of a kernel's name in a chart.
const NAME: usize = 44;

/// A chart of the page.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Chart {
    /// Element.
    id: String,
    title: String,
    /// What the axes are.
    note: String,
    /// Height, px.
    height: usize,
    #[serde(skip)]
    option: Value,
}

impl Chart {
    pub(crate) fn new(id: &str, title: impl Into<String>, note: &str, rows: usize, option: Value) -> Self {
        Self {
            id: id.to_owned(),
            title: title.into(),
            note: note.to_owned(),
            height: (70 + 24 * rows).clamp(200, 900),
            option,
        }
    }

    pub(crate) fn option(&self) -> (&str, &Value) {
        (&self.id, &self.option)
    }
}

/// A logarithmic axis of whole decades around the values, so that one of nearly equal values has ticks, too.
fn decades(values: impl Iterator<Item = f64>) -> Value {
    let (least, most) = values
        .filter(|value| *value > 0.0)
        .fold((f64::MAX, f64::MIN_POSITIVE), |(least, most), value| {
            (least.min(value), most.max(value))
        });
    let least = least.min(most).log10().floor();
    let most = most.log10().ceil().max(least + 1.0);
    json!({"type": "log", "min": 10_f64.powf(least), "max": 10_f64.powf(most)})
}

/// All charts that this session has something for.
pub(crate) fn charts(summary: &SessionSummary, layers: &LayerSummary, gathered: &Gathered) -> Vec<Chart> {
    let mut charts = vec![kernels(summary)];
    charts.extend(
        layers
            .classes
            .iter()
            .take(CLASSES)
            .enumerate()
            .map(|(at, class)| layer_chart(at, class)),
    );
    charts.extend(steps(&gathered.evidence.steps));
    charts.extend(streams(gathered));
    charts.extend(waits(gathered));
    charts.extend(durations(summary, gathered));
    charts.extend(waves(summary, gathered));
    charts.retain(|chart| chart.option != Value::Null);
    charts
}

/// Horizontal bars; the unit says how page.js words the values.
pub(crate) fn bars(labels: Vec<String>, values: Vec<Value>, unit: &str) -> Value {
    json!({
        "unit": unit,
        "xAxis": {"type": "value"},
        "yAxis": {"type": "category", "inverse": true, "data": labels},
        "series": [{"type": "bar", "data": values, "barMaxWidth": 18}],
    })
}

fn kernels(summary: &SessionSummary) -> Chart {
    let shown = &summary.kernels[..KERNELS.min(summary.kernels.len())];
    let mut labels: Vec<_> = shown.iter().map(|kernel| short_name(&kernel.name, NAME)).collect();
    let mut values: Vec<_> = shown.iter().map(|kernel| json!(kernel.durations.total_ns)).collect();
    let rest = &summary.kernels[shown.len()..];
    if !rest.is_empty() {
        labels.push(format!("{} more", rest.len()));
        values
            .push(json!(rest.iter().fold(0, |sum: i64, kernel| {
                sum.saturating_add(kernel.durations.total_ns)
            })));
    }
    let rows = labels.len();
    Chart::new(
        "kernels",
        "Kernels",
        "Time in each kernel, of all streams together.",
        rows,
        bars(labels, values, "ns"),
    )
}

fn layer_chart(at: usize, class: &StepClass) -> Chart {
    let label = |part: &crate::analysis::PartSummary| match (part.first_layer, part.last_layer) {
        (Some(first), Some(last)) if first < last => format!("layers {first} to {last}"),
        (Some(layer), _) => format!("layer {layer}"),
        _ => part.name.clone().unwrap_or_default(),
    };
    let steps = i64::try_from(class.steps.max(1)).unwrap_or(i64::MAX);
    let labels: Vec<_> = class.parts.iter().map(label).collect();
    let values = class.parts.iter().map(|part| json!(part.kernels_ns / steps)).collect();
    let title = format!("Layers of {} ({})", super::kind(class), counted(class.steps, "step"));
    let rows = labels.len();
    let note = "Time in kernels of each part of a step, the mean of all such steps.";
    Chart::new(&format!("layers{at}"), title, note, rows, bars(labels, values, "ns"))
}

/// The longest step of each stretch, where there are more than a screen has points.
fn steps(steps: &[Step]) -> Option<Chart> {
    let first = steps.iter().map(|step| step.start_ns).min()?;
    let longest = |stretch: &[Step]| stretch.iter().max_by_key(|step| step.length_ns()).copied();
    let shown: Vec<_> = steps.chunks(steps.len().div_ceil(POINTS)).filter_map(longest).collect();
    let point = |step: &Step, ns: i64| json!([step.start_ns - first, ns.max(1)]);
    let lengths: Vec<_> = shown.iter().map(|step| point(step, step.length_ns())).collect();
    let busy: Vec<_> = shown
        .iter()
        .map(|step| point(step, step.length_ns().saturating_sub(step.gap_ns)))
        .collect();
    let option = json!({
        "unit": "ns", "unitX": "ns", "legend": {"top": 0},
        "xAxis": {"type": "value"},
        "yAxis": decades(shown.iter().flat_map(|step| [step.length_ns(), step.length_ns().saturating_sub(step.gap_ns)]).map(|ns| ns as f64)),
        "series": [
            {"name": "step", "type": "scatter", "symbolSize": 6, "data": lengths},
            {"name": "of it with a kernel running", "type": "scatter", "symbolSize": 4, "data": busy},
        ],
    });
    let note = "Length of each step over time. What lies between the two points of a step is waiting.";
    Some(Chart::new("steps", "Steps", note, 9, option))
}

fn streams(gathered: &Gathered) -> Option<Chart> {
    let all = gathered.evidence.streams.iter();
    let mut streams: Vec<_> = all.map(|(&key, stream)| (key, stream.all.ns)).collect();
    streams.sort_by_key(|&(key, ns)| (std::cmp::Reverse(ns), key));
    streams.truncate(KERNELS);
    let label = |&((pid, device, stream), _): &_| format!("pid {pid}, GPU {device}, stream {stream}");
    let labels: Vec<_> = streams.iter().map(label).collect();
    let values = streams.iter().map(|(_, ns)| json!(ns)).collect();
    let rows = labels.len();
    (rows > 0).then(|| {
        Chart::new(
            "streams",
            "Streams",
            "Time in kernels of each stream.",
            rows,
            bars(labels, values, "ns"),
        )
    })
}

/// Time at which a bar begins, ns.
fn bar_start(bar: usize) -> f64 {
    (bar as f64 / BARS_AN_OCTAVE).exp2()
}

fn waits(gathered: &Gathered) -> Option<Chart> {
    let mut filled = gathered.waits.filled();
    let (first, _) = filled.next()?;
    let last = filled.next_back().map_or(first, |(last, _)| last);
    let labels: Vec<_> = (first..=last).map(bar_start).collect();
    let totals: Vec<_> = (first..=last).map(|bar| gathered.waits.bar(bar).1).collect();
    let counts: Vec<_> = (first..=last).map(|bar| gathered.waits.bar(bar).0).collect();
    let option = json!({
        "unit": "ns", "labels": "ns", "counts": counts,
        "xAxis": {"type": "category", "data": labels},
        "yAxis": {"type": "value"},
        "series": [{"type": "bar", "data": totals, "barCategoryGap": "10%"}],
    });
    let note = "Time in which no kernel ran, by the length of the wait: short ones are launches, long ones the host.";
    Some(Chart::new("waits", "Idle and launch gaps", note, 8, option))
}

fn durations(summary: &SessionSummary, gathered: &Gathered) -> Option<Chart> {
    let number = |name: &str| gathered.evidence.name_texts().iter().position(|known| known == name);
    let histogram = |name: &str| gathered.durations.get(number(name)?);
    let shown: Vec<(&str, &Histogram<u64>)> = summary
        .kernels
        .iter()
        .take(KERNELS)
        .filter_map(|kernel| Some((kernel.name.as_str(), histogram(&kernel.name)?)))
        .collect();
    let all = || {
        shown
            .iter()
            .flat_map(|(_, histogram)| histogram.filled().map(|(bar, _)| bar))
    };
    let (first, last) = (all().min()?, all().max()?);
    let mut cells = Vec::new();
    for (row, (_, histogram)) in shown.iter().enumerate() {
        let most = histogram.filled().map(|(_, count)| count).max().unwrap_or(1) as f64;
        // The colour is the part of the row's fullest cell, the count is for the tooltip.
        cells.extend(
            histogram
                .filled()
                .map(|(bar, count)| json!([bar - first, row, count as f64 / most, count])),
        );
    }
    let option = json!({
        "labels": "ns",
        "xAxis": {"type": "category", "data": (first..=last).map(bar_start).collect::<Vec<_>>()},
        "yAxis": {"type": "category", "inverse": true, "data": shown.iter().map(|(name, _)| short_name(name, NAME)).collect::<Vec<_>>()},
        "visualMap": {"min": 0, "max": 1, "show": false, "dimension": 2},
        "series": [{"type": "heatmap", "data": cells}],
    });
    let note = "How long the launches of each kernel took: the darker, the more of them.";
    Some(Chart::new("durations", "Durations", note, shown.len(), option))
}

fn waves(summary: &SessionSummary, gathered: &Gathered) -> Option<Chart> {
    let point = |kernel: &crate::analysis::KernelSummary| {
        let (waves, occupancy) = gathered.evidence.mean_waves(&kernel.name)?;
        (waves > 0.0).then(|| {
            (
                waves,
                json!([waves, occupancy, kernel.share, short_name(&kernel.name, 80)]),
            )
        })
    };
    let points: Vec<_> = summary.kernels.iter().take(60).filter_map(point).collect();
    // One wave is on it in any case: that is where the line is.
    let mut axis = decades(points.iter().map(|(waves, _)| *waves).chain([1.0]));
    axis["name"] = json!("waves");
    let points: Vec<_> = points.into_iter().map(|(_, point)| point).collect();
    let option = json!({
        "unitX": "waves", "unit": "%", "bubbles": true,
        "xAxis": axis,
        "yAxis": {"type": "value", "min": 0, "max": 100},
        "series": [{
            "type": "scatter", "data": points,
            "markLine": {"silent": true, "symbol": "none", "data": [{"xAxis": 1}]},
        }],
    });
    let note = "Waves (grid over the blocks that the GPU holds at once) and theoretical occupancy, the mean of each kernel's \
                launches; the area is its time. Left of the line the GPU is not full.";
    (!points.is_empty()).then(|| Chart::new("waves", "Waves and occupancy", note, 10, option))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_has_a_decade_at_least() {
        let ends = |values: &[f64]| {
            let axis = decades(values.iter().copied());
            (axis["min"].as_f64().unwrap(), axis["max"].as_f64().unwrap())
        };
        assert_eq!(ends(&[0.003, 0.0031]), (0.001, 0.01));
        assert_eq!(ends(&[1.0]), (1.0, 10.0));
        assert_eq!(ends(&[0.0, 20.0, 3_000.0]), (10.0, 10_000.0));
        let (least, most) = ends(&[]);
        assert!(least < most);
    }
}
