//! A session on the terminal and as JSON: what was lost, then its kernels, copies and idle time.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::analysis::{DeviceSummary, KernelSummary, SessionSummary, Transfer, WindowSummary};
use crate::report::names::{printable, shape, shortened, without_namespaces, without_parameters};
use crate::report::table::{Column, fit};
use crate::report::time::utc;
use crate::run::evaluators;
use crate::run::words::{bytes, counted, grouped, nanoseconds};
use crate::run::{ProblemSummary, ProcessSummary, Summary, Surroundings};
use crate::schema::manifest::{Exit, Host, Loss};
use crate::session::{Life, Session};

/// Narrowest useful kernel name.
const LEAST_NAME: usize = 24;

/// The session as text, for a terminal of some width; `limit` kernels at most.
pub fn show_text(
    session: &Session,
    run: &Summary,
    summary: &SessionSummary,
    limit: Option<usize>,
    width: usize,
) -> String {
    let mut text = heading(session, run, summary);
    for line in run.warnings() {
        for line in line.lines() {
            text += &format!("{line}\n");
        }
    }
    if run.windows > 1 || summary.window.is_some() {
        text += &windows(summary, run.processes.len() > 1, width);
    }
    if summary.kernels.is_empty() {
        let why = run.why_no_kernels.as_deref().unwrap_or("the session does not say why");
        let _ = writeln!(text, "\nno kernels: {why}");
    } else {
        text += &kernels(summary, limit, width);
    }
    if !summary.memcpys.is_empty() || !summary.memsets.is_empty() {
        text += &transfers(summary, width);
    }
    if !summary.devices.is_empty() {
        text += &devices(&summary.devices, width);
    }
    text
}

/// The session in short, with what was found broken while its tables were read.
pub fn sum_up(session: &Session, summary: &SessionSummary) -> Summary {
    let mut manifest = session.manifest().clone();
    let known = manifest.problems.clone();
    let new = summary
        .problems
        .iter()
        .filter(|new| !known.iter().any(|old| old.message == new.message));
    manifest.problems.extend(new.cloned());
    let mut around = Surroundings {
        path: session.path().to_owned(),
        shown: session.path().to_owned(),
        bytes: session.disk_bytes(),
        ..Surroundings::default()
    };
    for device in &summary.devices {
        around.gpus.entry(device.pid).or_default().extend(device.name.clone());
    }
    if summary.kernel_count == 0 {
        around.why_no_kernels = match &summary.window {
            Some(window) => Some(format!("none was launched in window `{}`", shortened(window, 100))),
            None => why_no_kernels(session),
        };
    }
    Summary::new(&manifest, around)
}

fn why_no_kernels(session: &Session) -> Option<String> {
    if matches!(session.life(), Life::Running(_)) {
        return Some("none so far, the session still runs".to_owned());
    }
    Some(evaluators::why_no_kernels(session.manifest()))
}

fn heading(session: &Session, run: &Summary, summary: &SessionSummary) -> String {
    let manifest = session.manifest();
    let mut text = format!("session {}", manifest.id);
    if let Some(name) = &manifest.name {
        let _ = write!(text, " ({name})");
    }
    let command = if manifest.command.is_empty() {
        "unknown command".to_owned()
    } else {
        manifest.command.join(" ")
    };
    let _ = writeln!(text, "  {}", shortened(&command.replace('\n', " "), 100));
    let mut facts = vec![format!("{} UTC", utc(manifest.created_ns)), how_it_ended(session)];
    match run.processes.as_slice() {
        [] => {}
        [one] => facts.push(format!("{} (pid {})", one.name, one.pid)),
        several => facts.push(counted(several.len() as u64, "process")),
    }
    let mut gpus: Vec<_> = summary
        .devices
        .iter()
        .filter_map(|device| device.name.as_deref())
        .collect();
    gpus.sort_unstable();
    gpus.dedup();
    facts.extend(gpus.into_iter().map(str::to_owned));
    if run.windows > 0 {
        facts.push(run.windows_in_words(" "));
    }
    if manifest.simulated {
        facts.push("simulated".to_owned());
    }
    let _ = writeln!(text, "{}", facts.join(", "));
    text
}

/// `ran 12.4 s, exit 0`.
pub(crate) fn how_it_ended(session: &Session) -> String {
    match session.life() {
        Life::Running(_) => return "still running".to_owned(),
        Life::Recovered => return "cut off".to_owned(),
        Life::Ended => {}
    }
    let manifest = session.manifest();
    let length = nanoseconds(unsigned(
        manifest.ended_ns.unwrap_or(manifest.created_ns) - manifest.created_ns,
    ));
    format!("ran {length}, {}", exit_words(manifest.exit.as_ref()))
}

/// `exit 0`, `signal 9`.
pub(crate) fn exit_words(exit: Option<&Exit>) -> String {
    match exit {
        Some(Exit {
            signal: Some(signal), ..
        }) => format!("signal {signal}"),
        Some(Exit { code: Some(code), .. }) => format!("exit {code}"),
        _ => "end unknown".to_owned(),
    }
}

