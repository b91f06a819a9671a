//! All that `colonel show` says about a session, from one pass over each table.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::thread;

use serde::Serialize;

use crate::analysis::durations::DurationStats;
use crate::analysis::idle::{DeviceTime, IdleFold, Place};
use crate::analysis::kernels::{KernelFold, LaunchShape};
use crate::analysis::transfers::{CopyFold, Transfer};
use crate::schema::manifest::{Problem, Window};
use crate::session::{Life, Part, Parts, Scan, Session, SessionError, SortedScan, now_ns, wanted_schema};

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
    /// Length of the windows with work, each widened to its work, ns.
    pub span_ns: i64,
    /// Time in which a kernel, copy or fill ran, ns.
    pub busy_ns: i64,
    /// The rest, ns.
    pub idle_ns: i64,
    /// Longest time between two pieces of work of a window in which nothing ran, ns.
    pub longest_gap_ns: i64,
}

/// A window and what each device did in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WindowSummary {
    /// Process.
    pub pid: u32,
    /// As the guest noted it; what it did not note (its file is broken) is as wide as its work.
    #[serde(flatten)]
    pub window: Window,
    /// By CUDA ordinal.
    pub devices: BTreeMap<u32, DeviceTime>,
}

/// The whole.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SessionSummary {
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
        let mut summary = Self::default();
        let tasks = tasks(session, &mut summary.problems)?;
        let mut found = run(tasks);
        summary.memcpys = summary.fold_copies(session, "memcpys", CopyFold::COPY_COLUMNS)?;
        summary.memsets = summary.fold_copies(session, "memsets", CopyFold::FILL_COLUMNS)?;
        summary.problems.append(&mut found.problems);
        summary.fill_kernels(&found.kernels);
        summary.fill_windows(session, &found.times);
        summary.fill_devices(session, &found)?;
        summary.check_rows(session);
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
        table: &str,
        columns: [&str; 4],
    ) -> Result<BTreeMap<String, Transfer>, SessionError> {
        let mut fold = CopyFold::default();
        let mut scan = session.scan(table, &columns)?;
        scan.by_ref().for_each(|batch| fold.add(&batch));
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

    fn fill_windows(&mut self, session: &Session, times: &BTreeMap<Place, DeviceTime>) {
        let mut windows = BTreeMap::new();
        for process in &session.manifest().processes {
            for window in &process.windows {
                let summary = WindowSummary {
                    pid: process.pid,
                    window: window.clone(),
                    devices: BTreeMap::new(),
                };
                windows.insert((process.pid, window.number), summary);
            }
        }
        for (&(pid, device, number), &time) in times {
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
        self.windows = windows.into_values().collect();
    }

    fn fill_devices(&mut self, session: &Session, found: &Found) -> Result<(), SessionError> {
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
        for (&(pid, device), totals) in found.kernels.totals() {
            let summary = devices.entry((pid, device)).or_insert_with(|| fresh(pid, device));
            (summary.kernels, summary.kernels_ns) = (totals.count, totals.total_ns);
        }
        for window in &self.windows {
            for (&device, time) in &window.devices {
                let summary = devices
                    .entry((window.pid, device))
                    .or_insert_with(|| fresh(window.pid, device));
                let span = span(&window.window, time);
                summary.span_ns = summary.span_ns.saturating_add(span);
                summary.busy_ns = summary.busy_ns.saturating_add(time.busy_ns);
                summary.idle_ns = summary.span_ns.saturating_sub(summary.busy_ns);
                summary.longest_gap_ns = summary.longest_gap_ns.max(time.longest_gap_ns);
            }
        }
        self.devices = devices.into_values().collect();
        Ok(())
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
    };
    WindowSummary {
        pid,
        window,
        devices: BTreeMap::new(),
    }
}

/// A window counts from its start to its end; work that was launched in it and ran on after it belongs to it too, and
/// GPU and host clocks agree to some microseconds only.
fn span(window: &Window, time: &DeviceTime) -> i64 {
    // A window that was cut off is as long as its work.
    let end = window.end_ns.unwrap_or(time.last_ns).max(time.last_ns);
    end.saturating_sub(window.start_ns.min(time.first_ns))
}

/// Idle time needs a process's rows in order, so it is one task a process; kernels of each part are one task.
fn tasks(session: &Session, problems: &mut Vec<Problem>) -> Result<Vec<Task>, SessionError> {
    let mut by_process = BTreeMap::<_, Vec<SortedScan>>::new();
    let mut tasks = Vec::new();
    for table in IdleFold::TABLES {
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
            let scan = SortedScan::new(parts, wanted_schema(table, &IdleFold::COLUMNS));
            by_process.entry(process).or_default().push(scan);
        }
    }
    // The long ones first.
    Ok(by_process.into_values().map(Task::Idle).chain(tasks).collect())
}

fn run(tasks: Vec<Task>) -> Found {
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
            found.run(task);
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
    fn run(&mut self, task: Task) {
        match task {
            Task::Idle(scans) => {
                let mut fold = IdleFold::default();
                self.problems.extend(fold.add_all(scans));
                self.add_times(fold.finish());
            }
            Task::Kernels(part) => {
                let parts = Parts {
                    parts: vec![part],
                    problems: Vec::new(),
                };
                let mut scan = Scan::new(parts, wanted_schema("kernels", &KernelFold::COLUMNS));
                scan.by_ref().for_each(|batch| self.kernels.add(&batch));
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
