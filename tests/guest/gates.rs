//! What opens a window and what closes it, and what it costs while none is open.

use std::collections::BTreeMap;
use std::fs;

use colonel::schema::manifest::{ProcessState, Window};

use crate::run::decode;

const MILLISECOND: i64 = 1_000_000;

fn length_ns(window: &Window) -> i64 {
    window.end_ns.expect("closed") - window.start_ns
}

#[test]
fn gate_process_is_one_window_of_the_whole_life() {
    let ended = decode("--steps 10 --kernels 24")
        .options("--gate process")
        .run()
        .assert_code(0);
    let process = ended.session().process();
    assert_eq!(process.state, ProcessState::Ended);
    assert_eq!(process.gate_by, None);
    let [window] = process.windows.as_slice() else {
        panic!("{:?}", process.windows)
    };
    assert_eq!((window.number, window.trigger.as_str()), (1, "process"));
    assert!(process.started_ns <= window.start_ns && window.end_ns <= process.ended_ns);
    assert!(window.sealed_ns.is_some(), "it is on disk");
    assert_eq!(ended.session().count("kernels"), ended.count().kernels);
}

#[test]
fn gate_process_takes_no_notice_of_profiler_calls() {
    let ended = decode("--steps 5 --kernels 24 --windows 2").run().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(session.count("kernels"), ended.count().kernels);
    assert_eq!(session.process().windows.len(), 1);
}

#[test]
fn an_armed_process_makes_no_cupti_call() {
    let setup = decode("--steps 50 --kernels 48 --graph").options("--gate profiler");
    let calls = setup.path().join("calls");
    let ended = setup.env("COLONEL_SIM_CALLS", &calls).run().assert_code(0);
    assert!(!calls.exists(), "{}", fs::read_to_string(&calls).unwrap());
    let process = ended.session().process();
    assert_eq!((process.attached_ns, process.cupti), (None, None));
    assert_eq!(process.gate_by.as_deref(), Some("preload"));
    assert_eq!(ended.session().count("kernels"), 0);
    assert!(ended.stderr().contains("no kernels"), "{}", ended.stderr());
}

#[test]
fn an_armed_process_under_gate_manual_makes_no_cupti_call_either() {
    let setup = decode("--steps 50 --kernels 48 --windows 2").options("--gate manual");
    let calls = setup.path().join("calls");
    let ended = setup.env("COLONEL_SIM_CALLS", &calls).run().assert_code(0);
    assert!(!calls.exists(), "{}", fs::read_to_string(&calls).unwrap());
    let process = ended.session().process();
    assert_eq!((process.attached_ns, process.windows.len()), (None, 0));
}

#[test]
fn cupti_is_first_touched_when_the_first_window_opens() {
    let setup = decode("--steps 5 --kernels 24 --windows 1 --outside 30 --step-us 5000");
    let setup = setup.options("--gate profiler");
    let calls = setup.path().join("calls");
    let ended = setup.env("COLONEL_SIM_CALLS", &calls).run().assert_code(0);
    let process = ended.session().process();
    let attached = process.attached_ns.expect("attached");
    let armed = attached - process.started_ns;
    assert!(armed >= 140 * MILLISECOND, "30 steps of 5 ms came before: {armed} ns");
    let opened = process.windows[0].start_ns - attached;
    assert!((0..100 * MILLISECOND).contains(&opened), "{opened} ns");
    assert!(fs::read_to_string(&calls).unwrap().contains("cuptiSubscribe"));
}

#[test]
fn nothing_is_taken_outside_windows() {
    let ended = decode("--steps 3 --kernels 24 --windows 3 --outside 20 --graph")
        .options("--gate profiler")
        .cupti("13.3")
        .run()
        .assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    let process = session.process();
    let windows: BTreeMap<i128, &Window> = process.windows.iter().map(|w| (w.number.into(), w)).collect();
    let kernels = session.table("kernels");
    assert_eq!(kernels.len(), ended.count().kernels_in_windows);
    for (window, start) in kernels.all("window").into_iter().zip(kernels.all("start_ns")) {
        assert!(i128::from(windows[&window].start_ns) <= start);
    }
}

