//! `--mode sampled`: bursts of records within an open window.

use std::collections::BTreeMap;

use colonel::schema::manifest::{BURST, Window};

use crate::run::decode;
use crate::session::Session;

const KERNELS: u64 = 24;
const MS: i64 = 1_000_000;

const MODE: &str = "--mode sampled --burst 20ms --burst-every 150ms";

/// The windows of the gate, and the bursts.
fn windows(session: &Session) -> (Vec<Window>, Vec<Window>) {
    let windows = session.process().windows;
    windows.into_iter().partition(|window| window.trigger != BURST)
}

fn is_within(inner: &Window, outer: &Window) -> bool {
    outer.start_ns <= inner.start_ns && inner.end_ns <= outer.end_ns
}

#[test]
fn a_burst_has_whole_steps_and_nothing_is_recorded_between() {
    let line = format!("--steps 400 --kernels {KERNELS} --graph --step-us 3000");
    let ended = decode(&line).options(MODE).run().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();

    let (outer, bursts) = windows(&session);
    assert_eq!(outer.len(), 1);
    assert!(outer[0].sampled && bursts.iter().all(|burst| !burst.sampled));
    assert!((3..20).contains(&bursts.len()), "{bursts:?}");
    assert!(bursts.iter().all(|burst| is_within(burst, &outer[0])));
    let length = |burst: &Window| burst.end_ns.unwrap() - burst.start_ns;
    let whole = &bursts[..bursts.len() - 1];
    assert!(whole.iter().all(|burst| length(burst) >= 20 * MS), "{bursts:?}");
    assert!(bursts.windows(2).all(|pair| pair[1].start_ns > pair[0].end_ns.unwrap()));
    let beats: Vec<i64> = bursts
        .windows(2)
        .map(|pair| pair[1].start_ns - pair[0].start_ns)
        .collect();
    assert!(beats.iter().all(|beat| *beat >= 112 * MS), "{beats:?}");

    let by_window: BTreeMap<i128, u64> = session.table("kernels").tally("window");
    for burst in whole {
        let kernels = by_window.get(&i128::from(burst.number)).copied().unwrap_or(0);
        assert!(
            kernels >= KERNELS && kernels % KERNELS == 0,
            "{kernels} in burst {}",
            burst.number
        );
    }
    assert!(!by_window.contains_key(&i128::from(outer[0].number)), "{by_window:?}");
    let recorded: u64 = by_window.values().sum();
    assert!(
        recorded < ended.count().kernels / 2,
        "{recorded} of {}",
        ended.count().kernels
    );

    let shown = ended.colonel("show").stdout;
    assert!(
        shown.contains("1 window") && shown.contains(&format!("of which {} bursts with", bursts.len())),
        "{shown}"
    );
    assert!(ended.stderr().contains("bursts with"), "{}", ended.stderr());
}

#[test]
fn many_short_windows_are_not_recorded_more_often_than_asked() {
    let line = format!("--steps 10 --kernels {KERNELS} --graph --step-us 3000 --windows 20 --outside 5");
    let ended = decode(&line)
        .options("--mode sampled --burst 20ms --burst-every 400ms --gate profiler")
        .run()
        .assert_code(0);
    let session = ended.session();
    let (outer, bursts) = windows(&session);
    assert_eq!(outer.len(), 20);
    assert!(
        bursts
            .iter()
            .all(|burst| outer.iter().any(|window| is_within(burst, window)))
    );
    let beats = bursts.windows(2).map(|pair| pair[1].start_ns - pair[0].start_ns);
    assert!(bursts.len() > 1 && beats.min() >= Some(290 * MS), "{bursts:?}");
}

/// CUPTI reads a replay's times when it ends, and not once the kinds are off: the next replay's would stand there.
#[test]
fn a_replay_longer_than_a_burst_keeps_its_times() {
    let line = format!("--steps 100 --kernels {KERNELS} --graph --step-us 45000");
    let ended = decode(&line)
        .fault("late=44")
        .options("--mode sampled --burst 20ms --burst-every 300ms")
        .run()
        .assert_code(0);
    let kernels = ended.session().table("kernels");
    let lengths: Vec<i128> = kernels
        .all("start_ns")
        .into_iter()
        .zip(kernels.all("end_ns"))
        .map(|(start, end)| end - start)
        .collect();
    assert!(lengths.len() as u64 >= 2 * KERNELS, "{}", lengths.len());
    let longest = lengths.iter().max().unwrap();
    assert!(*longest < 4_000_000, "{longest} ns");
}

#[test]
fn another_client_that_takes_the_records_over_is_noticed() {
    let ended = decode(&format!("--steps 2000 --kernels {KERNELS} --step-us 4000"))
        .fault("takeover=2000")
        .options("--mode sampled --burst 20ms --burst-every 150ms")
        .run()
        .assert_code(0);
    let message = ended.session().problem("callbacks_replaced");
    assert!(
        message.contains("no record came in") || message.contains("never came back"),
        "{message}"
    );
}

#[test]
fn counters_go_on_between_bursts() {
    let line = format!("--steps 300 --kernels {KERNELS} --graph --step-us 3000");
    let ended = decode(&line).options(MODE).options("--counters").run().assert_code(0);
    let session = ended.session();
    let (_, bursts) = windows(&session);
    let (first, second) = (&bursts[0], &bursts[1]);
    let starts = session.table("counters").all("start_ns");
    let between = i128::from(first.end_ns.unwrap())..i128::from(second.start_ns);
    assert!(starts.iter().any(|start| between.contains(start)));
}

#[test]
fn a_client_that_opens_and_closes_a_window_is_told_its_own() {
    let line = format!("--steps 1000000 --kernels {KERNELS} --graph --step-us 3000");
    let mut running = decode(&line).options(MODE).options("--gate manual").start();
    let pid = running
        .process("the guest can be asked", |process| process.control.is_some())
        .pid;
    assert!(running.colonel("start").stdout.contains("window 1 open"));
    running.process("bursts came", |process| process.windows.len() > 3);
    let second = running.colonel("start");
    assert!(
        second.stdout.contains("a window is open already: number 1"),
        "{second:?}"
    );
    let stopped = running.colonel("stop").stdout;
    assert!(
        stopped.contains("window 1 closed") && !stopped.contains(" 0 rows"),
        "{stopped}"
    );
    let count = running.process_now().unwrap().windows.len();
    std::thread::sleep(std::time::Duration::from_millis(400));
    assert_eq!(
        running.process_now().unwrap().windows.len(),
        count,
        "no burst without a window"
    );
    running.signal(pid, nix::sys::signal::Signal::SIGTERM);
    running.end().assert_code(128 + 15).session().assert_nothing_lost();
}
