//! Windows that nest and overlap: the summary of a session, and of one window of it, against the naive computation.

use std::collections::{BTreeMap, BTreeSet};

use colonel::analysis::SessionSummary;
use colonel::schema::columns::TableBuilder as _;
use colonel::schema::manifest::Window;
use colonel::schema::tables::{KernelsBuilder, MemcpysBuilder, MemsetsBuilder};
use colonel::session::synthetic::{SyntheticGuest, kernel, memcpy, memset};
use colonel::session::{NewSession, Selection, Session, SessionWriter, SessionsDir};
use proptest::prelude::*;

const END: i64 = 400;

/// A kernel with a copy right after it.
#[derive(Debug, Clone)]
struct Row {
    window: usize,
    start: i64,
    duration: i64,
    device: u32,
}

fn windows() -> impl Strategy<Value = Vec<Window>> {
    let window = (0..300_i64, 0..100_i64, 0..3_usize);
    prop::collection::vec(window, 1..8).prop_map(|mut windows| {
        windows.sort_unstable();
        let numbered = windows.into_iter().zip(1..);
        let window = |((start_ns, length, name), number): ((i64, i64, usize), u32)| Window {
            number,
            start_ns,
            end_ns: Some(start_ns + length),
            trigger: "region".to_owned(),
            name: [None, Some("a"), Some("b")][name].map(str::to_owned),
            sealed_ns: None,
            sampled: false,
        };
        numbered.map(window).collect()
    })
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (0..8_usize, 0..340_i64, 0..20_i64, 0..2_u32);
    let row = row.prop_map(|(window, start, duration, device)| Row {
        window,
        start,
        duration,
        device,
    });
    prop::collection::vec(row, 0..60)
}

/// Two processes with the same rows; the windows of the second are named otherwise.
fn write(session: &std::path::Path, windows: &[Window], rows: &[Row]) {
    for pid in [100, 101] {
        let mut guest = SyntheticGuest::new(session, pid);
        guest.process.windows = windows.to_vec();
        if pid == 101 {
            guest.process.windows.iter_mut().for_each(|window| window.name = None);
        }
        for rows in rows.chunks(7) {
            let (mut kernels, mut copies) = (KernelsBuilder::default(), MemcpysBuilder::default());
            let mut fills = MemsetsBuilder::default();
            for row in rows {
                let window = windows[row.window % windows.len()].number;
                let mut kernel = kernel(pid, "gemm", row.start, row.duration);
                (kernel.device_id, kernel.window) = (row.device, window);
                kernels.push(kernel);
                let mut copy = memcpy(pid, "HtoD", 10, row.start + row.duration, 3);
                (copy.device_id, copy.window) = (row.device, window);
                copies.push(copy);
                let mut fill = memset(pid, 1, row.start, 0);
                (fill.device_id, fill.window) = (row.device, window);
                fills.push(fill);
            }
            guest.seal(&mut kernels).unwrap();
            guest.seal(&mut copies).unwrap();
            guest.seal(&mut fills).unwrap();
        }
        guest.end(END).unwrap();
    }
}

fn lies_within(inner: &Window, outer: &Window) -> bool {
    inner.number >= outer.number && inner.start_ns >= outer.start_ns && inner.end_ns <= outer.end_ns
}

/// Windows that overlap one another, by way of others too, as sets of numbers.
fn stretches(windows: &[&Window]) -> Vec<BTreeSet<u32>> {
    let mut stretches: Vec<BTreeSet<u32>> = windows.iter().map(|window| [window.number].into()).collect();
    for a in windows {
        for b in windows {
            if a.start_ns <= b.end_ns.unwrap() && b.start_ns <= a.end_ns.unwrap() {
                let both = [a.number, b.number];
                let (touched, rest): (Vec<_>, Vec<_>) = stretches
                    .into_iter()
                    .partition(|stretch| both.iter().any(|number| stretch.contains(number)));
                stretches = rest;
                stretches.push(touched.into_iter().flatten().collect());
            }
        }
    }
    stretches
}

/// Start and end of a row's kernel and copy.
fn ran(row: &Row) -> (i64, i64) {
    (row.start, row.start + row.duration + 3)
}

fn busy<'a>(rows: impl Iterator<Item = &'a Row>) -> i64 {
    let mut marked = vec![false; 500];
    for (start, end) in rows.map(ran) {
        (start..end).for_each(|ns| marked[usize::try_from(ns).unwrap()] = true);
    }
    i64::try_from(marked.into_iter().filter(|&busy| busy).count()).unwrap()
}

