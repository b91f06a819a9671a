//! Nothing is lost in silence: rows and counted losses add up to what the workload launched.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::hosts::host;
use crate::run::{Ended, Setup, decode};

/// Rows and losses of a fault; the program ran as without it.
fn faulty(line: &str, fault: &str) -> Ended {
    decode(line).fault(fault).run().assert_code(0)
}

fn profiled(line: &str, fault: &str) -> Setup {
    decode(line).options("--gate profiler").fault(fault)
}

#[test]
fn zero_timestamps_are_losses_and_no_rows() {
    let ended = faulty("--steps 20 --kernels 50", "zero-timestamps=7");
    let session = ended.session();
    assert_eq!(session.lost("kernels", "invalid_timestamp"), 1_000 / 7);
    assert_eq!(session.count("kernels"), 1_000 - 1_000 / 7);
    assert!(session.table("kernels").all("start_ns").iter().all(|start| *start > 0));
    let lost: i128 = session.table("losses").all("count").iter().sum();
    assert_eq!(lost, 1_000 / 7, "the table says the same");
    assert!(ended.stderr().contains("142 lost"), "{}", ended.stderr());
}

#[test]
fn reversed_timestamps_are_losses_and_no_rows() {
    let ended = faulty("--steps 20 --kernels 50 --graph", "reversed=10");
    let session = ended.session();
    assert_eq!(session.lost("kernels", "invalid_timestamp"), 100);
    assert_eq!(session.count("kernels"), 900);
}

#[test]
fn what_cupti_drops_is_counted() {
    let ended = faulty("--steps 20 --kernels 50 --threads 2", "drop=9");
    let session = ended.session();
    // Of 2,000 kernels, 40 copies and 40 fills every ninth is dropped.
    let rows = ["kernels", "memcpys", "memsets"].map(|table| session.count(table));
    let dropped = session.lost("records", "dropped_by_cupti");
    assert_eq!(dropped, 2_080 / 9);
    assert_eq!(rows.iter().sum::<u64>() + dropped, 2_080);
}

#[test]
fn what_cupti_drops_in_windows_is_counted() {
    let ended = profiled("--steps 5 --kernels 20 --windows 3 --outside 0", "drop=5").run();
    let ended = ended.assert_code(0);
    let session = ended.session();
    let rows = ["kernels", "memcpys", "memsets"].map(|table| session.count(table));
    let dropped = session.lost("records", "dropped_by_cupti");
    assert_eq!(rows.iter().sum::<u64>() + dropped, 3 * 5 * 22);
    assert_eq!(dropped, 3 * 5 * 22 / 5);
}

#[test]
fn late_records_are_waited_for_after_the_window() {
    let line = "--steps 10 --kernels 30 --windows 2 --outside 200 --step-us 5000";
    let ended = profiled(line, "late=300").run().assert_code(0);
    ended.session().assert_nothing_lost();
    assert_eq!(ended.session().count("kernels"), 600);
}

#[test]
fn another_client_that_takes_the_buffers_is_noticed_and_said() {
    // The first 2,000 kernels are ours; records of the 2,000 after them go to the other client, and it turns the kinds
    // off when it leaves.
    let line = "--steps 1000 --kernels 100 --graph --step-us 4000 --gpu-speed 10";
    let mut running = decode(line).options("--gate manual").fault("takeover=20000").start();
    running.process("the guest can be asked", |process| process.control.is_some());
    running.colonel("start");
    running.until("the other client has come and gone", |running| {
        running
            .process_now()
            .is_some_and(|process| process.rows.get("kernels") > Some(&15_000))
            .then_some(())
    });
    std::thread::sleep(Duration::from_secs(1));
    let ended = running.end().assert_code(0);
    let session = ended.session();
    assert!(session.count("kernels") < ended.count().kernels);
    assert!(
        session
            .problem("callbacks_replaced")
            .contains("another CUPTI client in the process")
    );
    assert_eq!(session.losses()[&("records".into(), "callbacks_replaced".into())], None);
    assert!(ended.stderr().contains("an unknown number lost"), "{}", ended.stderr());
}

