//! A bare CUPTI client injected into the workload: its counts against the workload's own, for each version, kind of
//! launch, gate and fault.

use crate::support::{Sim, summary};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

const VERSIONS: [(&str, u32); 11] = [
    ("12.4", 22),
    ("12.5", 23),
    ("12.6", 24),
    ("12.8", 26),
    ("12.9", 28),
    ("13.0", 130_001),
    ("13.1", 130_101),
    ("13.2", 130_202),
    ("13.3", 130_301),
    ("13.4", 130_401),
    ("13.5", 130_500),
];

fn results<'a>(seen: &'a Value, function: &str) -> Vec<&'a Value> {
    let results = seen["results"].as_array().unwrap();
    results
        .iter()
        .filter(|result| result[0] == function)
        .map(|result| &result[1])
        .collect()
}

#[test]
fn every_version_gives_every_record_in_its_own_layout() {
    let sim = Sim::new();
    for (name, version) in VERSIONS {
        let (summary, seen) = sim.counted("--steps 10 --kernels 336 --graph", &[("COLONEL_SIM_CUPTI", name)]);
        assert_eq!(seen["version"], version);
        assert_eq!(seen["kernels"], summary["kernels"], "{name}");
        assert_eq!((&seen["memcpys"], &seen["memsets"]), (&10.into(), &10.into()), "{name}");
        for nothing in [
            "unreadable_bytes",
            "dropped",
            "zero_timestamps",
            "reversed",
            "unfinished",
            "wrong_graph_nodes",
        ] {
            assert_eq!(seen[nothing], 0, "{name}: {nothing}");
        }
        assert_eq!(seen["names"].as_array().unwrap().len(), 14, "{name}");
    }
}

#[test]
fn kernels_of_one_replay_share_a_correlation_id_and_eager_ones_do_not() {
    let sim = Sim::new();
    let (_, graph) = sim.counted("--steps 10 --kernels 50 --graph", &[]);
    assert_eq!(graph["correlation_ids"].as_array().unwrap().len(), 10);
    assert_eq!(graph["graphs"].as_array().unwrap().len(), 1);
    let (_, eager) = sim.counted("--steps 10 --kernels 50", &[]);
    assert_eq!(eager["correlation_ids"].as_array().unwrap().len(), 500);
    assert_eq!(eager["graphs"], serde_json::json!([0]));
}

#[test]
fn threads_lose_nothing_with_buffers_of_their_own_or_a_shared_one() {
    let sim = Sim::new();
    for version in ["12.9", "13.0"] {
        let settings = [
            ("COLONEL_SIM_CUPTI", version),
            ("COLONEL_SIM_SPEED", "50"),
            ("SIM_CLIENT_BUFFER", "8192"),
        ];
        let (summary, seen) = sim.counted("--steps 30 --kernels 100 --threads 8", &settings);
        assert_eq!(
            (&seen["kernels"], &summary["kernels"]),
            (&24_000.into(), &24_000.into()),
            "{version}"
        );
        assert_eq!(seen["memcpys"], 240);
    }
}

#[test]
fn full_buffers_come_back_from_a_thread_of_cuptis_own() {
    let sim = Sim::new();
    let (_, seen) = sim.counted("--steps 20 --kernels 336 --graph", &[]);
    let threads = seen["threads_of_completion"].as_array().unwrap();
    assert_eq!(threads.len(), 2, "the worker and the thread that flushes: {threads:?}");
    assert!(threads.contains(&seen["main_thread"]));
}

#[test]
fn a_gate_at_cu_profiler_start_sees_the_windows_alone() {
    let sim = Sim::new();
    for (resolve, version) in [("global", "13.0"), ("handle", "12.9"), ("static", "13.5")] {
        let args = format!("--steps 5 --kernels 40 --windows 3 --graph --resolve {resolve}");
        let (summary, seen) = sim.counted(
            &args,
            &[("SIM_CLIENT_GATE", "profiler"), ("COLONEL_SIM_CUPTI", version)],
        );
        assert_eq!(seen["windows"], 3, "{resolve}");
        assert_eq!(seen["kernels"], summary["kernels_in_windows"], "{resolve}");
    }
}

#[test]
fn all_kinds_of_record_can_be_read_and_what_exists_already_has_none() {
    let sim = Sim::new();
    let args = "--steps 5 --kernels 10 --peer --windows 2 --outside 0";
    let kinds = ("SIM_CLIENT_KINDS", "4,5,8,9,10,1,2,22,17,37,38");
    let (_, seen) = sim.counted(args, &[kinds]);
    // Two devices, each with a context and its null stream, and the stream of the workload.
    let resources = ["devices", "contexts", "streams"].map(|name| seen[name].as_u64().unwrap());
    assert_eq!(resources, [2, 2, 3]);

    let (_, late) = sim.counted(args, &[kinds, ("SIM_CLIENT_GATE", "profiler")]);
    let resources = ["devices", "contexts", "streams"].map(|name| late[name].as_u64().unwrap());
    assert_eq!(resources, [0, 0, 0]);
    // The workload waits once more at its end, outside of the windows.
    for (seen, waits) in [(seen, 11), (late, 10)] {
        assert_eq!(
            (&seen["peer_memcpys"], &seen["memcpys"], &seen["memsets"]),
            (&10.into(), &10.into(), &10.into())
        );
        assert_eq!(
            (&seen["synchronizations"], &seen["unreadable_bytes"]),
            (&waits.into(), &0.into())
        );
        // Launches, copies, fill and synchronise: a runtime and a driver call each.
        assert!(seen["api_calls"].as_u64().unwrap() >= 2 * 10 * 14, "{seen}");
    }
}

