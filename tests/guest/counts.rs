//! Counts against the workload's own: processes, threads, windows, kinds of records.

use std::collections::BTreeMap;

use crate::run::{Ended, decode};
use crate::session::tally;

/// Three windows of so many kernels each, and nothing lost.
fn assert_three_windows(ended: &Ended, steps: u64, kernels: u64) {
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(ended.count().kernels_in_windows, 3 * steps * kernels);
    let each = BTreeMap::from([1, 2, 3].map(|window| (window, steps * kernels)));
    let kernels = session.table("kernels");
    assert_eq!(kernels.tally("window"), each);
    let times = kernels.all("start_ns").into_iter().zip(kernels.all("end_ns"));
    let longest = times.map(|(start, end)| end - start).max().unwrap();
    assert!(
        longest < 20_000,
        "no kernel here takes more than 6 us, but one took {longest} ns"
    );
    let copies = BTreeMap::from([1, 2, 3].map(|window| (window, steps)));
    assert_eq!(session.table("memcpys").tally("window"), copies);
    assert_eq!(session.table("memsets").tally("window"), copies);
    assert_eq!(session.table("windows").all("window"), [1, 2, 3]);
}

#[test]
fn a_forked_child_is_captured_and_its_parent_is_no_process() {
    let ended = decode("--steps 20 --kernels 48 --graph --fork").run().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    let count = ended.count();
    assert_eq!(session.count("kernels"), count.kernels);
    assert_eq!(session.process().pid, count.pids[0]);
}

#[test]
fn forked_children_have_rows_of_their_own() {
    let ended = decode("--steps 20 --kernels 48 --fork=3 --windows 2")
        .options("--gate profiler")
        .run()
        .assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    let count = ended.count();
    assert_eq!((count.processes, session.processes().len()), (3, 3));
    let kernels = session.table("kernels");
    let each = count.kernels_in_windows / 3;
    let expected = count.pids.iter().map(|pid| (i128::from(*pid), each)).collect();
    assert_eq!(kernels.tally("pid"), expected);
    assert_eq!(
        kernels.tally("window"),
        BTreeMap::from([(1, each / 2 * 3), (2, each / 2 * 3)])
    );
}

#[test]
fn eight_threads_are_exact() {
    let ended = decode("--steps 20 --kernels 48 --threads 8").run().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    let kernels = session.table("kernels");
    assert_eq!(kernels.len(), ended.count().kernels);
    let streams = kernels.tally("stream_id");
    assert_eq!(streams.len(), 8);
    assert!(streams.values().all(|kernels| *kernels == 20 * 48));
    let announced = session.table("streams").tally("stream_id");
    assert!(streams.keys().all(|stream| announced.contains_key(stream)));
}

#[test]
fn sixty_four_threads_with_windows_are_exact() {
    let ended = decode("--steps 4 --kernels 12 --threads 64 --windows 3 --graph")
        .options("--gate profiler")
        .run()
        .assert_code(0);
    assert_three_windows(&ended, 4 * 64, 12);
}

#[test]
fn windows_seen_by_preload_are_exact() {
    let ended = decode("--steps 10 --kernels 48 --windows 3")
        .options("--gate profiler")
        .run()
        .assert_code(0);
    assert_three_windows(&ended, 10, 48);
    assert_eq!(ended.session().process().gate_by.as_deref(), Some("preload"));
}

#[test]
fn windows_seen_by_callback_are_exact() {
    let ended = decode("--steps 10 --kernels 48 --windows 3 --graph --resolve handle")
        .options("--gate profiler --gate-by callback")
        .run()
        .assert_code(0);
    assert_three_windows(&ended, 10, 48);
    assert_eq!(ended.session().process().gate_by.as_deref(), Some("callback"));
}

#[test]
fn with_a_static_runtime_auto_falls_back_to_the_callback_and_says_so() {
    let ended = decode("--steps 10 --kernels 48 --windows 3 --resolve static")
        .options("--gate profiler --gate-by auto")
        .run()
        .assert_code(0);
    assert_three_windows(&ended, 10, 48);
    assert_eq!(ended.session().process().gate_by.as_deref(), Some("callback"));
}

