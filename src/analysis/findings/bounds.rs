//! What the rules about hardware counters share: kernels that a resource bounds, with what part of its peak they reach.

use arrow_array::Array as _;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use rustc_hash::FxHashMap;

use crate::analysis::columns::{i64s, texts, u32s};
use crate::analysis::findings::finding::{AffectedKernel, Figure, Finding, Severity, figures};
use crate::analysis::{Bound, DeviceSpeed, Figure as Told, Speed, SpeedOfLight};
use crate::session::{Selection, Session, SessionError};

/// Of the time of all kernels: less is not worth a finding.
const LEAST_SHARE: f64 = 0.05;
/// Kernels that a finding is about at most.
const MOST_KERNELS: usize = 10;

/// All samples of a metric.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sampled {
    weighted: f64,
    length_ns: f64,
    max: f64,
}

/// Hardware counters, as the rules look at them.
#[derive(Debug, Default)]
pub(crate) struct CountersSeen {
    pub(crate) speed: SpeedOfLight,
    /// By process, ordinal and metric.
    metrics: FxHashMap<(u32, u32, String), Sampled>,
}

impl CountersSeen {
    pub(crate) fn of(session: &Session, selection: Option<&Selection>) -> Result<Self, SessionError> {
        let speed = SpeedOfLight::of(session, selection)?;
        let mut metrics = FxHashMap::default();
        if !speed.devices.is_empty() {
            for batch in session.scan(
                "counters",
                &["metric", "start_ns", "end_ns", "value", "pid", "device_id", "window"],
            )? {
                let batch = selection.map_or_else(|| batch.clone(), |selection| selection.filter(&batch));
                let names = texts(&batch, 0);
                let known = names.values().as_string::<i32>();
                let (starts, ends) = (i64s(&batch, 1), i64s(&batch, 2));
                let values = batch.column(3).as_primitive::<Float64Type>();
                let (pids, devices) = (u32s(&batch, 4), u32s(&batch, 5));
                for row in (0..batch.num_rows()).filter(|row| values.is_valid(*row)) {
                    let Some(key) = names.key(row) else { continue };
                    let (value, length) = (values.value(row), ends[row].saturating_sub(starts[row]) as f64);
                    let place = (pids[row], devices[row], known.value(key).to_owned());
                    let sampled = metrics.entry(place).or_insert(Sampled {
                        weighted: 0.0,
                        length_ns: 0.0,
                        max: f64::NEG_INFINITY,
                    });
                    sampled.weighted += value * length;
                    sampled.length_ns += length;
                    sampled.max = sampled.max.max(value);
                }
            }
        }
        Ok(Self { speed, metrics })
    }
}

/// What is found, and said of it.
pub(crate) struct Words {
    pub(crate) rule: &'static str,
    pub(crate) bound: Bound,
    /// Any of which may be the busiest.
    pub(crate) metrics: &'static [&'static str],
    /// `of the memory's peak bandwidth`.
    pub(crate) of_peak: &'static str,
    pub(crate) why: &'static str,
    pub(crate) next: &'static str,
}