/// The summary of the windows that count in a process must be what their rows say.
fn check(summary: &SessionSummary, pid: u32, windows: &[Window], counts: &BTreeSet<u32>, rows: &[Row]) {
    let window_of = |row: &Row| &windows[row.window % windows.len()];
    let counted: Vec<&Window> = windows
        .iter()
        .filter(|window| counts.contains(&window.number))
        .collect();
    let known: Vec<_> = summary.windows.iter().filter(|window| window.pid == pid).collect();
    assert_eq!(
        known.iter().map(|window| window.window.number).collect::<BTreeSet<_>>(),
        *counts
    );
    for known in known {
        let inside = || rows.iter().filter(|row| lies_within(window_of(row), &known.window));
        assert_eq!(known.kernels, inside().count() as u64, "{:?}", known.window);
        for (device, time) in &known.devices {
            assert_eq!(time.busy_ns, busy(inside().filter(|row| row.device == *device)));
        }
    }
    for device_id in 0..2 {
        let mut expected = (0, 0, 0);
        for stretch in stretches(&counted) {
            let mine = || {
                let of_stretch = rows.iter().filter(|row| stretch.contains(&window_of(row).number));
                of_stretch.filter(|row| row.device == device_id)
            };
            let of_stretch = || counted.iter().filter(|window| stretch.contains(&window.number));
            if let (Some(first), Some(last)) = (mine().map(|row| row.start).min(), mine().map(|row| ran(row).1).max()) {
                let start = of_stretch().map(|window| window.start_ns).min().unwrap();
                let end = of_stretch().map(|window| window.end_ns.unwrap()).max().unwrap();
                expected.0 += mine().count() as u64;
                expected.1 += end.max(last) - start.min(first);
                expected.2 += busy(mine());
            }
        }
        let device = summary
            .devices
            .iter()
            .find(|device| (device.pid, device.device_id) == (pid, device_id));
        let found = device.map_or((0, 0, 0), |device| (device.kernels, device.span_ns, device.busy_ns));
        assert_eq!(found, expected, "device {device_id}");
        assert!(device.is_none_or(|device| device.idle_ns == device.span_ns - device.busy_ns));
    }
}

fn within(windows: &[Window], is_meant: impl Fn(&Window) -> bool) -> BTreeSet<u32> {
    let meant: Vec<_> = windows.iter().filter(|window| is_meant(window)).collect();
    let inner = windows
        .iter()
        .filter(|inner| meant.iter().any(|outer| lies_within(inner, outer)));
    inner.map(|window| window.number).collect()
}

fn count(windows: &[Window], counts: &BTreeSet<u32>, rows: &[Row]) -> u64 {
    let counted = rows
        .iter()
        .filter(|row| counts.contains(&windows[row.window % windows.len()].number));
    counted.count() as u64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_summary_equals_the_naive_one(windows in windows(), rows in rows(), chosen in 0..8_usize) {
        let folder = tempfile::tempdir().unwrap();
        let sessions = SessionsDir::resolve(Some(folder.path())).unwrap();
        let mut writer = SessionWriter::create(&sessions, NewSession::default()).unwrap();
        write(writer.path(), &windows, &rows);
        writer.seal(None, &mut |_, _, _| {}).unwrap();
        let chosen = windows[chosen % windows.len()].number;
        for compact in [false, true] {
            if compact {
                writer.compact(&mut |_, _, _| {}).unwrap();
            }
            let session = Session::load(writer.path()).unwrap();
            let whole = SessionSummary::of(&session).unwrap();
            let all = within(&windows, |_| true);
            for pid in [100, 101] {
                check(&whole, pid, &windows, &all, &rows);
            }

            let selection = Selection::find(session.manifest(), &chosen.to_string()).unwrap();
            let part = SessionSummary::of_windows(&session, Some(&selection)).unwrap();
            let numbers = within(&windows, |window| window.number == chosen);
            for pid in [100, 101] {
                check(&part, pid, &windows, &numbers, &rows);
            }
            let kernels = 2 * count(&windows, &numbers, &rows);
            prop_assert_eq!(part.kernel_count, kernels);
            prop_assert_eq!(part.kernels.iter().map(|kernel| kernel.durations.count).sum::<u64>(), kernels);
            let copies = BTreeMap::from([("HtoD", kernels * 10)]);
            let found: BTreeMap<_, _> = part.memcpys.iter().map(|(kind, copy)| (kind.as_str(), copy.bytes)).collect();
            prop_assert_eq!(found, if kernels > 0 { copies } else { BTreeMap::new() });
            prop_assert_eq!(part.memsets.values().map(|fill| fill.count).sum::<u64>(), kernels);
            prop_assert!(part.problems.is_empty(), "{:?}", part.problems);

            let Ok(named) = Selection::find(session.manifest(), "a") else { continue };
            let part = SessionSummary::of_windows(&session, Some(&named)).unwrap();
            let numbers = within(&windows, |window| window.name.as_deref() == Some("a"));
            check(&part, 100, &windows, &numbers, &rows);
            check(&part, 101, &windows, &BTreeSet::new(), &rows);
            prop_assert_eq!(part.kernel_count, count(&windows, &numbers, &rows));
        }
    }
}
