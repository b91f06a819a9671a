//! How a process may end, and what is on disk then: the session opens, whatever happened.

use colonel::schema::manifest::{Process, ProcessState, SessionState};
use nix::sys::signal::Signal;

use crate::hosts::host;
use crate::run::{Ended, decode};
use crate::session::Session;

/// `colonel show` opens it and has the same kernels.
#[track_caller]
fn assert_shown(ended: &Ended) {
    let said = ended.colonel("show --json");
    assert_eq!(said.code, Some(0), "{said:?}");
    let shown: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(shown["kernel_count"], ended.session().count("kernels"), "{shown:#}");
}

/// A process that ends by itself loses nothing of what was closed and sealed before.
fn assert_closed_windows_are_whole(end: &str, code: i32) {
    let line = format!("--steps 20 --kernels 24 --windows 2 --outside 100 --step-us 3000 --end {end}");
    let ended = decode(&line).options("--gate profiler").run().assert_code(code);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(session.count("kernels"), ended.count().kernels_in_windows);
    let process = session.process();
    assert!(
        process.windows.iter().all(|window| window.sealed_ns.is_some()),
        "{process:?}"
    );
    assert_shown(&ended);
}

#[test]
fn exit_flushes_the_open_window() {
    let ended = decode("--steps 20 --kernels 24 --code 7").run().assert_code(7);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(session.count("kernels"), ended.count().kernels);
    let process = session.process();
    assert_eq!(process.state, ProcessState::Ended);
    assert!(process.ended_ns.is_some());
    assert_shown(&ended);
}

#[test]
fn what_still_runs_at_exit_is_counted_as_lost() {
    // 300 kernels are a millisecond of GPU time; the process ends before the last steps do.
    let ended = decode("--steps 10 --kernels 300 --end exit --in-flight 10")
        .env("COLONEL_SIM_FAULT", "late=2000")
        .run()
        .assert_code(0);
    let session = ended.session();
    let kernels = session.count("kernels");
    let lost = session.lost("kernels", "invalid_timestamp");
    assert!(lost > 0, "{:?}", session.losses());
    assert_eq!(kernels + lost, ended.count().kernels);
}

#[test]
fn os_exit_keeps_closed_windows() {
    assert_closed_windows_are_whole("os-exit", 0);
}

#[test]
fn abort_keeps_closed_windows() {
    assert_closed_windows_are_whole("abort", 134);
}

#[test]
fn segv_keeps_closed_windows() {
    assert_closed_windows_are_whole("segv", 139);
}

#[test]
fn a_forked_child_that_leaves_by_os_exit_keeps_closed_windows() {
    assert_closed_windows_are_whole("os-exit --fork", 0);
}

#[test]
fn os_exit_in_an_open_window_keeps_all_that_had_ended() {
    let ended = decode("--steps 400 --kernels 24 --graph --step-us 4000 --end os-exit --code 3")
        .run()
        .assert_code(3);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(session.count("kernels"), ended.count().kernels);
    let process = session.process();
    assert_eq!(process.state, ProcessState::Ended);
    assert!(process.ended_ns.is_some());
    assert_shown(&ended);
}

#[test]
fn a_child_of_vfork_that_leaves_by_os_exit_ends_nothing() {
    let ended = host("leaves.c", "--gate profiler").run().assert_code(9);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(session.count("kernels"), 11);
    assert_eq!(session.process().windows.len(), 1);
}

/// What had reached colonel and is not on disk is counted, and the rest is said in words.
fn assert_cut_off(session: &Session) {
    let message = session.problem("process_cut_off");
    assert!(message.contains("before window 1 was on disk"), "{message}");
    let process = session.process();
    assert_eq!((process.state, process.ended_ns), (ProcessState::Capturing, None));
    let losses = session.losses();
    assert_eq!(
        losses[&("records".into(), "not_sealed".into())],
        None,
        "CUPTI's rest: nobody can count it"
    );
    for ((kind, reason), count) in losses {
        assert_eq!(reason, "not_sealed");
        assert!(count.is_some() || kind == "records", "what had reached us is counted");
    }
}

/// Kills a process in mid-capture; returns how many kernels were on disk by then.
fn kill_in_mid_capture(signal: Signal, code: i32) -> (Ended, u64) {
    let mut running = decode("--steps 1000000 --kernels 24 --graph --step-us 4000").start();
    let on_disk = |process: &Process| process.rows.get("kernels").copied().unwrap_or_default();
    let some = running.process("kernels are on disk", |process| on_disk(process) >= 110 * 24);
    // They come as the capture goes on, however fast the machine is.
    let more = running.process("more are", |process| on_disk(process) > on_disk(&some));
    running.signal(more.pid, signal);
    (running.end().assert_code(code), on_disk(&more))
}

/// What was on disk before the kill is there: each graph launch with all its kernels.
fn assert_only_the_last_moment_is_lost(signal: Signal, code: i32) {
    let (ended, on_disk) = kill_in_mid_capture(signal, code);
    let session = ended.session();
    assert_cut_off(&session);
    let kernels = session.table("kernels");
    assert!(kernels.len() >= on_disk, "{} of {on_disk}", kernels.len());
    let mut launches = kernels.tally("correlation_id");
    launches.pop_last();
    assert!(launches.len() > 100, "{}", launches.len());
    assert!(launches.values().all(|count| *count == 24), "{launches:?}");
    // Steps are four calls apart: none is missing between the first and the last. Once, the guest itself asks the
    // driver about the GPUs.
    let ids: Vec<i128> = launches.into_keys().collect();
    let strides = ids.windows(2).map(|pair| pair[1] - pair[0]);
    let missing: Vec<i128> = strides.filter(|calls| *calls >= 2 * 4).collect();
    assert!(missing.len() <= 1, "steps are 4 ids apart, but some {missing:?}");
    assert_shown(&ended);
}

#[test]
fn sigkill_loses_only_the_last_moment_and_says_so() {
    assert_only_the_last_moment_is_lost(Signal::SIGKILL, 137);
}

#[test]
fn sigterm_loses_only_the_last_moment_and_says_so() {
    assert_only_the_last_moment_is_lost(Signal::SIGTERM, 143);
}

#[test]
fn a_killed_launcher_leaves_a_session_that_opens() {
    let mut running = decode("--steps 1000000 --kernels 24 --graph --step-us 4000").start();
    running.process("rows are on disk", |process| process.rows.contains_key("kernels"));
    running.kill_leader();
    let said = running.colonel("show --json");
    assert_eq!(said.code, Some(0), "{said:?}");
    let shown: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert!(shown["kernel_count"].as_u64().unwrap() >= 24, "{shown:#}");
    assert_eq!(
        running.session().manifest().state,
        SessionState::Running,
        "nobody sealed it"
    );
}
