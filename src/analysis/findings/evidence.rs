//! What the rules look at, from one pass over the kernels of each process and one over its copies and waits. Memory
//! grows with distinct names and with steps, not with kernels.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray as _;
use rustc_hash::FxHashMap;

use crate::analysis::columns::{i64s, texts, u32s};
use crate::analysis::findings::bounds::CountersSeen;
use crate::analysis::findings::finding::AffectedKernel;
use crate::analysis::findings::passage::{COLUMNS, KernelSeen, Passage};
use crate::analysis::findings::rules::{below_one_wave, idle_gaps, rank_skew, tail_effect, tiny_kernels};
use crate::analysis::findings::steps::{Step, StepMaker};
use crate::analysis::items::each_batch;
use crate::analysis::steps::{Cut, Item, Splitter};
use crate::analysis::{RunMap, SpeedOfLight};
use crate::schema::manifest::Problem;
use crate::session::{Selection, Session, SessionError};

/// How many, and how long together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) count: u64,
    pub(crate) ns: i64,
}

impl Total {
    fn add(&mut self, ns: i64) {
        self.count += 1;
        self.ns = self.ns.saturating_add(ns);
    }
}

/// Kernels of one name.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OfName {
    pub(crate) all: Total,
    pub(crate) below_one_wave: Total,
    pub(crate) with_tail: Total,
    /// Time that the tails take, ns.
    pub(crate) tail_ns: f64,
    pub(crate) tiny: Total,
    /// Sums and count of known waves and occupancy.
    pub(crate) waves: f64,
    pub(crate) occupancy_pct: f64,
    pub(crate) with_waves: u64,
}

/// Kernels of one device.
#[derive(Debug, Default)]
pub(crate) struct OfDevice {
    pub(crate) all: Total,
    /// Without those that talk to other GPUs.
    pub(crate) own: Total,
    /// Time in which a kernel ran, ns.
    pub(crate) busy_ns: i64,
    /// Waits between two kernels of one window, ns.
    pub(crate) gap_ns: i64,
    /// Those of them that are long.
    pub(crate) long_gaps: Total,
    pub(crate) longest_gap_ns: i64,
    /// Latest end so far, and the window of the last kernel.
    last: Option<(i64, u32)>,
    splitter: Splitter,
    maker: StepMaker,
}

/// Kernels of one stream.
#[derive(Debug, Default)]
pub(crate) struct OfStream {
    pub(crate) all: Total,
    /// The last one's name, if it was tiny, and its duration.
    tiny: Option<(u32, i64)>,
}

/// Copies between host and device, and waits of the host, of one process while it went step by step.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct InLoop {
    pub(crate) copies: Total,
    /// Copies of memory that is not pinned: the call waits for them.
    pub(crate) pageable: u64,
    pub(crate) bytes: u64,
    pub(crate) waits: Total,
}

/// What the rules look at.
#[derive(Debug, Default)]
pub struct Evidence {
    passage: Passage,
    pub(crate) names: Vec<OfName>,
    is_collective: Vec<bool>,
    pub(crate) devices: RunMap<(u32, u32), OfDevice>,
    pub(crate) streams: RunMap<(u32, u32, u32), OfStream>,
    /// Two tiny kernels one behind the other on a stream: how often, and the time of both.
    pub(crate) pairs: FxHashMap<(u32, u32), Total>,
    /// Steps in order of start, device by device.
    pub steps: Vec<Step>,
    pub(crate) in_loop: BTreeMap<u32, InLoop>,
    pub(crate) counters: CountersSeen,
    /// What was found broken while reading.
    pub problems: Vec<Problem>,
}

impl Evidence {
    /// What part of the GPU's peaks each kernel reaches.
    pub fn speed_of_light(&self) -> &SpeedOfLight {
        &self.counters.speed
    }

    /// Reads the session. `see` is shown each kernel and the names so far.
    pub fn of(
        session: &Session,
        selection: Option<&Selection>,
        see: &mut dyn FnMut(&KernelSeen, &[String]),
    ) -> Result<Self, SessionError> {
        let mut evidence = Self {
            passage: Passage::new(session.devices()?),
            counters: CountersSeen::of(session, selection)?,
            ..Self::default()
        };
        evidence.problems = each_batch(session, selection, &COLUMNS, |batch| evidence.add(batch, see))?;
        evidence.end_steps();
        evidence.add_loops(session, selection)?;
        Ok(evidence)
    }