#[test]
fn a_thousand_start_and_stop_pairs_are_a_thousand_windows() {
    let ended = decode("--steps 1 --kernels 6 --windows 1000 --outside 1 --graph --in-flight 1")
        .options("--gate profiler")
        .run()
        .assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(ended.count().kernels_in_windows, 6_000);
    let each = (1..=1000).map(|window| (window, 6)).collect();
    assert_eq!(session.table("kernels").tally("window"), each);
    assert_eq!(session.table("windows").all("window"), (1..=1000).collect::<Vec<_>>());
    let numbers: Vec<u32> = session.process().windows.iter().map(|window| window.number).collect();
    assert_eq!(numbers, (1..=1000).collect::<Vec<_>>());
}

#[test]
fn a_thousand_pairs_by_callback_are_a_thousand_windows_too() {
    let ended = decode("--steps 1 --kernels 6 --windows 1000 --outside 0 --resolve static")
        .options("--gate profiler")
        .run()
        .assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    let each = (1..=1000).map(|window| (window, 6)).collect();
    assert_eq!(session.table("kernels").tally("window"), each);
}

#[test]
fn after_delays_the_window() {
    let ended = decode("--steps 150 --kernels 12 --graph --step-us 5000")
        .options("--after 400ms")
        .run()
        .assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    let process = session.process();
    let delay = process.windows[0].start_ns - process.started_ns;
    assert!(delay >= 400 * MILLISECOND, "{delay} ns");
    let kernels = session.count("kernels");
    assert!(kernels > 0 && kernels.is_multiple_of(12), "{kernels}");
    assert!(kernels <= ended.count().kernels - 12 * 40, "{kernels}");
}

#[test]
fn for_closes_the_window_by_itself() {
    let ended = decode("--steps 150 --kernels 12 --step-us 5000")
        .options("--for 200ms")
        .run()
        .assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    let process = session.process();
    assert_eq!(process.windows.len(), 1);
    let length = length_ns(&process.windows[0]);
    assert!((200 * MILLISECOND..600 * MILLISECOND).contains(&length), "{length} ns");
    let kernels = session.count("kernels");
    assert!((1..ended.count().kernels - 12).contains(&kernels), "{kernels}");
}

#[test]
fn after_and_for_narrow_the_profilers_window() {
    let ended = decode("--steps 150 --kernels 12 --step-us 5000 --windows 1 --outside 1")
        .options("--gate profiler --after 200ms --for 200ms")
        .run()
        .assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    let process = session.process();
    let [window] = process.windows.as_slice() else {
        panic!("{:?}", process.windows)
    };
    assert_eq!(window.trigger, "profiler");
    assert!(window.start_ns - process.started_ns >= 200 * MILLISECOND);
    assert!((200 * MILLISECOND..600 * MILLISECOND).contains(&length_ns(window)));
}

#[test]
fn a_stop_before_the_delay_is_over_opens_no_window() {
    let ended = decode("--steps 2 --kernels 12 --windows 1 --outside 100 --step-us 5000")
        .options("--gate profiler --after 250ms")
        .run()
        .assert_code(0);
    let process = ended.session().process();
    assert_eq!((process.windows.len(), process.attached_ns), (0, None));
}

/// On an H100 what was launched later had the correlation ids of the first window where records had been on before there
/// was a context: nothing belonged to the second.
#[test]
fn a_second_window_has_its_records_where_the_first_was_open_from_the_start() {
    for (version, options) in [("12.9", ""), ("13.0", ""), ("13.0", "--trace api"), ("13.5", "")] {
        let mut running = decode("--steps 1000000 --kernels 24 --graph --step-us 2000")
            .options("--gate process")
            .options(options)
            .cupti(version)
            .start();
        let process = running.process("a window is open", |process| {
            process.control.is_some() && process.rows.get("kernels").is_some_and(|rows| *rows > 0)
        });
        assert!(running.colonel("stop").stdout.contains("window 1 closed"));
        // Until records are off and the program launched without them.
        std::thread::sleep(std::time::Duration::from_millis(600));
        assert!(running.colonel("start").stdout.contains("window 2 open"));
        std::thread::sleep(std::time::Duration::from_millis(200));
        running.colonel("stop");
        running.signal(process.pid, nix::sys::signal::Signal::SIGTERM);
        let ended = running.end().assert_code(128 + 15);
        let session = ended.session();
        let by_window = session.table("kernels").tally("window");
        let kernels = by_window.get(&2).copied().unwrap_or(0);
        let window = &session.process().windows[1];
        let most = u64::try_from(window.end_ns.unwrap() - window.start_ns).unwrap() / 2_000_000 + 2;
        assert!(
            (24 * 10..=24 * most).contains(&kernels),
            "{kernels} with {version} {options}, of {most} steps at most"
        );
        assert_eq!(kernels % 24, 0, "whole steps with {version} {options}");
    }
}

