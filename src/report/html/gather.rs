//! All that the page shows, from one more pass over the session: the lanes of the timeline, histograms, and the evidence
//! of the findings, which the same pass gives.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int64Type, UInt32Type};
use arrow_array::{Array as _, ArrayRef, RecordBatch, StringArray};

use super::spans::{LaneKind, Lanes};
use crate::analysis::RunMap;
use crate::analysis::findings::{Evidence, KernelSeen};
use crate::report::findings::short_name;
use crate::report::names::{printable, shortened};
use crate::schema::manifest::Problem;
use crate::session::{Selection, Session, SessionError, SortedScan, wanted_schema};

/// Bars of a histogram for each doubling of a time.
pub(crate) const BARS_AN_OCTAVE: f64 = 4.0;

/// Characters of a name in the timeline.
const NAME: usize = 160;

/// What has a length in each bar; bar `b` begins at `2^(b / BARS_AN_OCTAVE)` ns.
#[derive(Debug, Default)]
pub(crate) struct Histogram<T> {
    bars: Vec<T>,
}

/// What the pass gives.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) evidence: Evidence,
    pub(crate) lanes: Lanes,
    /// Durations by the number of the kernel's name.
    pub(crate) durations: Vec<Histogram<u64>>,
    /// Waits between two kernels of a device and window: how many, and ns together.
    pub(crate) waits: Histogram<(u64, i64)>,
    pub(crate) problems: Vec<Problem>,
}

/// What is open on a device.
#[derive(Debug, Default)]
struct OnDevice {
    end_ns: Option<(i64, u32)>,
    layer: Option<(u32, i64, i64)>,
}

impl<T: Copy + Default + PartialEq> Histogram<T> {
    fn of(&mut self, ns: i64) -> &mut T {
        let bar = ((ns.max(1) as f64).log2() * BARS_AN_OCTAVE) as usize;
        if bar >= self.bars.len() {
            self.bars.resize(bar + 1, T::default());
        }
        &mut self.bars[bar]
    }

    /// What bar `b` has.
    pub(crate) fn bar(&self, bar: usize) -> T {
        self.bars.get(bar).copied().unwrap_or_default()
    }

    /// Bars with something in them.
    pub(crate) fn filled(&self) -> impl DoubleEndedIterator<Item = (usize, T)> {
        let bars = self.bars.iter().copied().enumerate();
        bars.filter(|(_, bar)| *bar != T::default())
    }
}

impl Gathered {
    pub(crate) fn of(session: &Session, selection: Option<&Selection>) -> Result<Self, SessionError> {
        let mut lanes = Lanes::default();
        let mut durations = Vec::<Histogram<u64>>::new();
        let mut waits = Histogram::<(u64, i64)>::default();
        let mut devices = RunMap::<(u32, u32), OnDevice>::default();
        // Numbers of kernel names among those of the lanes.
        let mut numbers: Vec<u32> = Vec::new();
        let mut layers: Vec<u32> = Vec::new();
        let evidence = Evidence::of(session, selection, &mut |kernel: &KernelSeen, names: &[String]| {
            while numbers.len() < names.len() {
                numbers.push(lanes.name(&short_name(&names[numbers.len()], NAME)));
                durations.push(Histogram::default());
            }
            *durations[kernel.name as usize].of(kernel.duration_ns()) += 1;
            let lane = (kernel.pid, LaneKind::Stream, kernel.device_id, kernel.stream_id);
            lanes.push(lane, kernel.start_ns, kernel.end_ns, numbers[kernel.name as usize]);
            let device = devices.of((kernel.pid, kernel.device_id));
            let (end_ns, window) = device.end_ns.unwrap_or((kernel.start_ns, kernel.window));
            if kernel.start_ns > end_ns && window == kernel.window {
                let wait = kernel.start_ns.saturating_sub(end_ns);
                let known = waits.of(wait);
                *known = (known.0 + 1, known.1.saturating_add(wait));
            }
            device.end_ns = Some((end_ns.max(kernel.end_ns), kernel.window));
            let Some(layer) = kernel.layer_number() else { return };
            match &mut device.layer {
                Some((known, _, end_ns)) if *known == layer => *end_ns = (*end_ns).max(kernel.end_ns),
                open => {
                    let before = open.replace((layer, kernel.start_ns, kernel.end_ns));
                    if let Some(before) = before {
                        push_layer(&mut lanes, &mut layers, (kernel.pid, kernel.device_id), before);
                    }
                }
            }
        })?;
        for (&place, device) in devices.iter() {
            if let Some(open) = device.layer {
                push_layer(&mut lanes, &mut layers, place, open);
            }
        }
        for step in &evidence.steps {
            let name = lanes.name("step");
            let lane = (step.pid, LaneKind::Step, step.device_id, 0);
            lanes.push(lane, step.start_ns, step.end_ns, name);
        }
        let mut gathered = Self {
            evidence,
            lanes,
            durations,
            waits,
            problems: Vec::new(),
        };
        gathered.add_copies(session, selection, "memcpys", "copy_kind", "copy")?;
        gathered.add_copies(session, selection, "memsets", "memory_kind", "fill")?;
        gathered.add_ranges(session, selection)?;
        Ok(gathered)
    }