    /// Names of kernels by number.
    pub fn name_texts(&self) -> &[String] {
        self.passage.names.all()
    }

    /// Kernels in all.
    pub fn kernel_count(&self) -> u64 {
        self.devices.values().map(|device| device.all.count).sum()
    }

    /// Sum of their durations, ns.
    pub(crate) fn kernels_ns(&self) -> i64 {
        let all = self.devices.values().map(|device| device.all.ns);
        all.fold(0, i64::saturating_add)
    }

    /// Time between the first and the last kernel of each window, over all devices, ns.
    pub(crate) fn covered_ns(&self) -> i64 {
        let covered = |device: &OfDevice| device.busy_ns.saturating_add(device.gap_ns);
        self.devices.values().map(covered).fold(0, i64::saturating_add)
    }

    /// Mean waves and theoretical occupancy of a name's kernels, where known.
    pub fn mean_waves(&self, name: &str) -> Option<(f64, f64)> {
        let number = self.passage.names.all().iter().position(|known| known == name)?;
        let of_name = self.names.get(number).filter(|of_name| of_name.with_waves > 0)?;
        let count = of_name.with_waves as f64;
        Some((of_name.waves / count, of_name.occupancy_pct / count))
    }

    /// The names with most time in something.
    pub(crate) fn affected(&self, of: impl Fn(&OfName) -> Total) -> Vec<AffectedKernel> {
        let all = self.names.iter().zip(self.name_texts());
        let kernels = all.map(|(of_name, name)| (of(of_name), name.clone()));
        most_time(kernels.filter(|(total, _)| total.count > 0))
    }

    fn add(&mut self, batch: &RecordBatch, see: &mut dyn FnMut(&KernelSeen, &[String])) {
        let mut passage = std::mem::take(&mut self.passage);
        passage.each(batch, |kernel, names| {
            for name in &names[self.names.len()..] {
                self.names.push(OfName::default());
                self.is_collective.push(rank_skew::is_collective(name));
            }
            self.add_kernel(kernel);
            see(kernel, names);
        });
        self.passage = passage;
    }

    fn add_kernel(&mut self, kernel: &KernelSeen) {
        let duration = kernel.duration_ns();
        let name = kernel.name as usize;
        self.names[name].add(kernel);
        let device = self.devices.of((kernel.pid, kernel.device_id));
        device.add(kernel, self.is_collective[name]);
        let stream = self.streams.of((kernel.pid, kernel.device_id, kernel.stream_id));
        stream.all.add(duration);
        let tiny = tiny_kernels::is_tiny(duration).then_some((kernel.name, duration));
        if let (Some((before, before_ns)), Some(_)) = (std::mem::replace(&mut stream.tiny, tiny), tiny) {
            let pair = self.pairs.entry((before, kernel.name)).or_default();
            pair.add(before_ns.saturating_add(duration));
        }
        let item = Item {
            start_ns: kernel.start_ns,
            end_ns: kernel.end_ns,
            name: kernel.name,
            layer: kernel.layer,
            graph: kernel.graph_id,
            grid_x: kernel.grid_x,
            path: None,
            window: kernel.window,
        };
        if let Some(Cut::Step(items)) = device.splitter.push(item) {
            self.steps
                .extend(device.maker.make((kernel.pid, kernel.device_id), &items));
        }
    }

    fn end_steps(&mut self) {
        let steps = &mut self.steps;
        self.devices.each_mut(|&place, device| {
            if let Some(Cut::Step(items)) = std::mem::take(&mut device.splitter).finish() {
                steps.extend(device.maker.make(place, &items));
            }
        });
        self.steps.sort_by_key(|step| (step.pid, step.device_id, step.start_ns));
    }