fn unsigned(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or(0)
}

pub(crate) fn duration(ns: i64) -> String {
    nanoseconds(unsigned(ns))
}

pub(crate) fn percent(part: f64) -> String {
    let percent = 100.0 * part;
    if percent > 0.0 && percent < 0.05 {
        "<0.1 %".to_owned()
    } else {
        format!("{percent:.1} %")
    }
}

pub(crate) const fn number(head: &'static str, weight: u8) -> Column {
    Column {
        head,
        right: true,
        weight,
    }
}

pub(crate) const fn words(head: &'static str, weight: u8) -> Column {
    Column {
        head,
        right: false,
        weight,
    }
}

/// Windows listed.
const WINDOWS_SHOWN: usize = 10;

fn windows(summary: &SessionSummary, with_pid: bool, width: usize) -> String {
    const COLUMNS: [Column; 6] = [
        number("pid", 1),
        number("window", u8::MAX),
        words("trigger", 2),
        number("length", u8::MAX),
        number("kernels", u8::MAX),
        words("name", u8::MAX),
    ];
    let row = |summary: &WindowSummary| {
        let window = &summary.window;
        let length = |end_ns| duration(end_ns - window.start_ns);
        vec![
            summary.pid.to_string(),
            window.number.to_string(),
            window.trigger.clone(),
            window.end_ns.map_or_else(|| "not closed".to_owned(), length),
            grouped(summary.kernels),
            printable(window.name.as_deref().unwrap_or("-")),
        ]
    };
    // The pid tells nothing where there is one.
    let first = usize::from(!with_pid);
    let shown = &summary.windows[..WINDOWS_SHOWN.min(summary.windows.len())];
    let rows: Vec<_> = shown.iter().map(|window| row(window).split_off(first)).collect();
    let mut text = format!("\n{}", fit(&COLUMNS[first..], &rows, width, 12));
    let rest = summary.windows.len() - shown.len();
    if rest > 0 {
        let _ = writeln!(text, "and {} more", counted(rest as u64, "window"));
    }
    text
}

const KERNEL_COLUMNS: [Column; 10] = [
    number("share", u8::MAX),
    number("count", 8),
    number("total", u8::MAX),
    number("mean", 6),
    number("median", 7),
    number("p95", 5),
    number("min", 2),
    number("max", 3),
    words("grid x block", 4),
    words("kernel", u8::MAX),
];

fn kernels(summary: &SessionSummary, limit: Option<usize>, width: usize) -> String {
    let names = counted(summary.kernels.len() as u64, "name");
    let mut text = format!(
        "\n{} of {names}, {} of GPU time\n",
        counted(summary.kernel_count, "kernel"),
        duration(summary.kernels_ns)
    );
    let shown = limit.unwrap_or(usize::MAX).min(summary.kernels.len());
    let rows: Vec<_> = summary.kernels[..shown].iter().map(kernel_row).collect();
    text += &fit(&KERNEL_COLUMNS, &rows, width, LEAST_NAME);
    let rest = &summary.kernels[shown..];
    if !rest.is_empty() {
        let share = percent(rest.iter().map(|kernel| kernel.share).sum());
        let _ = writeln!(
            text,
            "and {} more, {share} of the time: --limit 0 shows all",
            counted(rest.len() as u64, "name")
        );
    }
    text
}

fn kernel_row(kernel: &KernelSummary) -> Vec<String> {
    let durations = &kernel.durations;
    let mut launch = shape(kernel.shape);
    if kernel.shapes > 1 {
        let _ = write!(launch, " +{}", kernel.shapes - 1);
    }
    let name = match kernel.name.as_str() {
        "" => "(no name)".to_owned(),
        name => without_namespaces(without_parameters(name)),
    };
    vec![
        percent(kernel.share),
        grouped(durations.count),
        duration(durations.total_ns),
        // Between two integers of nanoseconds: shown to three digits at most.
        duration(durations.mean_ns.round() as i64),
        duration(durations.median_ns),
        duration(durations.p95_ns),
        duration(durations.min_ns),
        duration(durations.max_ns),
        launch,
        printable(&name),
    ]
}

fn transfers(summary: &SessionSummary, width: usize) -> String {
    const COLUMNS: [Column; 6] = [
        words("copies", u8::MAX),
        number("count", u8::MAX),
        number("size", u8::MAX),
        number("total", u8::MAX),
        number("mean", 1),
        number("GB/s", u8::MAX),
    ];
    let row = |name: String, transfer: &Transfer| {
        let mean = transfer.total_ns / i64::try_from(transfer.count.max(1)).unwrap_or(i64::MAX);
        let rate = transfer
            .gb_per_s()
            .map_or_else(|| "-".to_owned(), |rate| format!("{rate:.2}"));
        vec![
            name,
            grouped(transfer.count),
            bytes(transfer.bytes),
            duration(transfer.total_ns),
            duration(mean),
            rate,
        ]
    };
    let mut copies: Vec<_> = summary.memcpys.iter().collect();
    copies.sort_by_key(|(_, transfer)| std::cmp::Reverse(transfer.total_ns));
    let mut rows: Vec<_> = copies
        .into_iter()
        .map(|(kind, transfer)| row(kind.clone(), transfer))
        .collect();
    rows.extend(
        summary
            .memsets
            .iter()
            .map(|(memory, transfer)| row(format!("fill {memory}"), transfer)),
    );
    format!("\n{}", fit(&COLUMNS, &rows, width, 6))
}

