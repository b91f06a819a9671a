//! CUDA graphs: kernels of a replay lie in the ranges that were open when their nodes were captured. A program does what
//! it is told word by word (tests/guest/hosts/graphs.h).

use std::collections::BTreeMap;
use std::fs;

use crate::hosts::host;
use crate::run::{Ended, Setup};
use crate::session::{Rows, Session, tally};

fn setup(options: &str, words: &str) -> Setup {
    let mut setup = host("nvtx.c", &format!("--gate profiler {options}"));
    words.split_whitespace().for_each(|word| setup.word(word));
    setup
}

fn run(words: &str) -> Ended {
    setup("--trace nvtx", words).run().assert_code(0)
}

/// Path of each kernel, in the order in which they ran.
fn paths(session: &Session) -> Vec<String> {
    column(&session.table("kernels"), "nvtx_path")
}

fn column(kernels: &Rows, name: &str) -> Vec<String> {
    let paths = kernels.maybe_texts(name).into_iter().map(Option::unwrap_or_default);
    let mut rows: Vec<(i128, String)> = kernels.all("start_ns").into_iter().zip(paths).collect();
    rows.sort();
    rows.into_iter().map(|(_, path)| path).collect()
}

#[track_caller]
fn assert_paths(words: &str, expected: &[&str]) -> Ended {
    let ended = run(words);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(paths(&session), expected);
    assert!(session.problems().is_empty(), "{:?}", session.problems());
    ended
}

#[test]
fn each_node_has_the_ranges_that_it_was_captured_in() {
    let words = "I >astep gb gl1 >alayer0 gl2 gm gl1 < >alayer1 >aattn gl1 < gl1 < < gl1 ge0 gi00 P >adecode gs0 < p";
    let ended = assert_paths(
        words,
        &[
            "step",
            "step/layer0",
            "step/layer0",
            "step/layer0",
            "step/layer1/attn",
            "step/layer1",
            "",
        ],
    );
    let kernels = ended.session().table("kernels");
    assert_eq!(column(&kernels, "launch_nvtx_path"), ["decode"; 7]);
    let ranges = ended.session().table("graph_ranges");
    let begins = ranges.all("node_begin").into_iter().zip(ranges.all("node_end"));
    assert_eq!(begins.collect::<Vec<_>>(), [(0, 1), (1, 5), (5, 6), (6, 7), (7, 8)]);
    assert_eq!(ranges.tally("graph_id").len(), 1);
    assert_eq!(
        ranges.tally("graph_id"),
        kernels.tally("graph_id").into_keys().map(|id| (id, 5)).collect()
    );
}

#[test]
fn several_graphs_and_several_executables_of_one() {
    assert_paths(
        "I gb >aa gl1 < >ab gl1 < ge0 gb >ac gl2 < ge1 gi00 gw01 gp12 gy0 gy1 P gs2 gs1 gs0 p",
        &["c", "c", "a", "b", "a", "b"],
    );
}

#[test]
fn graphs_made_before_the_first_window_are_known_in_a_later_one() {
    let ended = assert_paths(
        "I gb >aa gl1 < ge0 gi00 gs0 P l1 s p gb >ab gl1 < ge1 gi11 gs1 P gs0 gs1 p",
        &["", "a", "b"],
    );
    // Each is told once, also where it lives through two windows.
    assert_eq!(ended.session().count("graph_ranges"), 2);
}

#[test]
fn graphs_made_in_a_window_are_told_in_it() {
    assert_paths(
        "I P gb >aa gl1 < ge0 gi00 gs0 gb >ab gl1 < ge1 gi11 gs1 gx0 gi00 gs0 p",
        &["a", "b", "a"],
    );
}

#[test]
fn an_update_holds_from_then_on() {
    let graphs = "I gb >aa gl2 < ge0 gb >ab gl1 < >ac gl1 < ge1 gb gl2 ge2";
    assert_paths(
        &format!("{graphs} gi00 P gs0 gu10 gs0 gu00 gs0 p gu10 P gs0 p"),
        &["a", "a", "b", "c", "a", "a", "b", "c"],
    );
    // From a graph without ranges, what was open at the launch says more than those of before; launches are not waited for.
    assert_paths(
        &format!("{graphs} gi00 P gr0 gu10 gr0 gu20 >ad gs0 < p"),
        &["a", "a", "b", "c", "d", "d"],
    );
    // With the same ranges as before, there is nothing to tell.
    let ended = run(&format!("{graphs} gi00 P gs0 gu00 gs0 gu00 gs0 p"));
    assert_eq!(ended.session().count("graph_ranges"), 1);
}

