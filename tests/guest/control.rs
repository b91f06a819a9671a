//! `colonel start`, `stop` and `status` on a process that runs.

use std::collections::BTreeMap;

use colonel::schema::manifest::ProcessState;
use nix::sys::signal::Signal;

use crate::run::{Ended, Running, Setup, decode};
use crate::session::tally;

const KERNELS: u64 = 24;

/// A workload of many steps that is waiting for its window.
fn armed() -> Running {
    let mut running = endless("--gate manual").start();
    running.process("the guest can be asked", |process| process.control.is_some());
    running
}

fn endless(options: &str) -> Setup {
    decode(&format!("--steps 1000000 --kernels {KERNELS} --graph --step-us 3000")).options(options)
}

/// Lets it do some more steps in its window.
fn work() {
    std::thread::sleep(std::time::Duration::from_millis(100));
}

#[track_caller]
fn say(running: &Running, line: &str, code: i32) -> String {
    let said = running.colonel(line);
    assert_eq!(said.code, Some(code), "{line}: {said:?}");
    said.stdout
}

/// Ends the workload by a signal; what it had launched is on disk by then if a window was stopped.
fn finish(mut running: Running) -> Ended {
    let pid = running.process("it runs", |_| true).pid;
    running.signal(pid, Signal::SIGTERM);
    running.end().assert_code(128 + 15)
}

#[test]
fn a_running_process_is_captured_between_start_and_stop() {
    let running = armed();
    assert!(say(&running, "status", 0).contains("armed, 0 rows"));
    assert!(say(&running, "start --name warm", 0).contains("window 1 open"));
    work();
    assert!(say(&running, "status", 0).contains("capturing, window 1"));
    let stopped = say(&running, "stop", 0);
    assert!(
        stopped.contains("window 1 closed") && !stopped.contains(" 0 rows"),
        "{stopped}"
    );
    assert!(say(&running, "status", 0).contains("armed, window 1"));
    work();
    say(&running, "start", 0);
    work();
    say(&running, "stop", 0);

    let ended = finish(running);
    let session = ended.session();
    session.assert_nothing_lost();
    let process = session.process();
    let windows: Vec<_> = process
        .windows
        .iter()
        .map(|window| (window.number, window.trigger.as_str(), window.name.as_deref()))
        .collect();
    assert_eq!(windows, [(1, "manual", Some("warm")), (2, "manual", None)]);
    let kernels = session.table("kernels");
    assert_eq!(kernels.tally("window").len(), 2);
    // A launch is in a window or it is not: no graph is cut in two.
    let launches = tally(kernels.all("window").into_iter().zip(kernels.all("correlation_id")));
    assert!(launches.len() > 2, "{}", launches.len());
    assert!(launches.values().all(|count| *count == KERNELS), "{launches:?}");
    assert_windows_are_disjoint(&launches);
}

fn assert_windows_are_disjoint(launches: &BTreeMap<(i128, i128), u64>) {
    let last_of_first = launches
        .keys()
        .filter(|(window, _)| *window == 1)
        .map(|(_, id)| id)
        .max();
    let first_of_second = launches
        .keys()
        .filter(|(window, _)| *window == 2)
        .map(|(_, id)| id)
        .min();
    assert!(last_of_first < first_of_second, "{last_of_first:?} {first_of_second:?}");
}

#[test]
fn stop_returns_when_the_rows_are_on_disk() {
    let running = armed();
    say(&running, "start", 0);
    work();
    say(&running, "stop", 0);
    let session = running.session();
    let kernels = session.table("kernels").tally("correlation_id");
    assert!(
        kernels.len() > 5 && kernels.values().all(|count| *count == KERNELS),
        "{kernels:?}"
    );
    finish(running);
}

#[test]
fn start_for_closes_by_itself() {
    let mut running = armed();
    assert!(say(&running, "start --for 200ms", 0).contains("window 1 open, for 200 ms"));
    let process = running.process("the window closed", |process| {
        process.windows.first().is_some_and(|window| window.end_ns.is_some())
    });
    let length = process.windows[0].end_ns.unwrap() - process.windows[0].start_ns;
    assert!((200_000_000..700_000_000).contains(&length), "{length} ns");
    assert!(say(&running, "start", 0).contains("window 2 open"));
    finish(running);
}

#[test]
fn a_second_start_is_refused_and_harms_nothing() {
    let running = armed();
    say(&running, "start", 0);
    assert!(say(&running, "start", 1).contains("a window is open already"));
    work();
    assert!(say(&running, "stop", 0).contains("window 1 closed"));
    let ended = finish(running);
    assert_eq!(ended.session().process().windows.len(), 1);
    ended.session().assert_nothing_lost();
}

#[test]
fn a_stop_without_a_window_is_refused() {
    let running = armed();
    assert!(say(&running, "stop", 1).contains("no window is open"));
    let ended = finish(running);
    assert_eq!(ended.session().process().attached_ns, None, "nor was CUPTI touched");
}

#[test]
fn json_says_the_same() {
    let running = armed();
    let started: serde_json::Value = serde_json::from_str(&say(&running, "start --json", 0)).unwrap();
    assert_eq!(started[0]["ok"], true);
    assert_eq!(
        (&started[0]["state"], &started[0]["window"]),
        (&"capturing".into(), &1.into())
    );
    let refused: serde_json::Value = serde_json::from_str(&say(&running, "start --json", 1)).unwrap();
    assert_eq!(refused[0]["error"], "a window is open already: number 1");
    finish(running);
}

#[test]
fn an_open_window_can_be_stopped_under_the_other_gates_too() {
    let mut running = endless("--gate process").start();
    running.process("the window is open", |process| process.state == ProcessState::Capturing);
    work();
    assert!(say(&running, "stop", 0).contains("window 1 closed"));
    assert!(say(&running, "start", 0).contains("window 2 open"));
    work();
    assert!(say(&running, "stop", 0).contains("window 2 closed"));
    let ended = finish(running);
    ended.session().assert_nothing_lost();
    assert_eq!(ended.session().table("kernels").tally("window").len(), 2);
}

#[test]
fn a_process_that_has_ended_can_not_be_asked() {
    let ended = decode("--steps 2 --kernels 4")
        .options("--gate manual")
        .run()
        .assert_code(0);
    let said = ended.colonel("status");
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("no session runs"), "{said:?}");
    let said = ended.colonel(&format!("status {}", ended.session().id()));
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("no process of session"), "{said:?}");
    assert_eq!(ended.session().process().control, None, "its socket is gone");
}

#[test]
fn every_forked_process_is_asked() {
    let setup = decode(&format!("--steps 1000000 --kernels {KERNELS} --step-us 3000 --fork=2"));
    let mut running = setup.options("--gate manual").start();
    running.until("both can be asked", |running| {
        let asked = running.colonel("status --json");
        let answers: serde_json::Value = serde_json::from_str(&asked.stdout).ok()?;
        (answers.as_array()?.len() == 2).then_some(())
    });
    assert_eq!(say(&running, "start", 0).matches("window 1 open").count(), 2);
    work();
    assert_eq!(say(&running, "stop", 0).matches("window 1 closed").count(), 2);
    let pids = running.session().table("kernels").tally("pid");
    assert_eq!(pids.len(), 2);
}
