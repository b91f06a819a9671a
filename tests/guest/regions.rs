//! Windows that nest and overlap, opened and closed by a client in the process. What each holds follows from the words
//! that the program is given.

use std::collections::BTreeMap;

use crate::hosts::host;
use crate::run::Ended;

fn run(options: &str, words: &[&str]) -> Ended {
    let mut setup = host("regions.c", options);
    words.iter().for_each(|word| setup.word(word));
    setup.run().assert_code(0)
}

/// Number, trigger and name of each window.
fn windows(ended: &Ended) -> Vec<(u32, String, String)> {
    let windows = ended.session().process().windows;
    windows
        .into_iter()
        .map(|window| (window.number, window.trigger, window.name.unwrap_or_default()))
        .collect()
}

fn names(list: &[(u32, &str, &str)]) -> Vec<(u32, String, String)> {
    list.iter()
        .map(|(n, t, name)| (*n, (*t).to_owned(), (*name).to_owned()))
        .collect()
}

/// The replies to what was sent: its word, whether it was done, and the JSON.
fn replies(ended: &Ended) -> Vec<(String, bool, serde_json::Value)> {
    let stdout = ended.stdout();
    let lines = stdout.lines().map(|line| {
        let (word, rest) = line.split_once(' ').unwrap();
        let (done, reply) = rest.split_once(' ').unwrap();
        (word.to_owned(), done == "ok", serde_json::from_str(reply).unwrap())
    });
    lines.collect()
}

#[track_caller]
fn assert_kernels(ended: &Ended, expected: &[(i128, u64)]) {
    let session = ended.session();
    session.assert_nothing_lost();
    let kernels = session.table("kernels");
    assert_eq!(
        kernels.tally("window"),
        expected.iter().copied().collect::<BTreeMap<_, _>>()
    );
}

/// Every window is closed, on disk, and in its table once.
#[track_caller]
fn assert_all_sealed(ended: &Ended) {
    let session = ended.session();
    let windows = session.process().windows;
    for window in &windows {
        assert!(window.end_ns.is_some() && window.sealed_ns.is_some(), "{window:?}");
    }
    let rows = session.table("windows");
    let mut numbers = rows.all("window");
    numbers.sort_unstable();
    let expected: Vec<i128> = windows.iter().map(|window| window.number.into()).collect();
    assert_eq!(numbers, expected);
    let ends: Vec<i128> = windows.iter().map(|window| window.end_ns.unwrap().into()).collect();
    let by_number: BTreeMap<_, _> = rows.all("window").into_iter().zip(rows.all("end_ns")).collect();
    assert_eq!(by_number.into_values().collect::<Vec<_>>(), ends);
}

#[test]
fn the_innermost_region_has_the_kernel() {
    let words = "l3 +outer l5 +inner l7 +deep l1 -3 l2 -2 l4 +again l6 -4 l8 -1 l9";
    let ended = run("--gate manual", &words.split(' ').collect::<Vec<_>>());
    assert_kernels(&ended, &[(1, 17), (2, 9), (3, 1), (4, 6)]);
    let expected = [
        (1, "region", "outer"),
        (2, "region", "inner"),
        (3, "region", "deep"),
        (4, "region", "again"),
    ];
    assert_eq!(windows(&ended), names(&expected));
    assert_all_sealed(&ended);
    let session = ended.session().process();
    let interval = |number: usize| {
        (
            session.windows[number - 1].start_ns,
            session.windows[number - 1].end_ns.unwrap(),
        )
    };
    for (inner, outer) in [(2, 1), (3, 2), (4, 1)] {
        let (inner, outer) = (interval(inner), interval(outer));
        assert!(outer.0 < inner.0 && inner.1 < outer.1, "{inner:?} {outer:?}");
    }
}

#[test]
fn show_of_a_region_has_those_within_it() {
    let words = "+outer l3 +inner l5 -3 l7 -2 l9 +inner l11 -4";
    let ended = run("--gate process", &words.split(' ').collect::<Vec<_>>());
    assert_kernels(&ended, &[(1, 9), (2, 10), (3, 5), (4, 11)]);
    for (window, kernels) in [("outer", 15), ("inner", 16), ("3", 5), ("1", 35)] {
        let said = ended.colonel(&format!("show --json --window {window}"));
        let shown: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(shown["kernel_count"], kernels, "{window}");
    }
    assert!(ended.stderr().contains("  4 windows, "), "{}", ended.stderr());
    assert_eq!(ended.colonel("show --window middle").code, Some(1));
}

