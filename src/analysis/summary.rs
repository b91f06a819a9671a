//! All that `colonel show` says about a session, from one pass over each table.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::thread;

use arrow_array::RecordBatch;
use serde::Serialize;

use crate::analysis::durations::DurationStats;
use crate::analysis::frames::{Bounds, Frame, Frames};
use crate::analysis::idle::{self, DeviceTime, IdleFold, Place};
use crate::analysis::kernels::{KernelFold, LaunchShape};
use crate::analysis::transfers::{CopyFold, Transfer};
use crate::schema::manifest::{BURST, Problem, Window};
use crate::session::{
    Life, Part, Parts, Scan, Selection, Session, SessionError, SortedScan, is_within, now_ns, wanted_schema,
};

/// Kernels of one name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelSummary {
    /// Demangled name.
    pub name: String,
    /// Part of the time of all kernels, 0 to 1.
    pub share: f64,
    /// Durations.
    #[serde(flatten)]
    pub durations: DurationStats,
    /// Grid and block of most launches.
    pub shape: LaunchShape,
    /// Launches of that shape.
    pub shape_count: u64,
    /// Different shapes.
    pub shapes: u64,
}

/// Work of one process on one device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceSummary {
    /// Process.
    pub pid: u32,
    /// CUDA ordinal in it.
    pub device_id: u32,
    /// Product name, where known.
    pub name: Option<String>,
    /// Kernels.
    pub kernels: u64,
    /// Sum of their durations, ns.
    pub kernels_ns: i64,
    /// Length of the windows with work, time in several of them counted once, widened to their work, ns.
    pub span_ns: i64,
    /// Time in which a kernel, copy or fill ran, ns.
    pub busy_ns: i64,
    /// The rest, ns.
    pub idle_ns: i64,
    /// Longest time between two pieces of work in which nothing ran and a window was open, ns.
    pub longest_gap_ns: i64,
}

/// A window and what each device did in it, windows within it included.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WindowSummary {
    /// Process.
    pub pid: u32,
    /// As the guest noted it; what it did not note (its file is broken) is as wide as its work.
    #[serde(flatten)]
    pub window: Window,
    /// Kernels.
    pub kernels: u64,
    /// By CUDA ordinal.
    pub devices: BTreeMap<u32, DeviceTime>,
}

/// The whole.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SessionSummary {
    /// The window that it is limited to, as asked for.
    pub window: Option<String>,
    /// Kernels by name, the longest in total first.
    pub kernels: Vec<KernelSummary>,
    /// Kernels in all.
    pub kernel_count: u64,
    /// Sum of all kernels' durations, ns.
    pub kernels_ns: i64,
    /// Copies by direction.
    pub memcpys: BTreeMap<String, Transfer>,
    /// Fills by memory.
    pub memsets: BTreeMap<String, Transfer>,
    /// Work by process and device.
    pub devices: Vec<DeviceSummary>,
    /// Windows by process and number.
    pub windows: Vec<WindowSummary>,
    /// What was found broken while reading.
    pub problems: Vec<Problem>,
}

/// Which rows count, and for what.
struct Scope<'a> {
    frames: Frames,
    selection: Option<&'a Selection>,
}

impl Scope<'_> {
    fn rows(&self, batch: RecordBatch) -> RecordBatch {
        match self.selection {
            Some(selection) => selection.filter(&batch),
            None => batch,
        }
    }
}

/// A piece of the pass that one thread does.
enum Task {
    Idle(Vec<SortedScan>),
    Kernels(Part),
}

/// What one thread has.
#[derive(Default)]
struct Found {
    kernels: KernelFold,
    times: BTreeMap<Place, DeviceTime>,
    problems: Vec<Problem>,
}

impl SessionSummary {
    /// Reads the session's tables.
    pub fn of(session: &Session) -> Result<Self, SessionError> {
        Self::of_windows(session, None)
    }

    /// Reads of the session's tables what belongs to the selected windows.
    pub fn of_windows(session: &Session, selection: Option<&Selection>) -> Result<Self, SessionError> {
        let mut summary = Self {
            window: selection.map(|selection| selection.asked().to_owned()),
            ..Self::default()
        };
        let scope = Scope {
            frames: Frames::new(&session.manifest().processes, selection),
            selection,
        };
        let tasks = tasks(session, &mut summary.problems)?;
        let mut found = run(tasks, &scope);
        summary.memcpys = summary.fold_copies(session, &scope, "memcpys", CopyFold::COPY_COLUMNS)?;
        summary.memsets = summary.fold_copies(session, &scope, "memsets", CopyFold::FILL_COLUMNS)?;
        summary.problems.append(&mut found.problems);
        summary.fill_kernels(&found.kernels);
        summary.fill_windows(session, &scope, &found);
        summary.fill_devices(session, &scope, &found)?;
        if selection.is_none() {
            summary.check_rows(session);
        }
        // Several columns of a broken file are read, each by another part of the pass.
        summary
            .problems
            .sort_by(|a, b| (&a.code, &a.message).cmp(&(&b.code, &b.message)));
        summary.problems.dedup_by(|a, b| a.message == b.message);
        Ok(summary)
    }