/// Where records stay on, CUPTI asks for buffers until the very end.
#[test]
fn threads_that_launch_on_as_the_process_ends_are_no_other_client() {
    for _ in 0..4 {
        let ended = crate::hosts::host("launches_on.c", "--gate profiler")
            .env("COLONEL_SIM_SPEED", "1000")
            .cupti("12.9")
            .run()
            .assert_code(0);
        let session = ended.session();
        assert_eq!(session.count("kernels"), 10);
        let process = session.process();
        assert!(process.losses.is_empty(), "{:?}", process.losses);
        let mut problems = process.problems.iter();
        assert!(!problems.any(|problem| problem.code == "callbacks_replaced"));
    }
}

#[test]
fn a_name_that_is_not_utf8_is_a_name_all_the_same() {
    let ended = faulty("--steps 10 --kernels 30", "bad-name=3");
    let session = ended.session();
    session.assert_nothing_lost();
    let kernels = session.table("kernels");
    assert_eq!(kernels.len(), 300);
    let bad: Vec<String> = kernels
        .texts("name")
        .into_iter()
        .filter(|name| name.contains('\u{fffd}'))
        .collect();
    assert_eq!(bad.len(), 100);
    assert!(
        bad.iter()
            .all(|name| name.starts_with("_ZN4cut") && name.ends_with("kernel")),
        "{}",
        bad[0]
    );
}

#[test]
fn a_name_that_does_not_demangle_stays_mangled() {
    let ended = faulty("--steps 10 --kernels 30", "mangled");
    let session = ended.session();
    session.assert_nothing_lost();
    let kernels = session.table("kernels");
    let (names, mangled) = (kernels.texts("name"), kernels.texts("mangled_name"));
    let same = |prefix: &str| {
        let named = names
            .iter()
            .zip(&mangled)
            .filter(|(_, mangled)| mangled.starts_with(prefix));
        named.map(|(name, mangled)| name == mangled).collect::<Vec<bool>>()
    };
    let of_mangled = same("_Z");
    assert!(of_mangled.contains(&true), "some do not demangle");
    assert!(of_mangled.contains(&false), "the others do");
    assert!(same("nvjet").iter().all(|same| *same));
}

#[test]
fn the_first_disable_that_misses_graphs_puts_no_row_outside_windows() {
    let line = "--steps 3 --kernels 20 --windows 3 --outside 10 --graph";
    let ended = profiled(line, "").cupti("13.0").run().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(session.count("kernels"), ended.count().kernels_in_windows);

    // A graph made while a kind was on goes on recording once it is off: here, made in the window.
    let mut setup = host("nvtx.c", "--gate profiler").cupti("13.0");
    let calls = setup.path().join("calls");
    let words = "I P gb gl20 ge0 gi00 gs0 p H gs0 gs0 gs0";
    words.split_whitespace().for_each(|word| setup.word(word));
    let mut running = setup.env("COLONEL_SIM_CALLS", &calls).start();
    running.until("records are off", |_| {
        let calls = fs::read_to_string(&calls).unwrap_or_default();
        calls.contains(" cuptiActivityDisable ").then_some(())
    });
    running.go_on();
    let ended = running.end().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    assert!(session.process().outside_windows > 0, "{:?}", session.process());
    assert_eq!(session.table("kernels").tally("window"), BTreeMap::from([(1, 20)]));
}

#[test]
fn a_slow_flush_delays_no_window() {
    let line = "--steps 5 --kernels 20 --windows 5 --outside 1";
    let ended = profiled(line, "slow-flush=200").run().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(session.count("kernels"), 500);
    let windows = session.process().windows;
    let between = windows
        .windows(2)
        .map(|pair| pair[1].start_ns - pair[0].end_ns.unwrap());
    let longest = between.max().unwrap();
    assert!(longest < 150_000_000, "a host thread waited for a flush: {longest} ns");
}

#[test]
fn a_flush_that_never_returns_does_not_keep_the_program() {
    let ended = profiled("--steps 5 --kernels 20 --windows 2 --code 5", "hang-flush")
        .run()
        .assert_code(5);
    // Three seconds are granted at exit, and colonel waits two for processes that outlive the command.
    assert!(ended.took < Duration::from_secs(8), "{:?}", ended.took);
    assert_eq!(ended.count().kernels_in_windows, 200);
    let session = ended.session();
    assert!(
        session
            .process()
            .windows
            .iter()
            .all(|window| window.sealed_ns.is_none())
    );
}