#[test]
fn child_graphs_lie_in_the_ranges_that_they_were_added_in() {
    let inner = "I gb >ain gl1 < gl1 ge0 gb gl1 >aend gl1 < ge1";
    // A parent without a capture: its children have their own.
    assert_paths(
        &format!("{inner} gn2 gc20 gc21 gi22 gy0 gy1 P gs2 p"),
        &["in", "", "", "end"],
    );
    // Captured into a graph that has a child, and a child of a child; copies know as much.
    let parent = format!("{inner} gc10 gn2 gc21 gt2 >aout gl1 < ge2");
    let expected = ["", "end", "in", "", "out"];
    assert_paths(&format!("{parent} gi22 P gs2 p"), &expected);
    assert_paths(&format!("{parent} gk32 gi32 gy2 gy1 gy0 P gs2 p"), &expected);
}

#[test]
fn a_capture_goes_on_in_a_graph_that_was_captured() {
    assert_paths("I >aa gb gl1 ge0 < gt0 gl1 >ab gl1 < ge0 gi00 P gs0 p", &["a", "", "b"]);
}

#[test]
fn a_capture_that_fails_leaves_nothing_and_harms_nothing() {
    let ended = assert_paths("I gb >aa gl1 < gf gb >ab gl1 < ge0 gi00 P gs0 p", &["b"]);
    assert!(ended.stdout().contains("gf 900 901 none\n"), "{}", ended.stdout());
}

#[test]
fn ranges_open_before_the_capture_and_unbalanced_pops_within() {
    assert_paths(
        "I < >aouter gb gl1 < < < gl1 >alate gl1 ge0 < gi00 P gs0 p",
        &["outer", "", "late"],
    );
    // Ranges of several domains.
    assert_paths("I >aa gb >db gl1 < gl1 d< gl1 ge0 gi00 P gs0 p", &["a/b", "b", ""]);
}

#[test]
fn a_capture_may_end_on_another_thread() {
    assert_paths(
        "I 1gb 1>aa 1gl1 1< ge0 1>ab 1< gi00 1gb 1gl1 1>ac 1gl1 1ge1 1< Q gi11 P gs0 gs1 p",
        &["a", "", "c"],
    );
}

#[test]
fn two_threads_capture_on_their_own_default_streams() {
    let words = "I gq 1gq gb >aa gl1 1gb 1>ab 1gl2 gl1 < 1< ge0 1ge1 Q gi00 gi11 P gs0 gs1 p";
    assert_paths(words, &["a", "a", "b", "b"]);
}

#[test]
fn a_stream_that_is_destroyed_while_it_captures_is_asked_about_no_more() {
    assert_paths("I gb >aa gl1 go < >ab gb gl1 < ge0 gi00 P gs0 p", &["b"]);
}

#[test]
fn executables_that_went_with_their_context_are_asked_about_no_more() {
    for going in ["gR", "gA"] {
        let words = format!("I gb >aa gl1 < ge0 gi00 >aout {going} < gb >ab gl1 < ge1 gi11 P gs1 p");
        let ended = assert_paths(&words, &["b"]);
        assert_eq!(ended.session().count("graph_ranges"), 1, "{going}");
    }
}

#[test]
fn a_context_without_graphs_or_that_others_hold_takes_nothing_with_it() {
    for staying in ["gX", "gL"] {
        let words = format!("I gb >aa gl1 < ge0 gi00 {staying} P gs0 p");
        assert_paths(&words, &["a"]);
    }
}

#[test]
fn executables_that_went_while_a_context_was_released_are_asked_about_no_more() {
    let words = "I gb >aa gl1 < ge0 gi00 gi01 P gs0 p gD1 gb >ab gl1 < ge2 gi22 P >alaunch gs0 < gs2 p";
    let setup = setup("--trace nvtx", words).env("COLONEL_SIM_HOLD_RELEASE", "held");
    let ended = setup.run().assert_code(0);
    let session = ended.session();
    // The other executable was told before, so that it is told to be unknown from then on.
    assert_eq!(paths(&session), ["a", "launch", "b"]);
    assert!(
        session
            .problem("graph_ranges_forgotten")
            .contains("while a primary context was released")
    );
}