    fn fold_copies(
        &mut self,
        session: &Session,
        scope: &Scope<'_>,
        table: &str,
        columns: [&str; 6],
    ) -> Result<BTreeMap<String, Transfer>, SessionError> {
        let mut fold = CopyFold::default();
        let mut scan = session.scan(table, &columns)?;
        scan.by_ref().for_each(|batch| fold.add(&scope.rows(batch)));
        self.problems.extend(scan.into_problems());
        Ok(fold.finish())
    }

    fn fill_kernels(&mut self, fold: &KernelFold) {
        for (name, group) in fold.groups() {
            let Some(durations) = group.durations.stats() else {
                continue;
            };
            let shapes = group.shapes();
            let (shape, shape_count) = shapes.first().copied().unwrap_or_default();
            let name = name.to_owned();
            let shapes = shapes.len() as u64;
            self.kernels.push(KernelSummary {
                name,
                share: 0.0,
                durations,
                shape,
                shape_count,
                shapes,
            });
        }
        self.kernels.sort_by(|a, b| {
            let key = |kernel: &KernelSummary| {
                (
                    std::cmp::Reverse(kernel.durations.total_ns),
                    std::cmp::Reverse(kernel.durations.count),
                )
            };
            (key(a), &a.name).cmp(&(key(b), &b.name))
        });
        self.kernel_count = self.kernels.iter().map(|kernel| kernel.durations.count).sum();
        self.kernels_ns = self
            .kernels
            .iter()
            .fold(0, |sum, kernel| sum.saturating_add(kernel.durations.total_ns));
        let total = self.kernels_ns.max(1) as f64;
        self.kernels
            .iter_mut()
            .for_each(|kernel| kernel.share = kernel.durations.total_ns as f64 / total);
    }

    fn fill_windows(&mut self, session: &Session, scope: &Scope<'_>, found: &Found) {
        let mut windows = BTreeMap::new();
        for process in &session.manifest().processes {
            let counts = |window: &&Window| scope.selection.is_none_or(|s| s.contains(process.pid, window.number));
            for window in process.windows.iter().filter(counts) {
                let summary = WindowSummary {
                    pid: process.pid,
                    window: window.clone(),
                    kernels: 0,
                    devices: BTreeMap::new(),
                };
                windows.insert((process.pid, window.number), summary);
            }
        }
        for (&(pid, device, frame), &time) in &found.times {
            let Frame::Window(number) = frame else { continue };
            let summary = windows
                .entry((pid, number))
                .or_insert_with(|| unknown_window(pid, number, time));
            if summary.window.trigger == UNKNOWN {
                let window = &mut summary.window;
                window.start_ns = window.start_ns.min(time.first_ns);
                window.end_ns = window.end_ns.max(Some(time.last_ns));
            }
            summary.devices.insert(device, time);
        }
        for (&(pid, _, origin), totals) in found.kernels.totals() {
            for frame in scope.frames.of(pid, origin).iter() {
                if let Frame::Window(number) = frame
                    && let Some(summary) = windows.get_mut(&(pid, *number))
                {
                    summary.kernels += totals.count;
                }
            }
        }
        self.windows = windows.into_values().collect();
        self.sum_bursts();
    }

    /// A sampled window has the kernels of its bursts.
    fn sum_bursts(&mut self) {
        let sums: Vec<u64> = self
            .windows
            .iter()
            .map(|outer| {
                let inner = self.windows.iter().filter(|inner| {
                    outer.window.sampled
                        && inner.window.trigger == BURST
                        && inner.pid == outer.pid
                        && is_within(&inner.window, &outer.window)
                });
                inner.map(|inner| inner.kernels).sum()
            })
            .collect();
        for (outer, sum) in self.windows.iter_mut().zip(sums) {
            outer.kernels += sum;
        }
    }

    fn fill_devices(&mut self, session: &Session, scope: &Scope<'_>, found: &Found) -> Result<(), SessionError> {
        let known = session.devices()?;
        let mut devices = BTreeMap::new();
        let fresh = |pid, device_id| DeviceSummary {
            pid,
            device_id,
            name: known.get(&(pid, device_id)).map(|device| device.name.clone()),
            kernels: 0,
            kernels_ns: 0,
            span_ns: 0,
            busy_ns: 0,
            idle_ns: 0,
            longest_gap_ns: 0,
        };
        for (&(pid, device, _), totals) in found.kernels.totals() {
            let summary = devices.entry((pid, device)).or_insert_with(|| fresh(pid, device));
            summary.kernels += totals.count;
            summary.kernels_ns = summary.kernels_ns.saturating_add(totals.total_ns);
        }
        for (&(pid, device, frame), time) in &found.times {
            let Some(bounds) = self.stretch(scope, pid, frame) else {
                continue;
            };
            let summary = devices.entry((pid, device)).or_insert_with(|| fresh(pid, device));
            summary.span_ns = summary.span_ns.saturating_add(span(bounds, time));
            summary.busy_ns = summary.busy_ns.saturating_add(time.busy_ns);
            summary.idle_ns = summary.span_ns.saturating_sub(summary.busy_ns);
            summary.longest_gap_ns = summary.longest_gap_ns.max(time.longest_gap_ns);
        }
        self.devices = devices.into_values().collect();
        Ok(())
    }