#[test]
fn the_first_disable_of_13_0_misses_a_graph_made_while_the_kind_was_on() {
    let sim = Sim::new();
    let settings = |version| {
        [
            ("COLONEL_SIM_CUPTI", version),
            ("SIM_CLIENT_ALSO_AT_START", "1"),
            ("SIM_CLIENT_GATE", "profiler"),
        ]
    };
    let args = "--steps 5 --kernels 10 --graph --windows 2 --outside 3";
    // On from cuInit: before, in and after the first window, which does not stop them; the second does.
    let (_, seen) = sim.counted(args, &settings("13.0"));
    assert_eq!(seen["kernels"], 10 * (3 + 5 + 3 + 5));
    let (_, seen) = sim.counted(args, &settings("13.1"));
    assert_eq!(seen["kernels"], 10 * (3 + 5 + 5));
}

#[test]
fn faults_do_what_they_say() {
    let sim = Sim::new();
    let fault = |fault: &str| {
        sim.counted("--steps 10 --kernels 100 --graph", &[("COLONEL_SIM_FAULT", fault)])
            .1
    };
    let seen = fault("drop=10");
    let records =
        seen["kernels"].as_u64().unwrap() + seen["memcpys"].as_u64().unwrap() + seen["memsets"].as_u64().unwrap();
    assert_eq!((records, seen["dropped"].as_u64().unwrap()), (918, 102));
    let seen = fault("zero-timestamps=100,reversed=90");
    assert_eq!((&seen["zero_timestamps"], &seen["reversed"]), (&10.into(), &11.into()));
    let seen = fault("bad-name=4");
    assert_eq!(seen["names_not_utf8"], 250);
    let (whole, mixed) = (fault("")["names"].clone(), fault("mangled")["names"].clone());
    let cut = mixed
        .as_array()
        .unwrap()
        .iter()
        .filter(|name| !whole.as_array().unwrap().contains(name))
        .count();
    assert_eq!(cut, 3, "some of the mangled names: {mixed}");
    assert_eq!(fault("old")["version"], 18);
    assert_eq!(fault("major=14")["version"], 140_000);
    for (name, code) in [("subscribe", 39), ("enable", 15), ("enable", 35), ("register", 7)] {
        let seen = fault(&format!("{name}={code}"));
        assert!(
            results(&seen, name).iter().all(|result| **result == code),
            "{name}={code}: {seen}"
        );
    }
}

#[test]
fn late_records_are_not_there_at_a_flush_and_are_cut_by_a_forced_one() {
    let sim = Sim::new();
    let run = |flag| {
        let settings = [("COLONEL_SIM_FAULT", "late=60000"), ("SIM_CLIENT_FINAL_FLUSH", flag)];
        sim.counted("--steps 2 --kernels 10", &settings).1
    };
    assert_eq!(run("0")["kernels"], 0);
    let forced = run("1");
    assert_eq!((&forced["kernels"], &forced["unfinished"]), (&20.into(), &20.into()));
}

#[test]
fn another_client_takes_over_after_so_many_kernels() {
    let sim = Sim::new();
    let settings = [("COLONEL_SIM_FAULT", "takeover=500"), ("SIM_CLIENT_BUFFER", "2048")];
    let (summary, seen) = sim.counted("--steps 20 --kernels 100 --step-us 5000", &settings);
    assert_eq!(summary["kernels"], 2_000);
    let kernels = seen["kernels"].as_u64().unwrap();
    assert!(
        (8..=500).contains(&kernels),
        "what was handed back before the takeover: {kernels}"
    );
}

#[test]
fn a_refused_buffer_loses_records_and_before_27_the_process() {
    let sim = Sim::new();
    let (_, seen) = sim.counted("--steps 1 --kernels 10", &[("SIM_CLIENT_REFUSE", "1")]);
    assert_eq!((&seen["kernels"], &seen["dropped"]), (&0.into(), &12.into()));
    let settings = [("SIM_CLIENT_REFUSE", "1"), ("COLONEL_SIM_CUPTI", "12.8")];
    let output = sim.with_client("--steps 1 --kernels 10", &settings).output().unwrap();
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("refused a buffer"),
        "{output:?}"
    );
}

