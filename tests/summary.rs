//! The summary of a session against the naive computation over all rows, before and after compaction.

use std::collections::BTreeMap;
use std::path::Path;

use colonel::analysis::{LaunchShape, SessionSummary};
use colonel::schema::columns::TableBuilder as _;
use colonel::schema::tables::{KernelsBuilder, MemcpysBuilder, MemsetsBuilder};
use colonel::session::synthetic::{SyntheticGuest, kernel, memcpy, memset};
use colonel::session::{NewSession, Session, SessionWriter, SessionsDir};
use proptest::prelude::*;

const NAMES: [&str; 4] = ["gemm<4>", "softmax", "void copy<float>(int)", ""];

/// A kernel, as the test makes it up.
#[derive(Debug, Clone)]
struct Row {
    pid: u32,
    name: usize,
    start: i64,
    duration: i64,
    device: u32,
    window: u32,
    grid: i32,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (
        0..2_u32,
        0..NAMES.len(),
        0..5000_i64,
        0..40_i64,
        0..2_u32,
        1..3_u32,
        1..4_i32,
    )
        .prop_map(|(process, name, start, duration, device, window, grid)| Row {
            pid: 100 + process,
            name,
            start,
            duration,
            device,
            window,
            grid,
        });
    prop::collection::vec(row, 0..400)
}

/// Writes the rows in segments of some length, in the order given.
fn write(session: &Path, rows: &[Row], segment: usize) {
    for pid in [100, 101] {
        let mut guest = SyntheticGuest::new(session, pid);
        let mine: Vec<_> = rows.iter().filter(|row| row.pid == pid).collect();
        for rows in mine.chunks(segment) {
            let mut builder = KernelsBuilder::default();
            for row in rows {
                let mut kernel = kernel(pid, NAMES[row.name], row.start, row.duration);
                (kernel.device_id, kernel.window, kernel.grid_x) = (row.device, row.window, row.grid);
                builder.push(kernel);
            }
            guest.seal(&mut builder).unwrap();
        }
        guest.process.windows.clear();
        guest.end(10_000).unwrap();
    }
}

fn check(summary: &SessionSummary, rows: &[Row]) {
    let mut by_name = BTreeMap::<&str, Vec<&Row>>::new();
    rows.iter()
        .for_each(|row| by_name.entry(NAMES[row.name]).or_default().push(row));
    assert_eq!(summary.kernels.len(), by_name.len());
    assert_eq!(summary.kernel_count, rows.len() as u64);
    for kernel in &summary.kernels {
        let mine = &by_name[kernel.name.as_str()];
        let mut durations: Vec<_> = mine.iter().map(|row| row.duration).collect();
        durations.sort_unstable();
        let total: i64 = durations.iter().sum();
        let stats = kernel.durations;
        assert_eq!((stats.count, stats.total_ns), (durations.len() as u64, total));
        assert_eq!((stats.min_ns, stats.max_ns), (durations[0], *durations.last().unwrap()));
        assert_eq!(stats.median_ns, durations[durations.len().div_ceil(2).max(1) - 1]);
        assert_eq!(stats.p95_ns, durations[(durations.len() * 95).div_ceil(100).max(1) - 1]);
        assert!((stats.mean_ns - total as f64 / durations.len() as f64).abs() < 1e-9);
        let mut shapes = BTreeMap::<i32, u64>::new();
        mine.iter().for_each(|row| *shapes.entry(row.grid).or_default() += 1);
        let (grid, count) = shapes.iter().max_by_key(|&(&grid, &count)| (count, -grid)).unwrap();
        assert_eq!(
            kernel.shape,
            LaunchShape {
                grid: [*grid, 1, 1],
                block: [256, 1, 1]
            }
        );
        assert_eq!((kernel.shape_count, kernel.shapes), (*count, shapes.len() as u64));
    }
    assert!(
        summary
            .kernels
            .windows(2)
            .all(|pair| pair[0].durations.total_ns >= pair[1].durations.total_ns)
    );
    check_devices(summary, rows);
}