    fn add_copies(
        &mut self,
        session: &Session,
        selection: Option<&Selection>,
        table: &str,
        kind: &str,
        word: &str,
    ) -> Result<(), SessionError> {
        let columns = ["start_ns", "end_ns", "pid", "device_id", "window", kind];
        self.add_rows(session, selection, table, &columns, |lanes, batch, row| {
            let name = lanes.name(&format!("{word} {}", text(batch.column(5), row)));
            let lane = (u32_at(batch, 2, row), LaneKind::Copy, u32_at(batch, 3, row), 0);
            lanes.push(lane, i64_at(batch, 0, row), i64_at(batch, 1, row), name);
        })
    }

    fn add_ranges(&mut self, session: &Session, selection: Option<&Selection>) -> Result<(), SessionError> {
        let columns = ["start_ns", "end_ns", "pid", "thread_id", "window", "name", "depth"];
        self.add_rows(session, selection, "nvtx_ranges", &columns, |lanes, batch, row| {
            // A mark is a point, and a range that was never closed has no length.
            if batch.column(1).is_null(row) {
                return;
            }
            let name = lanes.name(&shortened(&printable(text(batch.column(5), row)), NAME));
            // Threads have up to a few million ids, and ranges deeper than 99 share a lane.
            let depth = u32_at(batch, 6, row).min(99);
            let lane = (u32_at(batch, 2, row), LaneKind::Range, u32_at(batch, 3, row), depth);
            lanes.push(lane, i64_at(batch, 0, row), i64_at(batch, 1, row), name);
        })
    }

    fn add_rows(
        &mut self,
        session: &Session,
        selection: Option<&Selection>,
        table: &str,
        columns: &[&str],
        mut add: impl FnMut(&mut Lanes, &RecordBatch, usize),
    ) -> Result<(), SessionError> {
        let mut scan = SortedScan::new(session.parts(table)?, wanted_schema(table, columns));
        for batch in scan.by_ref().flatten() {
            let batch = selection.map_or_else(|| batch.clone(), |s| s.filter(&batch));
            (0..batch.num_rows()).for_each(|row| add(&mut self.lanes, &batch, row));
        }
        self.problems.extend(scan.into_problems());
        Ok(())
    }
}

fn push_layer(
    lanes: &mut Lanes,
    names: &mut Vec<u32>,
    (pid, device): (u32, u32),
    (layer, start_ns, end_ns): (u32, i64, i64),
) {
    // Models have some hundred layers; what is beyond is named by the last.
    let at = layer.min(999) as usize;
    while names.len() <= at {
        let number = names.len();
        names.push(lanes.name(&format!("layer {number}")));
    }
    lanes.push((pid, LaneKind::Layer, device, 0), start_ns, end_ns, names[at]);
}

fn i64_at(batch: &RecordBatch, column: usize, row: usize) -> i64 {
    batch.column(column).as_primitive::<Int64Type>().value(row)
}

fn u32_at(batch: &RecordBatch, column: usize, row: usize) -> u32 {
    batch.column(column).as_primitive::<UInt32Type>().value(row)
}

fn text(column: &ArrayRef, row: usize) -> &str {
    let column = column.as_dictionary::<arrow_array::types::Int32Type>();
    let texts = column.values().as_any().downcast_ref::<StringArray>();
    match (column.key(row), texts) {
        (Some(key), Some(texts)) => texts.value(key),
        _ => "",
    }
}