#[test]
fn each_forked_child_is_injected_and_the_parent_is_not() {
    let sim = Sim::new();
    let calls = sim.path("calls");
    let output = sim
        .with_client(
            "--steps 2 --kernels 10 --fork",
            &[("COLONEL_SIM_CALLS", calls.to_str().unwrap())],
        )
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(sim.seen()["kernels"], 20);
    let pid = summary(&output)["pids"][0].to_string();
    let calls = std::fs::read_to_string(calls).unwrap();
    assert!(
        calls.lines().count() > 5 && calls.lines().all(|line| line.starts_with(&pid)),
        "{calls}"
    );
    assert!(calls.contains("cuptiActivityRegisterCallbacks 0"), "{calls}");
}

/// Finalizing is what a server must not do: from CUDA 13 on it ends every context that has a graph.
#[test]
fn finalize_kills_the_context_of_13_and_leaves_that_of_12() {
    let sim = Sim::new();
    let settings = |version| {
        [
            ("COLONEL_SIM_CUPTI", version),
            ("SIM_CLIENT_GATE", "profiler"),
            ("SIM_CLIENT_FINALIZE", "1"),
        ]
    };
    let args = "--steps 5 --kernels 10 --windows 1 --graph";
    let (summary, seen) = sim.counted(args, &settings("12.9"));
    assert_eq!(seen["kernels"], summary["kernels_in_windows"]);

    let output = sim.with_client(args, &settings("13.0")).output().unwrap();
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("failed with 719"),
        "{output:?}"
    );
    let (summary, seen) = sim.counted(&args.replace(" --graph", ""), &settings("13.0"));
    assert_eq!(
        seen["kernels"], summary["kernels_in_windows"],
        "without a graph it lives on"
    );
}

#[test]
fn a_flush_may_take_long_or_for_ever() {
    let sim = Sim::new();
    let begun = Instant::now();
    let (_, seen) = sim.counted("--steps 1 --kernels 10", &[("COLONEL_SIM_FAULT", "slow-flush=300")]);
    assert_eq!(seen["kernels"], 10);
    assert!(begun.elapsed() >= Duration::from_millis(300));

    let settings = [("COLONEL_SIM_FAULT", "hang-flush")];
    let mut child = sim
        .with_client("--steps 1 --kernels 10", &settings)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains("\"kernels\":10"), "the workload itself is done: {line}");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(child.try_wait().unwrap(), None, "its exit handler hangs");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Handlers run last registered first, and libcupti's is registered when it is loaded.
#[test]
fn a_client_that_registered_its_exit_handler_before_libcupti_was_loaded_dies_in_it() {
    let sim = Sim::new();
    for (first, function) in [
        ("flush", "cuptiActivityFlushAll"),
        ("disable", "cuptiActivityDisable"),
        ("dropped", "cuptiActivityGetNumDroppedRecords"),
    ] {
        let run = |handler| {
            let settings = [("SIM_CLIENT_HANDLER", handler), ("SIM_CLIENT_FIRST_AT_EXIT", first)];
            sim.with_client("--steps 1 --kernels 10", &settings).output().unwrap()
        };
        let output = run("early");
        assert_eq!(summary(&output)["kernels"], 10, "the workload itself is done");
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{output:?}");
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            format!("gpu-sim: {function} after libcupti was torn down\n")
        );
        assert!(!sim.path("seen.json").exists(), "{first}");

        let output = run("late");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(sim.seen()["kernels"], 10, "{first}");
        std::fs::remove_file(sim.path("seen.json")).unwrap();
    }
}

/// The host had waited for the work of the window; what matters is what was handed back before it launched again.
#[test]
fn a_graph_launched_after_the_stop_overwrites_ends_that_no_flush_has_picked_up() {
    let sim = Sim::new();
    let overlong = |extra: &[(&str, &str)]| {
        let mut settings = vec![("SIM_CLIENT_GATE", "profiler"), ("SIM_CLIENT_BUFFER", "1048576")];
        settings.extend(extra);
        let args = "--steps 5 --kernels 40 --graph --windows 1 --outside 2 --step-us 20000";
        let (summary, seen) = sim.counted(args, &settings);
        assert_eq!(seen["kernels"], summary["kernels_in_windows"], "{extra:?}");
        seen["overlong_nodes"].clone()
    };
    let unflushed = ("SIM_CLIENT_FLUSH_AT_STOP", "never");
    for version in ["12.9", "13.0", "13.5"] {
        let nodes = overlong(&[unflushed, ("COLONEL_SIM_CUPTI", version)]);
        assert_eq!(
            nodes,
            serde_json::json!([0, 1, 2, 3, 4, 5]),
            "15 % of the last replay, {version}"
        );
    }
    let none = serde_json::json!([]);
    assert_eq!(overlong(&[("SIM_CLIENT_FLUSH_AT_STOP", "before")]), none);
    assert_eq!(overlong(&[]), none, "flushed between the disable and the launch");
    assert_eq!(
        overlong(&[unflushed, ("COLONEL_SIM_FAULT", "overwritten-ends=off")]),
        none
    );
    // The buffers with the first nodes are full and came back on their own.
    assert_eq!(overlong(&[unflushed, ("SIM_CLIENT_BUFFER", "2048")]), none);
}