/// The kernels of a device that this bounds, those of the device where they have most time.
pub(crate) fn find<'a>(counters: &'a CountersSeen, words: &Words) -> Vec<Finding> {
    let is_bound = |speed: &&Speed| speed.roofline.is_some_and(|roofline| roofline.bound == words.bound);
    let of_device = |device: &'a DeviceSpeed| -> (&'a DeviceSpeed, Vec<&'a Speed>) {
        (
            device,
            device.kernels.iter().filter(is_bound).take(MOST_KERNELS).collect(),
        )
    };
    let all = counters.speed.devices.iter().map(of_device);
    let time = |(_, speeds): &(_, Vec<&Speed>)| speeds.iter().map(|speed| speed.total_ns).sum::<i64>();
    let Some((device, speeds)) = all.max_by_key(time) else {
        return Vec::new();
    };
    let share: f64 = speeds.iter().map(|speed| speed.share).sum();
    let Some(first) = speeds.first().filter(|_| share >= LEAST_SHARE) else {
        return Vec::new();
    };
    let told = |metric: &&&str| first.figure(metric).and_then(|figure| figure.figure.value);
    let Some(metric) = words
        .metrics
        .iter()
        .max_by(|a, b| told(a).total_cmp_none_first(told(b)))
    else {
        return Vec::new();
    };
    let place = (device.pid, device.device_id, (*metric).to_owned());
    let (Some(figure), Some(sampled)) = (first.figure(metric), counters.metrics.get(&place)) else {
        return Vec::new();
    };
    let others = match speeds.len() - 1 {
        0 => String::new(),
        1 => "; so is another kernel".to_owned(),
        others => format!("; so are {others} others"),
    };
    let title = format!(
        "`{}` is bound by {}: {} {}{others}; {:.1} % of the time of all kernels",
        first.short_name,
        match words.bound {
            Bound::Memory => "memory",
            Bound::Compute => "compute",
            Bound::Latency => "latency",
        },
        with_interval(&figure.figure),
        words.of_peak,
        100.0 * share
    );
    vec![Finding {
        rule: words.rule,
        severity: Severity::by_share(share),
        share,
        title,
        why: words.why,
        next: words.next,
        figures: numbers(&speeds, sampled),
        sql: sql(device, &speeds, metric),
        kernels: speeds.into_iter().map(affected).collect(),
    }]
}

/// None comes before any number.
trait Order {
    fn total_cmp_none_first(self, other: Self) -> std::cmp::Ordering;
}

impl Order for Option<f64> {
    fn total_cmp_none_first(self, other: Self) -> std::cmp::Ordering {
        let number = |value: Self| value.unwrap_or(f64::NEG_INFINITY);
        number(self).total_cmp(&number(other))
    }
}

fn affected(speed: &Speed) -> AffectedKernel {
    AffectedKernel {
        name: speed.name.clone(),
        count: speed.count,
        total_ns: speed.total_ns,
    }
}

/// `91.8 % (±1.2)`.
fn with_interval(figure: &Told) -> String {
    let (value, high) = (figure.value.unwrap_or(0.0), figure.high.unwrap_or(0.0));
    format!("{value:.1} % (±{:.1})", high - value)
}

fn numbers(speeds: &[&Speed], sampled: &Sampled) -> Vec<Figure> {
    let kernels: u64 = speeds.iter().map(|speed| speed.count).sum();
    let kernels_ns: i64 = speeds.iter().map(|speed| speed.total_ns).sum();
    let mean_pct = sampled.weighted / sampled.length_ns;
    let max_pct = sampled.max;
    figures![kernels, kernels_ns, mean_pct, max_pct]
}

/// The fit itself is no query: what it is of is.
fn sql(device: &DeviceSpeed, speeds: &[&Speed], metric: &str) -> String {
    let processes = device
        .processes
        .iter()
        .map(|(pid, ordinal)| format!("({pid}, {ordinal})"));
    let processes: Vec<String> = processes.collect();
    let names: Vec<String> = speeds
        .iter()
        .map(|speed| format!("'{}'", speed.name.replace('\'', "''")))
        .collect();
    format!(
        "with k as (\n  select count(*) as kernels, sum(end_ns - start_ns) as kernels_ns\n  from kernels\n  where (pid, device_id) in ({}) and name in ({})\n)\n\
         select any_value(kernels) as kernels, any_value(kernels_ns) as kernels_ns,\n  \
         sum(value * (end_ns - start_ns)) / sum(end_ns - start_ns) as mean_pct, max(value) as max_pct\n\
         from counters, k where metric = '{metric}' and pid = {} and device_id = {} and value is not null",
        processes.join(", "),
        names.join(", "),
        device.pid,
        device.device_id
    )
}