/// Busy time nanosecond by nanosecond.
fn check_devices(summary: &SessionSummary, rows: &[Row]) {
    let all: Vec<&Row> = rows.iter().collect();
    let mut places = BTreeMap::<(u32, u32), BTreeMap<u32, Vec<&Row>>>::new();
    for row in rows {
        places
            .entry((row.pid, row.device))
            .or_default()
            .entry(row.window)
            .or_default()
            .push(row);
    }
    assert_eq!(summary.devices.len(), places.len());
    for device in &summary.devices {
        let windows = &places[&(device.pid, device.device_id)];
        let mut busy = 0;
        let mut span = 0;
        for rows in windows.values() {
            let mut marked = vec![false; 5100];
            for row in rows {
                (row.start..row.start + row.duration).for_each(|ns| marked[usize::try_from(ns).unwrap()] = true);
            }
            busy += marked.iter().filter(|&&busy| busy).count();
            // No process file tells of the window: it is as wide as the work on all devices.
            let window = |row: &&&Row| row.pid == device.pid && row.window == rows[0].window;
            let last = all
                .iter()
                .filter(window)
                .map(|row| row.start + row.duration)
                .max()
                .unwrap();
            span += last - all.iter().filter(window).map(|row| row.start).min().unwrap();
        }
        assert_eq!(device.busy_ns, i64::try_from(busy).unwrap());
        assert_eq!(device.span_ns, span);
        assert_eq!(device.idle_ns, span - device.busy_ns);
        let mine = windows.values().flatten();
        assert_eq!(device.kernels, mine.clone().count() as u64);
        assert_eq!(device.kernels_ns, mine.map(|row| row.duration).sum::<i64>());
    }
}

fn writer(folder: &Path) -> SessionWriter {
    SessionWriter::create(&SessionsDir::resolve(Some(folder)).unwrap(), NewSession::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn the_summary_equals_the_naive_one(rows in rows(), segment in 1..150_usize) {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        write(writer.path(), &rows, segment);
        writer.seal(None, &mut |_, _, _| {}).unwrap();
        check(&SessionSummary::of(&Session::load(writer.path()).unwrap()).unwrap(), &rows);
        writer.compact(&mut |_, _, _| {}).unwrap();
        let session = Session::load(writer.path()).unwrap();
        prop_assert!(session.manifest().problems.is_empty());
        check(&SessionSummary::of(&session).unwrap(), &rows);
    }
}

#[test]
fn copies_and_fills_count_as_work() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path());
    let mut guest = SyntheticGuest::new(writer.path(), 100);
    let (mut kernels, mut copies, mut fills) = (
        KernelsBuilder::default(),
        MemcpysBuilder::default(),
        MemsetsBuilder::default(),
    );
    kernels.push(kernel(100, "gemm", 1000, 100));
    copies.push(memcpy(100, "HtoD", 4096, 1050, 100));
    copies.push(memcpy(100, "DtoH", 100, 2000, 50));
    copies.push(memcpy(100, "HtoD", 4, 2500, 10));
    fills.push(memset(100, 512, 1990, 20));
    guest.seal(&mut kernels).unwrap();
    guest.seal(&mut copies).unwrap();
    guest.seal(&mut fills).unwrap();
    guest.process.windows[0].start_ns = 900;
    guest.end(3000).unwrap();
    writer.seal(None, &mut |_, _, _| {}).unwrap();

    let summary = SessionSummary::of(&Session::load(writer.path()).unwrap()).unwrap();
    let copies = summary.memcpys["HtoD"];
    assert_eq!((copies.count, copies.bytes, copies.total_ns), (2, 4100, 110));
    assert_eq!(summary.memcpys["DtoH"].gb_per_s(), Some(2.0));
    assert_eq!(summary.memsets["device"].bytes, 512);
    let device = &summary.devices[0];
    assert_eq!(
        (device.span_ns, device.busy_ns, device.idle_ns),
        (2100, 150 + 60 + 10, 2100 - 220)
    );
    assert_eq!((device.longest_gap_ns, device.kernels_ns), (840, 100));
    assert_eq!(summary.windows[0].devices[&0].first_ns, 1000);
}

#[test]
fn work_that_outlives_its_window_belongs_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path());
    let mut guest = SyntheticGuest::new(writer.path(), 100);
    let mut kernels = KernelsBuilder::default();
    kernels.push(kernel(100, "gemm", 1500, 1000));
    guest.seal(&mut kernels).unwrap();
    guest.process.windows[0].start_ns = 1000;
    guest.end(2000).unwrap();
    writer.seal(None, &mut |_, _, _| {}).unwrap();
    let summary = SessionSummary::of(&Session::load(writer.path()).unwrap()).unwrap();
    assert_eq!((summary.devices[0].span_ns, summary.devices[0].busy_ns), (1500, 1000));
}

#[test]
fn rows_that_went_away_after_sealing_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path());
    let mut guest = SyntheticGuest::new(writer.path(), 100);
    let mut kernels = KernelsBuilder::default();
    kernels.push(kernel(100, "gemm", 1500, 1000));
    let segment = guest.seal(&mut kernels).unwrap();
    guest.end(2000).unwrap();
    writer.seal(None, &mut |_, _, _| {}).unwrap();
    std::fs::remove_file(segment).unwrap();
    let summary = SessionSummary::of(&Session::load(writer.path()).unwrap()).unwrap();
    assert_eq!(summary.problems[0].code, "rows_missing");
    assert!(
        summary.problems[0]
            .message
            .contains("counts 1 kernels, but the files hold 0")
    );
}