fn devices(devices: &[DeviceSummary], width: usize) -> String {
    const COLUMNS: [Column; 9] = [
        number("pid", u8::MAX),
        number("device", u8::MAX),
        number("kernels", 3),
        number("in kernels", 1),
        number("busy", 4),
        number("idle", 5),
        number("busy share", u8::MAX),
        number("longest gap", 2),
        words("GPU", u8::MAX),
    ];
    let row = |device: &DeviceSummary| {
        vec![
            device.pid.to_string(),
            device.device_id.to_string(),
            grouped(device.kernels),
            duration(device.kernels_ns),
            duration(device.busy_ns),
            duration(device.idle_ns),
            percent(device.busy_ns as f64 / device.span_ns.max(1) as f64),
            duration(device.longest_gap_ns),
            device.name.clone().unwrap_or_else(|| "unknown".to_owned()),
        ]
    };
    let rows: Vec<_> = devices.iter().map(row).collect();
    format!("\n{}", fit(&COLUMNS, &rows, width, 12))
}

/// `colonel show --json`. Counts and sums are exact integers, times are Unix ns.
#[derive(Debug, Serialize)]
pub struct ShowJson<'a> {
    version: u32,
    id: &'a str,
    name: Option<&'a str>,
    path: String,
    /// `running`, `sealed`, `compacted` or `recovered`.
    state: &'static str,
    command: &'a [String],
    cwd: &'a str,
    created_ns: i64,
    ended_ns: Option<i64>,
    exit: Option<&'a Exit>,
    evaluator: &'a str,
    flavor: &'a str,
    gate: &'a str,
    simulated: bool,
    host: &'a Host,
    bytes: u64,
    lost: u64,
    lost_uncounted: bool,
    losses: &'a [Loss],
    problems: &'a [ProblemSummary],
    why_no_kernels: Option<&'a str>,
    /// What `--window` asked for: the rest of the figures are of these windows.
    window: Option<&'a str>,
    rows: &'a BTreeMap<String, u64>,
    processes: &'a [ProcessSummary],
    kernel_count: u64,
    kernels_ns: i64,
    kernels: &'a [KernelSummary],
    memcpys: &'a BTreeMap<String, Transfer>,
    memsets: &'a BTreeMap<String, Transfer>,
    devices: &'a [DeviceSummary],
    windows: &'a [WindowSummary],
}

/// Version of the JSON of `show` and `list`: grows when a field changes its meaning.
pub(crate) const JSON_VERSION: u32 = 1;

impl<'a> ShowJson<'a> {
    /// With `limit` kernels at most.
    pub fn new(session: &'a Session, run: &'a Summary, summary: &'a SessionSummary, limit: Option<usize>) -> Self {
        let manifest = session.manifest();
        Self {
            version: JSON_VERSION,
            id: &manifest.id,
            name: manifest.name.as_deref(),
            path: session.path().to_string_lossy().into_owned(),
            state: state_word(session),
            command: &manifest.command,
            cwd: &manifest.cwd,
            created_ns: manifest.created_ns,
            ended_ns: manifest.ended_ns,
            exit: manifest.exit.as_ref(),
            evaluator: &manifest.evaluator,
            flavor: &manifest.flavor,
            gate: &manifest.gate,
            simulated: manifest.simulated,
            host: &manifest.host,
            bytes: run.bytes,
            lost: run.lost,
            lost_uncounted: run.lost_uncounted,
            losses: &manifest.losses,
            problems: &run.problems,
            why_no_kernels: run.why_no_kernels.as_deref(),
            window: summary.window.as_deref(),
            rows: &manifest.rows,
            processes: &run.processes,
            kernel_count: summary.kernel_count,
            kernels_ns: summary.kernels_ns,
            kernels: &summary.kernels[..limit.unwrap_or(usize::MAX).min(summary.kernels.len())],
            memcpys: &summary.memcpys,
            memsets: &summary.memsets,
            devices: &summary.devices,
            windows: &summary.windows,
        }
    }
}

/// The session's state in one word.
pub(crate) fn state_word(session: &Session) -> &'static str {
    use crate::schema::manifest::SessionState::{Compacted, Running, Sealed};
    match (session.life(), session.manifest().state) {
        (Life::Running(_), _) => "running",
        (Life::Recovered, _) => "recovered",
        (Life::Ended, Compacted) => "compacted",
        (Life::Ended, Sealed | Running) => "sealed",
    }
}