#[test]
fn a_reply_names_the_window_that_its_request_opened() {
    let words = "+a +b -1 +c -3 -2";
    let ended = run("--gate manual", &words.split(' ').collect::<Vec<_>>());
    let said: Vec<_> = replies(&ended)
        .into_iter()
        .map(|(_, ok, reply)| {
            let state = reply["state"].as_str().unwrap().to_owned();
            (ok, state, reply["window"].as_u64().unwrap(), reply["open"].to_string())
        })
        .collect();
    let expected = [
        ("capturing", 1, "[1]"),
        ("capturing", 2, "[1,2]"),
        ("capturing", 1, "[2]"),
        ("capturing", 3, "[2,3]"),
        ("capturing", 3, "[2]"),
        ("armed", 2, "[]"),
    ];
    assert_eq!(
        said,
        expected.map(|(state, window, open)| (true, state.to_owned(), window, open.to_owned()))
    );
    assert_all_sealed(&ended);
}

#[test]
fn regions_that_overlap_close_in_any_order() {
    let words = "+a l1 +b l2 -1 l4 +c l8 -2 l16 s +d l32 -3 l64 -4 l128";
    let ended = run("--gate manual", &words.split(' ').collect::<Vec<_>>());
    assert_kernels(&ended, &[(1, 1), (2, 6), (3, 24), (4, 96)]);
    assert_all_sealed(&ended);
}