#[test]
fn work_in_flight_at_the_stop_counts_in_its_window() {
    let ended = decode("--steps 10 --kernels 48 --windows 3 --graph --in-flight 5 --outside 1")
        .options("--gate profiler")
        .run()
        .assert_code(0);
    assert_three_windows(&ended, 10, 48);
}

#[test]
fn work_in_flight_at_the_stop_counts_in_its_window_by_callback_too() {
    let ended = decode("--steps 10 --kernels 48 --windows 3 --in-flight 5 --outside 1 --resolve static")
        .options("--gate profiler")
        .run()
        .assert_code(0);
    assert_three_windows(&ended, 10, 48);
}

#[test]
fn work_in_flight_at_the_stop_counts_at_cupti_12_too() {
    let ended = decode("--steps 10 --kernels 48 --windows 3 --in-flight 5 --outside 1")
        .options("--gate profiler")
        .cupti("12.4")
        .run()
        .assert_code(0);
    assert_three_windows(&ended, 10, 48);
}

#[test]
fn threads_with_windows_and_work_in_flight_are_exact() {
    let ended = decode("--steps 5 --kernels 24 --threads 8 --windows 3 --in-flight 2 --graph")
        .options("--gate profiler")
        .run()
        .assert_code(0);
    assert_three_windows(&ended, 5 * 8, 24);
}

#[test]
fn api_calls_come_only_when_asked_for_and_join_the_kernels() {
    let line = "--steps 10 --kernels 24";
    let without = decode(line).run().assert_code(0);
    assert_eq!(without.session().count("api_calls"), 0);

    let ended = decode(line).options("--trace api").run().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    let calls = session.table("api_calls");
    let runtime: Vec<String> = calls
        .texts("name")
        .into_iter()
        .zip(calls.texts("api"))
        .filter(|(_, api)| api == "runtime")
        .map(|(name, _)| name)
        .collect();
    let runtime = tally(runtime);
    let launches: u64 = runtime
        .iter()
        .filter(|(name, _)| name.starts_with("cudaLaunchKernel"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(launches, ended.count().kernels, "{runtime:?}");
    assert_eq!(runtime.get("cudaMemcpyAsync"), Some(&10), "{runtime:?}");
    assert!(calls.all("return_value").iter().all(|status| *status == 0));
    // The main thread, as the kernel numbers it.
    assert_eq!(calls.all("thread_id"), calls.all("pid"));
    let ids = tally(calls.all("correlation_id"));
    let kernels = session.table("kernels").all("correlation_id");
    assert!(
        kernels.iter().all(|id| ids.contains_key(id)),
        "every kernel has its call"
    );
}

#[test]
fn peer_copies_name_both_gpus() {
    let ended = decode("--steps 7 --kernels 4 --peer").run().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    let copies = session.table("memcpys");
    let pairs = copies
        .numbers("src_device_id")
        .into_iter()
        .zip(copies.numbers("dst_device_id"));
    assert_eq!(
        tally(pairs),
        BTreeMap::from([((None, None), 7), ((Some(0), Some(1)), 7)])
    );
    assert_eq!(
        tally(copies.texts("copy_kind")),
        BTreeMap::from([("HtoD".into(), 7), ("PtoP".into(), 7)])
    );
    assert_eq!(session.count("devices"), 2);
}

#[test]
fn tables_left_as_the_guest_wrote_them_hold_the_same_rows() {
    let ended = decode("--steps 10 --kernels 48 --threads 2")
        .options("--no-analyze")
        .run()
        .assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(session.count("kernels"), ended.count().kernels);
    let said = &session.process().rows;
    for (table, rows) in said {
        assert_eq!(session.count(table), *rows, "{table}");
    }
    assert_eq!(said["kernels"], ended.count().kernels);
}