    /// Copies and waits between the first step and the last one.
    fn add_loops(&mut self, session: &Session, selection: Option<&Selection>) -> Result<(), SessionError> {
        let mut loops = BTreeMap::<u32, (i64, i64)>::new();
        for step in &self.steps {
            let bounds = loops.entry(step.pid).or_insert((step.start_ns, step.end_ns));
            *bounds = (bounds.0.min(step.start_ns), bounds.1.max(step.end_ns));
        }
        self.in_loop = loops.keys().map(|&pid| (pid, InLoop::default())).collect();
        let is_inside = |pid: u32, start: i64| loops.get(&pid).is_some_and(|&(from, to)| from <= start && start <= to);
        let columns = [
            "pid",
            "start_ns",
            "end_ns",
            "window",
            "copy_kind",
            "src_kind",
            "dst_kind",
            "bytes",
        ];
        self.read(
            session,
            selection,
            "memcpys",
            &columns,
            |in_loop, batch, row, ns| {
                let kind = text(batch, 4, row);
                if matches!(kind, "HtoD" | "DtoH") {
                    in_loop.copies.add(ns);
                    in_loop.pageable += u64::from([5, 6].iter().any(|&memory| text(batch, memory, row) == "pageable"));
                    in_loop.bytes += crate::analysis::columns::u64s(batch, 7)[row];
                }
            },
            is_inside,
        )?;
        let columns = ["pid", "start_ns", "end_ns", "window", "sync_kind"];
        self.read(
            session,
            selection,
            "synchronizations",
            &columns,
            |in_loop, batch, row, ns| {
                // A stream that waits for an event holds up no host.
                if text(batch, 4, row) != "stream_wait_event" {
                    in_loop.waits.add(ns);
                }
            },
            is_inside,
        )
    }

    fn read(
        &mut self,
        session: &Session,
        selection: Option<&Selection>,
        table: &str,
        columns: &[&str],
        mut add: impl FnMut(&mut InLoop, &RecordBatch, usize, i64),
        is_inside: impl Fn(u32, i64) -> bool,
    ) -> Result<(), SessionError> {
        let mut scan = session.scan(table, columns)?;
        for batch in scan.by_ref() {
            let batch = selection.map_or_else(|| batch.clone(), |s| s.filter(&batch));
            let (pids, starts, ends) = (u32s(&batch, 0), i64s(&batch, 1), i64s(&batch, 2));
            for row in 0..batch.num_rows() {
                if let Some(in_loop) = self.in_loop.get_mut(&pids[row])
                    && is_inside(pids[row], starts[row])
                {
                    add(in_loop, &batch, row, ends[row].saturating_sub(starts[row]));
                }
            }
        }
        self.problems.extend(scan.into_problems());
        Ok(())
    }
}

/// The five with most time.
pub(crate) fn most_time(kernels: impl Iterator<Item = (Total, String)>) -> Vec<AffectedKernel> {
    const SHOWN: usize = 5;
    let mut kernels: Vec<_> = kernels.collect();
    kernels.sort_by(|(a, a_name), (b, b_name)| (b.ns, b.count, a_name).cmp(&(a.ns, a.count, b_name)));
    kernels.truncate(SHOWN);
    let affected = |(total, name): (Total, String)| AffectedKernel {
        name,
        count: total.count,
        total_ns: total.ns,
    };
    kernels.into_iter().map(affected).collect()
}

fn text(batch: &RecordBatch, column: usize, row: usize) -> &str {
    let column = texts(batch, column);
    let Some(key) = column.key(row) else { return "" };
    column.values().as_string::<i32>().value(key)
}

impl OfName {
    fn add(&mut self, kernel: &KernelSeen) {
        let duration = kernel.duration_ns();
        self.all.add(duration);
        if tiny_kernels::is_tiny(duration) {
            self.tiny.add(duration);
        }
        let Some(waves) = kernel.waves else { return };
        self.with_waves += 1;
        self.waves += waves.waves;
        self.occupancy_pct += waves.occupancy_pct;
        if below_one_wave::is_below(waves.waves) {
            self.below_one_wave.add(duration);
        }
        if let Some(lost) = tail_effect::lost_part(waves.waves) {
            self.with_tail.add(duration);
            self.tail_ns += duration as f64 * lost;
        }
    }
}

impl OfDevice {
    fn add(&mut self, kernel: &KernelSeen, is_collective: bool) {
        let duration = kernel.duration_ns();
        self.all.add(duration);
        if !is_collective {
            self.own.add(duration);
        }
        let (end_ns, window) = self.last.unwrap_or((kernel.start_ns, kernel.window));
        let gap = kernel.start_ns.saturating_sub(end_ns);
        if gap > 0 && window == kernel.window {
            self.gap_ns = self.gap_ns.saturating_add(gap);
            self.longest_gap_ns = self.longest_gap_ns.max(gap);
            if gap >= idle_gaps::LONG_NS {
                self.long_gaps.add(gap);
            }
        }
        let new_ns = kernel.end_ns.saturating_sub(kernel.start_ns.max(end_ns)).max(0);
        self.busy_ns = self.busy_ns.saturating_add(new_ns);
        self.last = Some((end_ns.max(kernel.end_ns), kernel.window));
    }
}