#[test]
fn stop_without_a_number_closes_all_as_it_always_did() {
    let words = "+a l1 +b l2 +c l4 - l8 - =d l16 -";
    let ended = run("--gate manual", &words.split(' ').collect::<Vec<_>>());
    assert_kernels(&ended, &[(1, 1), (2, 2), (3, 4), (4, 16)]);
    assert_all_sealed(&ended);
    let stops: Vec<_> = replies(&ended).into_iter().filter(|(word, ..)| word == "-").collect();
    assert_eq!(
        stops.iter().map(|(_, ok, _)| *ok).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!(
        (&stops[0].2["window"], &stops[0].2["state"]),
        (&3.into(), &"armed".into())
    );
    assert_eq!(stops[1].2["error"], "no window is open");
    assert_eq!(windows(&ended)[3], (4, "manual".to_owned(), "d".to_owned()));
}

#[test]
fn what_is_not_open_can_not_be_closed() {
    let words = "-1 +a l1 -7 -0 -1 l2 -1 -4294967296";
    let ended = run("--gate manual", &words.split(' ').collect::<Vec<_>>());
    assert_kernels(&ended, &[(1, 1)]);
    let errors: Vec<_> = replies(&ended)
        .into_iter()
        .map(|(_, ok, reply)| reply["error"].as_str().map_or(ok.to_string(), str::to_owned))
        .collect();
    assert_eq!(
        errors[..6],
        [
            "window 1 is not open: no window is open",
            "true",
            "window 7 is not open: 1 open, the newest is number 1, `a`",
            "window 0 is not open: 1 open, the newest is number 1, `a`",
            "true",
            "window 1 is not open: no window is open",
        ]
    );
    assert!(errors[6].starts_with("not a request: "), "{}", errors[6]);
}

#[test]
fn a_start_that_is_not_nested_is_refused_beside_a_region() {
    let ended = run("--gate manual", &["+bs8", "l1", "=late", "l2", "-1"]);
    assert_kernels(&ended, &[(1, 3)]);
    let refusal = &replies(&ended)[1];
    assert_eq!(
        (refusal.1, &refusal.2["error"]),
        (false, &"a window is open already: number 1, `bs8`".into())
    );
}

#[test]
fn messages_of_older_clients_mean_what_they_meant() {
    let (start, stop) = (r#"{"version":1,"op":"start"}"#, r#"{"version":1,"op":"stop"}"#);
    let named = r#"{"version":1,"op":"start","name":"w","for_ns":null}"#;
    let ended = run(
        "--gate manual",
        &[start, "l3", start, stop, "l5", named, "l7", stop, stop],
    );
    assert_kernels(&ended, &[(1, 3), (2, 7)]);
    assert_eq!(windows(&ended), names(&[(1, "manual", ""), (2, "manual", "w")]));
    let done: Vec<bool> = replies(&ended).into_iter().map(|(_, ok, _)| ok).collect();
    assert_eq!(done, [true, false, true, true, true, false]);
}

#[test]
fn the_profilers_window_is_its_own() {
    for options in ["--gate profiler", "--gate profiler --gate-by callback"] {
        let words = "l1 +a l2 P l4 P l8 p l16 p l32 -1 l64 P l128 +b l256 p l512 -4 l1024";
        let ended = run(options, &words.split(' ').collect::<Vec<_>>());
        assert_kernels(&ended, &[(1, 2 + 16 + 32), (2, 12), (3, 128), (4, 256 + 512)]);
        let expected = [
            (1, "region", "a"),
            (2, "profiler", ""),
            (3, "profiler", ""),
            (4, "region", "b"),
        ];
        assert_eq!(windows(&ended), names(&expected), "{options}");
        assert_all_sealed(&ended);
    }
}

#[test]
fn regions_within_the_life_of_a_process() {
    let ended = run(
        "--gate process",
        &"l1 +a l2 +b l4 -2 P l8 p -3 l16".split(' ').collect::<Vec<_>>(),
    );
    assert_kernels(&ended, &[(1, 17), (2, 2), (3, 12)]);
    let expected = [(1, "process", ""), (2, "region", "a"), (3, "region", "b")];
    assert_eq!(windows(&ended), names(&expected));
    assert_all_sealed(&ended);
}

#[test]
fn a_process_window_that_comes_later_opens_beside_a_region() {
    let ended = run(
        "--gate process --after 200ms",
        &["l1", "+a", "l2", "t600", "l4", "-1", "l8"],
    );
    assert_kernels(&ended, &[(1, 2), (2, 12)]);
    assert_eq!(windows(&ended), names(&[(1, "region", "a"), (2, "process", "")]));
    assert_all_sealed(&ended);
}

#[test]
fn stop_without_a_number_closes_the_process_window_too() {
    let ended = run("--gate process", &["l1", "+a", "l2", "-", "l4", "+b", "l8", "-3"]);
    assert_kernels(&ended, &[(1, 1), (2, 2), (3, 8)]);
}

#[test]
fn each_window_has_its_own_timer() {
    let timed = r#"{"version":1,"op":"start","name":"timed","for_ns":150000000,"nested":true}"#;
    let ended = run(
        "--gate manual",
        &["+a", "l1", timed, "l2", "t600", "l4", "-2", "-1", "l8"],
    );
    assert_kernels(&ended, &[(1, 5), (2, 2)]);
    assert_all_sealed(&ended);
    let windows = ended.session().process().windows;
    let length = windows[1].end_ns.unwrap() - windows[1].start_ns;
    assert!((150_000_000..500_000_000).contains(&length), "{length} ns");
    assert!(!replies(&ended)[2].1, "it had closed by itself");
}

#[test]
fn for_limits_each_region() {
    let ended = run(
        "--gate manual --for 200ms",
        &["+a", "l1", "+b", "l2", "-2", "l4", "t600", "l8"],
    );
    assert_kernels(&ended, &[(1, 5), (2, 2)]);
    assert_all_sealed(&ended);
}

#[test]
fn regions_that_are_open_at_the_end_are_closed_by_it() {
    let ended = run("--gate manual", &["+a", "l1", "+b", "l2"]);
    assert_kernels(&ended, &[(1, 1), (2, 2)]);
    assert_all_sealed(&ended);
}

#[test]
fn a_thousand_nested_pairs() {
    let mut words = vec!["+outer".to_owned()];
    let mut expected = vec![(1, 1_000)];
    for pair in 0..500_u64 {
        let (first, second) = (2 * pair + 2, 2 * pair + 3);
        words.extend(["l1".to_owned(), "+step".to_owned(), "l2".to_owned()]);
        words.extend(["+part".to_owned(), "l3".to_owned(), format!("-{second}")]);
        words.extend([format!("-{first}"), "l1".to_owned()]);
        expected.extend([(i128::from(first), 2), (i128::from(second), 3)]);
    }
    words.push("-1".to_owned());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let setup = host("regions.c", "--gate manual");
    let calls = setup.path().join("calls");
    let mut setup = setup.env("COLONEL_SIM_CALLS", &calls);
    words.iter().for_each(|word| setup.word(word));
    let ended = setup.run().assert_code(0);
    assert_kernels(&ended, &expected);
    assert_all_sealed(&ended);
    assert!(replies(&ended).iter().all(|(_, ok, _)| *ok));
    let calls = std::fs::read_to_string(calls).unwrap();
    let enabled = calls
        .lines()
        .filter(|line| line.contains("cuptiActivityEnable"))
        .count();
    assert!(enabled <= 9, "the kinds are turned on once: {enabled}");
}

/// A program of random opens, closes and launches, and how many kernels each window holds by the rule: those launched
/// while it was the newest of the open ones.
fn random(seed: u64) -> (Vec<String>, Vec<(i128, u64)>) {
    let mut state = seed;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let (mut words, mut held, mut open) = (Vec::new(), Vec::<u64>::new(), Vec::new());
    for _ in 0..400 {
        match random(10) {
            0..=2 => {
                held.push(0);
                open.push(held.len());
                words.push("+r".to_owned());
            }
            3..=5 if !open.is_empty() => {
                let place = usize::try_from(random(open.len() as u64)).unwrap();
                words.push(format!("-{}", open.remove(place)));
            }
            6 if random(20) == 0 && !open.is_empty() => {
                open.clear();
                words.push("-".to_owned());
            }
            _ => {
                let count = random(9) + 1;
                words.push(format!("l{count}"));
                if let Some(newest) = open.last() {
                    held[newest - 1] += count;
                }
            }
        }
    }
    let expected = held.iter().zip(1..).filter(|(count, _)| **count > 0);
    (words, expected.map(|(count, number)| (number, *count)).collect())
}

#[test]
fn any_sequence_of_opens_and_closes() {
    for seed in [3, 1_415, 92_653] {
        let (words, expected) = random(seed);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ended = run("--gate manual", &words);
        assert!(replies(&ended).iter().all(|(_, ok, _)| *ok), "seed {seed}");
        assert_kernels(&ended, &expected);
        assert_all_sealed(&ended);
    }
}

#[test]
fn a_client_and_the_profilers_thread_at_once() {
    for options in ["--gate profiler", "--gate profiler --gate-by callback"] {
        let mut words = vec!["+outer", "T300"];
        (0..150).for_each(|_| words.extend(["+region", "l2", "~"]));
        let ended = run(options, &words);
        let session = ended.session();
        session.assert_nothing_lost();
        assert_eq!(session.count("kernels"), 300 * 3 + 150 * 2, "{options}");
        let mut triggers = BTreeMap::<_, u32>::new();
        windows(&ended)
            .into_iter()
            .for_each(|(_, trigger, _)| *triggers.entry(trigger).or_default() += 1);
        assert_eq!(
            triggers,
            BTreeMap::from([("profiler".to_owned(), 300), ("region".to_owned(), 151)])
        );
        assert!(replies(&ended).iter().all(|(_, ok, _)| *ok), "{options}");
        assert_all_sealed(&ended);
    }
}

#[test]
fn forked_processes_have_windows_of_their_own() {
    let ended = run(
        "--gate manual",
        &"f l1 +a l2 +b l4 -1 l8 -2".split(' ').collect::<Vec<_>>(),
    );
    let session = ended.session();
    session.assert_nothing_lost();
    let kernels = session.table("kernels");
    let mut by_process = BTreeMap::<_, BTreeMap<_, u64>>::new();
    for (pid, window) in kernels.all("pid").into_iter().zip(kernels.all("window")) {
        *by_process.entry(pid).or_default().entry(window).or_default() += 1;
    }
    assert_eq!(by_process.len(), 2);
    assert!(
        by_process
            .values()
            .all(|windows| *windows == BTreeMap::from([(1, 2), (2, 12)])),
        "{by_process:?}"
    );
}

#[test]
fn status_lists_the_windows_that_are_open() {
    let mut setup = host("regions.c", "--gate manual");
    ["+a", "+b", "+c", "-2", "t30000"]
        .iter()
        .for_each(|word| setup.word(word));
    let mut running = setup.start();
    running.process("the third window is open and the second closed", |process| {
        process.windows.len() == 3 && process.windows[1].end_ns.is_some()
    });
    let said = running.colonel("status");
    assert!(said.stdout.contains("capturing, windows 1, 3, "), "{said:?}");
    let said = running.colonel("stop");
    assert!(said.stdout.contains("window 3 closed"), "{said:?}");
    assert!(running.colonel("status").stdout.contains("armed, window 3, "));
}