    /// Bounds of a frame, if it is one of those that cover the windows without overlap.
    fn stretch(&self, scope: &Scope<'_>, pid: u32, frame: Frame) -> Option<Bounds> {
        scope.frames.stretch(pid, frame).or_else(|| {
            let Frame::Window(number) = frame else { return None };
            let at = self
                .windows
                .binary_search_by_key(&(pid, number), |known| (known.pid, known.window.number));
            let window = &self.windows.get(at.ok()?)?.window;
            (window.trigger == UNKNOWN).then_some((window.start_ns, window.end_ns))
        })
    }

    /// A sealed session says how many rows it has: fewer are a loss that nobody counted.
    fn check_rows(&mut self, session: &Session) {
        let said = session.rows("kernels");
        if *session.life() == Life::Ended && self.kernel_count < said {
            let message = format!(
                "`session.json` counts {said} kernels, but the files hold {}",
                self.kernel_count
            );
            self.problems.push(Problem {
                code: "rows_missing".to_owned(),
                message,
                time_ns: now_ns(),
            });
        }
    }
}

/// Trigger of a window that no process file tells of.
const UNKNOWN: &str = "unknown";

fn unknown_window(pid: u32, number: u32, time: DeviceTime) -> WindowSummary {
    let (start_ns, end_ns) = (time.first_ns, Some(time.last_ns));
    let window = Window {
        number,
        start_ns,
        end_ns,
        trigger: UNKNOWN.to_owned(),
        name: None,
        sealed_ns: None,
        sampled: false,
    };
    WindowSummary {
        pid,
        window,
        kernels: 0,
        devices: BTreeMap::new(),
    }
}

/// A stretch counts from its start to its end; work that was launched in it and ran on after it belongs to it too, and
/// GPU and host clocks agree to some microseconds only.
fn span((start_ns, end_ns): Bounds, time: &DeviceTime) -> i64 {
    // A window that was cut off is as long as its work.
    let end = end_ns.unwrap_or(time.last_ns).max(time.last_ns);
    end.saturating_sub(start_ns.min(time.first_ns))
}

/// Idle time needs a process's rows in order, so it is one task a process; kernels of each part are one task.
fn tasks(session: &Session, problems: &mut Vec<Problem>) -> Result<Vec<Task>, SessionError> {
    let mut by_process = BTreeMap::<_, Vec<SortedScan>>::new();
    let mut tasks = Vec::new();
    for table in idle::TABLES {
        let Parts {
            parts,
            problems: broken,
        } = session.parts(table)?;
        problems.extend(broken);
        if table == "kernels" {
            tasks.extend(parts.iter().cloned().map(Task::Kernels));
        }
        let mut processes = BTreeMap::<_, Parts>::new();
        for part in parts {
            processes.entry(part.process()).or_default().parts.push(part);
        }
        for (process, parts) in processes {
            let scan = SortedScan::new(parts, wanted_schema(table, &idle::COLUMNS));
            by_process.entry(process).or_default().push(scan);
        }
    }
    // The long ones first.
    Ok(by_process.into_values().map(Task::Idle).chain(tasks).collect())
}

fn run(tasks: Vec<Task>, scope: &Scope<'_>) -> Found {
    const MOST_THREADS: usize = 8;
    let threads = thread::available_parallelism()
        .map_or(1, |count| count.get())
        .min(MOST_THREADS)
        .min(tasks.len());
    let queue = Mutex::new(VecDeque::from(tasks));
    let work = || {
        let mut found = Found::default();
        // A poisoned queue means that another thread died; its panic is passed on below.
        while let Some(task) = queue.lock().ok().and_then(|mut queue| queue.pop_front()) {
            found.run(task, scope);
        }
        found
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut found = work();
        for other in others {
            match other.join() {
                Ok(other) => found.merge(other),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        found
    })
}

impl Found {
    fn run(&mut self, task: Task, scope: &Scope<'_>) {
        match task {
            Task::Idle(scans) => {
                let mut fold = IdleFold::new(&scope.frames);
                self.problems.extend(fold.add_all(scans));
                self.add_times(fold.finish());
            }
            Task::Kernels(part) => {
                let parts = Parts {
                    parts: vec![part],
                    problems: Vec::new(),
                };
                let mut scan = Scan::new(parts, wanted_schema("kernels", &KernelFold::COLUMNS));
                scan.by_ref().for_each(|batch| self.kernels.add(&scope.rows(batch)));
                self.problems.extend(scan.into_problems());
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.kernels.merge(other.kernels);
        self.add_times(other.times);
        self.problems.extend(other.problems);
    }

    /// Two processes of a session can have had the same pid, one after the other.
    fn add_times(&mut self, times: BTreeMap<Place, DeviceTime>) {
        for (place, time) in times {
            self.times
                .entry(place)
                .and_modify(|known| known.append(time))
                .or_insert(time);
        }
    }
}