#[test]
fn a_graph_captured_outside_of_ranges_has_those_of_its_launch() {
    let ended = assert_paths("I gb gl1 ge0 gi00 P >aa gs0 < p", &["a"]);
    assert_eq!(ended.session().count("graph_ranges"), 0);
}

#[test]
fn the_drivers_own_functions_are_seen_too() {
    assert_paths("I gb >aa gl1 < ge0 gd00 P gs0 p", &["a"]);
}

#[test]
fn without_nvtx_the_calls_only_pass_through() {
    let words = "I gb >aa gl1 < ge0 gi00 gn2 gc20 gi22 gu00 P gs0 gs2 p gx0 gy0";
    let ended = setup("", words).run().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(paths(&session), ["", ""]);
    assert_eq!(session.count("graph_ranges"), 0);
    assert_eq!(ended.stdout(), "wanted 0\n>aa -2\n< -2\n");
    let alone = setup("", words).run_alone().assert_code(0);
    assert_eq!(alone.stdout(), ended.stdout());
}

#[test]
fn no_call_of_cupti_before_the_first_window() {
    let setup = setup("--trace nvtx", "I gb >aa gl1 < ge0 gi00 gs0 gu00 gs0 gx0 gy0");
    let calls = setup.path().join("calls");
    let ended = setup.env("COLONEL_SIM_CALLS", &calls).run().assert_code(0);
    assert!(!calls.exists(), "{}", fs::read_to_string(&calls).unwrap());
    assert_eq!(ended.session().process().attached_ns, None);
}

#[test]
fn a_killed_program_keeps_the_ranges_of_its_graphs() {
    let ended = setup("--trace nvtx", "I gb >aa gl1 < >ab gl1 < ge0 gi00 P gs0 t1500 K").run();
    let session = ended.session();
    assert_eq!(paths(&session), ["a", "b"]);
    assert_eq!(session.count("graph_ranges"), 2);
}

#[test]
fn graphs_come_and_go_while_windows_open_and_close() {
    let ended = run("I gb >aa gl1 < ge0 gz0 gi00 P gs0 p");
    let session = ended.session();
    session.assert_nothing_lost();
    assert!(session.problems().is_empty(), "{:?}", session.problems());
    assert!(paths(&session).iter().all(|path| path == "a"));
    assert!(session.count("kernels") >= 1);
    // No executable twice, though each was known as several windows opened.
    assert!(
        session
            .table("graph_ranges")
            .tally("graph_id")
            .values()
            .all(|count| *count == 1)
    );
}

#[test]
fn five_hundred_ranges_in_a_capture() {
    let layers: String = (0..500).map(|layer| format!(">alayer{layer} gl1 < ")).collect();
    let ended = run(&format!("I gb {layers} ge0 gi00 P gs0 p"));
    let found: BTreeMap<String, u64> = tally(paths(&ended.session()));
    assert_eq!(found.len(), 500);
    assert!(found.values().all(|count| *count == 1));
    let in_order: Vec<String> = (0..500).map(|layer| format!("layer{layer}")).collect();
    assert_eq!(paths(&ended.session()), in_order);
}

/// Without waiting for a lock that its own thread holds, and without the ranges of graphs that may be others by now.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_signal_handler_that_comes_over_our_code_may_call_cuda() {
    for (does, expected) in [
        ("stream", &["kept", "launch", "fresh"][..]),
        ("context", &["kept", "launch", "fresh"]),
        ("update", &["kept", "launch", "fresh"]),
        ("reset", &["kept", "fresh"]),
    ] {
        let mut setup = host("interrupted.c", "--gate profiler --trace nvtx");
        setup.word(does);
        let ended = setup.run().assert_code(0);
        assert_eq!(ended.stdout(), "interrupted\n", "{does}: {}", ended.stderr());
        let session = ended.session();
        assert_eq!(paths(&session), expected, "{does}");
        // A reset that was seen leaves nothing to be told.
        if does != "reset" {
            let message = session.problem("graph_ranges_forgotten");
            assert!(message.contains("signal handler"), "{does}: {message}");
        }
    }
}