/// Turning them off can hang a program that launches graphs: gpu-sim ends it then.
#[test]
fn records_stay_on_where_turning_them_off_could_hang_the_program() {
    let line = "--steps 800 --kernels 24 --graph --step-us 2000";
    let run = |version: &str| {
        let setup = decode(line).options("--gate process --for 100ms").cupti(version);
        let calls = setup.path().join("calls");
        let ended = setup.env("COLONEL_SIM_CALLS", &calls).run().assert_code(0);
        let calls = fs::read_to_string(&calls).unwrap();
        (calls.matches("cuptiActivityDisable").count(), ended)
    };
    let (turned_off, ended) = run("12.9");
    assert_eq!(turned_off, 0);
    let message = ended.session().problem("records_stay_on");
    assert!(message.contains("13.0.85"), "{message}");
    let (turned_off, ended) = run("13.0");
    assert_eq!(turned_off, 9, "all kinds, synchronizations too");
    let session = ended.session();
    session.assert_nothing_lost();
    assert!(session.process().problems.is_empty());
}

/// A program that waits between cuInit and its first context.
fn late_context(options: &str) -> crate::run::Running {
    crate::hosts::host("late_context.c", options).start()
}

/// No callback tells of a context as the window is opened.
#[test]
fn windows_opened_before_there_is_a_context_leave_later_ones_whole() {
    for options in ["", "--trace api"] {
        let mut running = late_context(&format!("--gate manual {options}"));
        let pid = running
            .process("the guest can be asked", |process| process.control.is_some())
            .pid;
        assert!(running.colonel("start").stdout.contains("window 1 open"));
        fs::write(running.path().join("go"), "").unwrap();
        running.process("kernels came", |process| {
            process.rows.get("kernels").is_some_and(|rows| *rows > 0)
        });
        for window in 2..4 {
            running.colonel("stop");
            std::thread::sleep(std::time::Duration::from_millis(600));
            let started = running.colonel("start").stdout;
            assert!(started.contains(&format!("window {window} open")), "{started}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        running.colonel("stop");
        running.signal(pid, nix::sys::signal::Signal::SIGTERM);
        let ended = running.end().assert_code(128 + 15);
        let by_window = ended.session().table("kernels").tally("window");
        for window in 1..4 {
            let kernels = by_window.get(&window).copied().unwrap_or(0);
            assert!(kernels > 10, "{kernels} in window {window}, {options}");
        }
    }
}

/// Nothing of work was on: nothing is turned off beside the thread that makes the context, and nothing "stays on".
#[test]
fn a_window_that_closes_before_there_is_a_context_disturbs_nothing() {
    for version in ["12.9", "13.0"] {
        let setup = crate::hosts::host("late_context.c", "--gate process --for 50ms").cupti(version);
        let calls = setup.path().join("calls");
        let mut running = setup.env("COLONEL_SIM_CALLS", &calls).start();
        let pid = running
            .process("the window closed", |process| {
                process.windows.first().is_some_and(|window| window.end_ns.is_some())
            })
            .pid;
        std::thread::sleep(std::time::Duration::from_millis(800));
        let called = fs::read_to_string(&calls).unwrap();
        assert!(called.contains("cuptiActivityFlushAll"), "it was waited for: {called}");
        assert!(!called.contains("cuptiActivityDisable"), "with {version}: {called}");
        fs::write(running.path().join("go"), "").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(running.colonel("start").stdout.contains("window 2 open"));
        std::thread::sleep(std::time::Duration::from_millis(200));
        running.colonel("stop");
        running.signal(pid, nix::sys::signal::Signal::SIGTERM);
        let ended = running.end().assert_code(128 + 15);
        let session = ended.session();
        let by_window = session.table("kernels").tally("window");
        assert_eq!(by_window.keys().copied().collect::<Vec<_>>(), [2], "{by_window:?}");
        assert_eq!(session.count("contexts"), 1, "it was recorded as it was made");
        let problems = session.process().problems;
        assert!(problems.is_empty(), "with {version}: {problems:?}");
    }
}
