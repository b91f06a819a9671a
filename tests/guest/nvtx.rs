//! NVTX: a program that plays its protocol, told word by word what to do. What is recorded follows from the words.

use std::collections::BTreeMap;
use std::path::Path;

use crate::hosts::{compile, host};
use crate::run::{Ended, Setup};
use crate::session::{Rows, tally};

fn setup(options: &str, words: &str) -> Setup {
    let mut setup = host("nvtx.c", &format!("--trace nvtx {options}"));
    words.split_whitespace().for_each(|word| setup.word(word));
    setup
}

fn run(options: &str, words: &str) -> Ended {
    setup(options, words).run().assert_code(0)
}

/// Runs it to its end, at which it waits until as many ranges as expected are on disk or lost: on a busy machine that
/// takes longer than an exit waits.
fn run_until(words: &str, ranges: u64) -> Ended {
    let mut running = setup("--gate profiler", &format!("{words} H")).start();
    running.process("the ranges are on disk", |process| {
        let lost = process.losses.iter().filter(|loss| loss.kind == "nvtx_ranges");
        let rows = process.rows.get("nvtx_ranges").copied().unwrap_or_default();
        rows + lost.filter_map(|loss| loss.count).sum::<u64>() >= ranges
    });
    running.go_on();
    running.end().assert_code(0)
}

/// Lines that the program prints, but for the first.
fn returned(ended: &Ended) -> Vec<String> {
    let stdout = ended.stdout();
    let mut lines = stdout.lines();
    assert_eq!(lines.next(), Some("wanted 1"));
    lines.map(str::to_owned).collect()
}

fn ranges(ended: &Ended) -> Rows {
    ended.session().table("nvtx_ranges")
}

/// Path, kind, depth and whether its end is known, of each range, in order of start.
fn told(ended: &Ended) -> Vec<(String, String, i128, bool)> {
    let rows = ranges(ended);
    let ends = rows.numbers("end_ns").into_iter().map(|end| end.is_some());
    let whats = rows.texts("path").into_iter().zip(rows.texts("kind"));
    whats
        .zip(rows.all("depth"))
        .zip(ends)
        .map(|(((path, kind), depth), end)| (path, kind, depth, end))
        .collect()
}

fn paths(ended: &Ended) -> Vec<String> {
    told(ended).into_iter().map(|(path, ..)| path).collect()
}

/// Kernels by the path that they got.
#[track_caller]
fn assert_kernels(ended: &Ended, expected: &[(&str, u64)]) {
    let session = ended.session();
    session.assert_nothing_lost();
    let kernels = session.table("kernels");
    let found = tally(
        kernels
            .maybe_texts("nvtx_path")
            .into_iter()
            .map(Option::unwrap_or_default),
    );
    let expected: BTreeMap<String, u64> = expected
        .iter()
        .map(|(path, count)| ((*path).to_owned(), *count))
        .collect();
    assert_eq!(found, expected);
}

/// Name of each window, in order of opening, and the kernels that it has.
#[track_caller]
fn assert_windows(ended: &Ended, expected: &[(&str, u64)]) {
    let session = ended.session();
    let kernels = session.table("kernels").tally("window");
    let windows: Vec<(String, u64)> = session
        .process()
        .windows
        .into_iter()
        .map(|window| {
            assert_eq!(window.trigger, "nvtx");
            assert!(window.end_ns.is_some() && window.sealed_ns.is_some(), "{window:?}");
            let count = kernels.get(&window.number.into()).copied();
            (window.name.unwrap(), count.unwrap_or(0))
        })
        .collect();
    let expected: Vec<(String, u64)> = expected
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect();
    assert_eq!(windows, expected);
}

#[test]
fn kernels_get_the_ranges_that_they_were_launched_in() {
    let ended = run("", "I l1 >astep l2 >alayer0 l3 < l4 >wlayer1 l5 < < l6 s");
    assert_eq!(
        returned(&ended),
        [">astep 0", ">alayer0 1", "< 1", ">wlayer1 1", "< 1", "< 0"]
    );
    let expected = [("step", 0), ("step/layer0", 1), ("step/layer1", 1)];
    let expected: Vec<_> = expected
        .iter()
        .map(|(path, depth)| ((*path).to_owned(), "push_pop".to_owned(), *depth, true))
        .collect();
    assert_eq!(told(&ended), expected);
    assert_eq!(ranges(&ended).texts("name"), ["step", "layer0", "layer1"]);
    assert_kernels(&ended, &[("", 7), ("step", 6), ("step/layer0", 3), ("step/layer1", 5)]);
    let rows = ranges(&ended);
    let spans: Vec<_> = rows.all("start_ns").into_iter().zip(rows.all("end_ns")).collect();
    assert!(
        spans[0].0 < spans[1].0 && spans[1].1 < spans[2].0 && spans[2].1 < spans[0].1,
        "{spans:?}"
    );
    assert_eq!(rows.all("window"), [1, 1, 1]);
}

#[test]
fn domains_categories_payloads_and_registered_strings() {
    let ended = run(
        "",
        "I Cattention >d5a >e2b d< !d1m +e3c -0 +e6d -1 >e4e < >d9f d< < l1 s",
    );
    assert_eq!(returned(&ended)[..3], [">d5a 0", ">e2b 0", "d< 0"]);
    let rows = ranges(&ended);
    // The one of the other domain was popped from under `b`.
    assert_eq!(paths(&ended), ["a", "b", "b/m", "b/c", "b/d", "b/e", "b/f"]);
    let texts = |name| {
        let texts = rows.maybe_texts(name).into_iter();
        texts.map(Option::unwrap_or_default).collect::<Vec<_>>()
    };
    assert_eq!(texts("domain"), ["dom", "", "dom", "", "", "", "dom"]);
    assert_eq!(
        texts("payload"),
        ["-7", "-7", "18446744073709551609", "0.5", "-2.25", "7", ""]
    );
    assert_eq!(texts("category"), ["attention"; 7]);
    assert_eq!(texts("kind")[2..5], ["mark", "start_end", "start_end"]);
    ended.session().assert_nothing_lost();
}

#[test]
fn without_a_category_there_is_none() {
    let ended = run("", "I >aa < >e5b < l1 s");
    assert_eq!(ranges(&ended).maybe_texts("category"), [None, Some("3".to_owned())]);
}

#[test]
fn ranges_may_end_on_another_thread() {
    let ended = run("", "I >aouter +ashared l1 < 1-0 l2 +dother 1l3 1d-1 ~ -0 l4 s");
    assert_eq!(returned(&ended), [">aouter 0", "+ashared 1", "< 0", "+dother 1"]);
    assert_eq!(paths(&ended), ["outer", "outer/shared", "other"]);
    assert_kernels(&ended, &[("outer/shared", 1), ("", 6), ("other", 3)]);
}

#[test]
fn a_pop_is_of_its_own_thread() {
    let ended = run("", "I >aone 1< 1>atwo < l1 < 1< s");
    assert_eq!(returned(&ended), [">aone 0", "< -1", ">atwo 0", "< 0", "< -1", "< 0"]);
    assert_eq!(paths(&ended), ["one", "two"]);
    ended.session().assert_nothing_lost();
}

#[test]
fn kernels_get_no_path_where_several_threads_have_ranges_open() {
    let ended = run("", "I 1>aidle l1 >abusy l2 1< l3 < l4 s");
    assert_eq!(paths(&ended), ["idle", "busy"]);
    assert_eq!(ranges(&ended).tally("thread_id").len(), 2);
    assert_kernels(&ended, &[("idle", 1), ("", 6), ("busy", 3)]);
}

/// The calls say who launched: all of it the first thread.
#[test]
fn kernels_have_the_ranges_of_their_own_thread_where_calls_are_recorded() {
    let ended = run("--trace api", "I 1>aidle l1 >abusy l2 1< l3 < l4 s");
    assert_kernels(&ended, &[("", 5), ("busy", 5)]);
}

#[test]
fn only_what_is_open_while_a_window_is_open_is_told() {
    let ended = run(
        "--gate profiler",
        "I >agone < >aouter >ainner l1 P l2 < l3 >anew l4 p l5 < >alate l6 < P l7 p < l8 P l9 s p",
    );
    let expected = [
        ("outer/inner", 1, true),
        ("outer", 0, false),
        ("outer/new", 1, false),
        ("outer", 0, false),
    ];
    let mut found: Vec<_> = told(&ended)
        .into_iter()
        .map(|(path, _, depth, end)| (path, depth, end))
        .collect();
    let mut expected = expected
        .map(|(path, depth, end)| (path.to_owned(), depth, end))
        .to_vec();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    // The outer one began before the first window, and has a row for each window that it was open in.
    let rows = ranges(&ended);
    let by_path: Vec<_> = rows.texts("path").into_iter().zip(rows.all("window")).collect();
    assert_eq!(
        by_path
            .iter()
            .filter(|(path, _)| path == "outer")
            .map(|(_, window)| *window)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    let start = ended.session().process().windows[0].start_ns;
    let outer = rows.all("start_ns")[0];
    assert!(outer < start.into(), "its real start");
    assert_kernels(
        &ended,
        &[("outer/inner", 2), ("outer", 3 + 7), ("outer/new", 4), ("", 9)],
    );
}

#[test]
fn unbalanced_calls_do_no_harm() {
    let ended = run("", "I < d< >aa d< < < ~ -7 >0 < l1 s");
    assert_eq!(
        returned(&ended),
        ["< -1", "d< -1", ">aa 0", "d< -1", "< 0", "< -1", ">0 0", "< 0"]
    );
    assert_eq!(paths(&ended), ["a", ""]);
    assert_kernels(&ended, &[("", 1)]);
}

#[test]
fn ten_thousand_open_ranges() {
    let ended = run_until("I P >>10000 l1 <<10000 l2 s p", 10_000);
    let rows = ranges(&ended);
    assert_eq!((rows.len(), rows.all("depth").iter().max()), (10_000, Some(&9_999)));
    assert!(rows.texts("path").iter().all(|path| path.len() <= 4_096 + "…".len()));
    let names = tally(rows.texts("name"));
    assert_eq!((names.len(), names["n9999"]), (10_000, 1));
    let session = ended.session();
    session.assert_nothing_lost();
    let kernels = session.table("kernels").maybe_texts("nvtx_path");
    let with = kernels.iter().flatten().collect::<Vec<_>>();
    assert!(with.len() == 1 && with[0].ends_with("/n9998/n9999"), "{with:?}");
    // Those still open at the end of the window are told as well.
    let ended = run_until("I P >>10000 l1 s p", 10_000);
    assert_eq!(ranges(&ended).numbers("end_ns"), vec![None; 10_000]);
    assert_eq!(ended.session().losses(), BTreeMap::new());
}

#[test]
fn more_ranges_at_once_than_the_queue_holds_are_counted() {
    let ended = run_until("I P >>100007 <<100007 l1 s p", 100_007);
    let session = ended.session();
    let lost = session.lost("nvtx_ranges", "queue_full");
    assert_eq!(session.lost("nvtx_ranges", "too_many_open"), 7);
    assert_eq!(session.count("nvtx_ranges") + lost, 100_000);
    assert_eq!(session.count("kernels"), 1);
}

#[test]
fn names_that_are_too_long_or_no_text() {
    let ended = run("", "I >B < >X < l1 s");
    let names = ranges(&ended).texts("name");
    assert_eq!((names[0].len(), names[1].as_str()), (4_096, "a\u{fffd}\u{fffd} z"));
    let message = ended.session().problem("nvtx_names_cut");
    assert!(
        message.starts_with("1 names of NVTX ranges, domains or strings were cut"),
        "{message}"
    );
}

#[test]
fn several_libraries_share_the_threads_ranges() {
    let ended = run("", "I >aouter L >ainner l1 < < l2 s");
    assert_eq!(returned(&ended), [">aouter 0", ">ainner 1", "< 1", "< 0"]);
    assert_kernels(&ended, &[("outer/inner", 1), ("", 2)]);
}

#[test]
fn a_thread_may_end_with_ranges_open() {
    let ended = run("", "I 1>alost 1l1 Q >amain l2 < s");
    let rows = ranges(&ended);
    assert_eq!(
        (paths(&ended), rows.numbers("end_ns")[0]),
        (vec!["lost".to_owned(), "main".to_owned()], None)
    );
    assert_eq!(rows.numbers("end_correlation_id")[0], None);
    assert_kernels(&ended, &[("", 1), ("main", 2)]);
}

#[test]
fn a_forks_child_begins_without_ranges() {
    let ended = run("", ">aouter F >ainner < < I l3 s");
    let stdout = ended.stdout();
    let (parents, childs) = (stdout.matches("< 0").count(), stdout.matches("< -1").count());
    assert_eq!(
        (stdout.matches(">ainner 1").count(), stdout.matches(">ainner 0").count()),
        (1, 1),
        "{stdout}"
    );
    assert_eq!((parents, childs), (2, 1), "{stdout}");
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!((session.count("kernels"), session.processes().len()), (6, 2));
}

#[test]
fn marks_can_be_left_out() {
    let ended = setup("", "I >aa l1 < s")
        .env("COLONEL_NVTX_MARKS", "0")
        .run()
        .assert_code(0);
    let rows = ranges(&ended);
    assert_eq!(
        (rows.numbers("start_correlation_id"), rows.numbers("end_correlation_id")),
        (vec![None], vec![None])
    );
    assert_kernels(&ended, &[("", 1)]);
}

#[test]
fn our_marks_are_no_calls_of_the_program() {
    let ended = run("--trace api", "I >aa l1 < >ab l2 < s");
    let calls = ended.session().table("api_calls").texts("name");
    assert!(
        !calls.iter().any(|name| name.starts_with("cuDriverGetVersion")),
        "{calls:?}"
    );
    assert!(calls.iter().any(|name| name.contains("aunchKernel")), "{calls:?}");
    assert_kernels(&ended, &[("a", 1), ("b", 2)]);
}

#[test]
fn a_program_without_cuda_runs_no_guest() {
    let ended = run("--gate nvtx:*", ">aa < +ab -0 !ac");
    assert_eq!(returned(&ended), [">aa 0", "< 0", "+ab 1", "!ac 0"]);
    assert_eq!(ended.session().processes().len(), 0);
}

#[test]
fn the_outermost_match_of_a_thread_is_the_window() {
    let ended = run(
        "--gate nvtx:step*",
        "I >aother l1 >astep0 l2 >wstep1 l3 < l4 < l5 +astep2 l6 >astep3 l7 < -0 < l8 s",
    );
    assert_windows(&ended, &[("step0", 2 + 3 + 4), ("step2", 6 + 7)]);
    assert_kernels(
        &ended,
        &[
            ("other/step0", 6),
            ("other/step0/step1", 3),
            ("other/step2", 6),
            ("other/step3", 7),
        ],
    );
    assert_eq!(ended.session().process().gate, "nvtx:step*");
}

#[test]
fn windows_of_several_threads_overlap() {
    let ended = run(
        "--gate nvtx:s?",
        "I >as1 l1 1>as2 l2 < l4 >as3 l8 1< l16 < l32 +as4 l64 1-0 l128 s",
    );
    assert_windows(&ended, &[("s1", 1), ("s2", 2 + 4), ("s3", 8 + 16), ("s4", 64)]);
}

#[test]
fn a_pattern_may_name_the_domain() {
    let words = "I >astep l1 < >dstep l2 d< s";
    for (gate, expected) in [
        ("nvtx:step@dom", &[("step", 2)][..]),
        ("nvtx:step@d*", &[("step", 2)]),
        ("nvtx:step@", &[("step", 1)]),
        ("nvtx:step", &[("step", 1), ("step", 2)]),
    ] {
        assert_windows(&run(&format!("--gate {gate}"), words), expected);
    }
}

#[test]
fn a_range_open_before_cuda_is_initialised_gets_its_window_then() {
    let ended = run("--gate nvtx:step", ">astep +astep I l1 < l2 -0 l3 >astep l4 < s");
    assert_windows(&ended, &[("step", 1), ("step", 4)]);
    let ended = run("--gate nvtx:step", "+dstep >aother I l1 -0 l2 < s");
    assert_windows(&ended, &[("step", 1)]);
}

#[test]
fn after_and_for_narrow_the_windows_of_ranges() {
    let ended = run(
        "--gate nvtx:step --after 30ms",
        "I >astep l1 < t60 l2 >astep l4 t90 l8 < l16 s",
    );
    assert_windows(&ended, &[("step", 8)]);
    let ended = run("--gate nvtx:step --for 30ms", "I >astep l1 t90 l2 < l4 >astep l8 < s");
    assert_windows(&ended, &[("step", 1), ("step", 8)]);
}

#[test]
fn a_thread_that_ends_closes_its_window() {
    let ended = run("--gate nvtx:step", "I 1>astep 1l1 Q t50 l2 >astep l4 < s");
    assert_windows(&ended, &[("step", 1), ("step", 4)]);
}

#[test]
fn a_pattern_that_names_nothing_is_refused() {
    for gate in ["nvtx:", "nvtx:@dom", "nvtx"] {
        let ended = Setup::new(["true"])
            .options(&format!("--gate {gate}"))
            .run()
            .assert_code(2);
        assert!(ended.stderr().contains("nvtx:NAME"), "{}", ended.stderr());
    }
}

#[test]
fn no_range_of_that_name_is_told() {
    let ended = run("--gate nvtx:step", "I >aother l1 < s");
    let stderr = ended.stderr();
    assert!(stderr.contains("no NVTX range named `step` was open"), "{stderr}");
}

fn tool(folder: &Path) -> std::path::PathBuf {
    compile(folder, "nvtx_tool.c", "tool.so", &["-shared", "-fPIC"])
}

const TOOLS_WORDS: &str = "I >aa l1 < +ab -0 >dc d< >we < s";

#[test]
fn another_tool_keeps_what_it_saw_alone() {
    let alone = {
        let setup = setup("", TOOLS_WORDS);
        let tool = tool(setup.path());
        setup.env("NVTX_INJECTION64_PATH", tool).run_alone().assert_code(0)
    };
    let seen = "tool: here\ntool: push a\ntool: pop\ntool: start b\ntool: end 71\ntool: domain dom\n\
                tool: push c in 0xd0\ntool: pop\n";
    assert_eq!(alone.stderr(), seen);
    let setup = setup("", TOOLS_WORDS);
    let tool = tool(setup.path());
    let ended = setup.env("NVTX_INJECTION64_PATH", tool).run().assert_code(0);
    assert!(ended.stderr().starts_with(seen), "{}", ended.stderr());
    assert_eq!(paths(&ended), ["a", "b", "c", "e"]);
    assert_eq!(ranges(&ended).maybe_texts("domain")[2].as_deref(), Some("dom"));
    assert_kernels(&ended, &[("a", 1)]);
}

#[test]
fn another_tool_sees_of_each_library_what_it_sees_alone() {
    for wants in ["", "1"] {
        let setup = || {
            let setup = setup("", "I >aa < L >ab l1 < +ac -0 s");
            let tool = tool(setup.path());
            let setup = setup.env("NVTX_INJECTION64_PATH", tool);
            if wants.is_empty() {
                setup
            } else {
                setup.env("TOOL_WANTS_ONE", wants)
            }
        };
        let alone = setup().run_alone().assert_code(0).stderr();
        let lines = if wants.is_empty() { 8 } else { 3 };
        assert_eq!(alone.lines().count(), lines, "{alone}");
        let ended = setup().run().assert_code(0);
        assert!(
            ended.stderr().starts_with(&format!("{alone}colonel: ")),
            "{}",
            ended.stderr()
        );
        assert_eq!(paths(&ended), ["a", "b", "c"]);
    }
}

#[test]
fn names_that_are_registered_again_and_again_take_no_room() {
    let ended = run("", "I R200000 >d5a l1 d< s");
    assert_eq!(ranges(&ended).texts("name"), ["a"]);
    assert_eq!(ranges(&ended).maybe_texts("category"), [Some("3".to_owned())]);
    assert_eq!(ended.session().process().problems, []);
}

#[test]
fn a_tool_that_can_not_be_had_is_told() {
    let ended = setup("", "I >aa l1 < s")
        .env("NVTX_INJECTION64_PATH", "/no/such/tool.so")
        .run()
        .assert_code(0);
    assert_eq!(paths(&ended), ["a"]);
    let message = ended.session().problem("nvtx_chain");
    assert!(
        message.contains("`/no/such/tool.so`, to which NVTX_INJECTION64_PATH was set"),
        "{message}"
    );

    let setup = setup("", "I >aa l1 < s").env("TOOL_FAILS", "1");
    let tool = tool(setup.path());
    let ended = setup.env("NVTX_INJECTION64_PATH", tool).run().assert_code(0);
    assert!(
        ended.stderr().starts_with("tool: here\ncolonel: "),
        "{}",
        ended.stderr()
    );
    assert_eq!(paths(&ended), ["a"]);
    ended.session().problem("nvtx_chain");
}

#[test]
fn a_range_that_ends_in_a_later_window_has_a_row_for_that_one() {
    // One of each kind; `late` began within window 1.
    let ended = run(
        "--gate profiler",
        "I P >alate +ashared l1 p l2 P l3 -0 < l4 p l5 >anew < s",
    );
    let rows = ranges(&ended);
    let ends = rows.numbers("end_ns").into_iter().map(|end| end.is_some());
    let mut found: Vec<_> = rows
        .texts("path")
        .into_iter()
        .zip(rows.all("window"))
        .zip(ends)
        .map(|((path, window), end)| (path, window, end))
        .collect();
    found.sort();
    let mut expected = [
        ("late", 1, false),
        ("late", 2, true),
        ("late/shared", 1, false),
        ("late/shared", 2, true),
    ]
    .map(|(path, window, end)| (path.to_owned(), window, end));
    expected.sort();
    assert_eq!(found, expected);
    ended.session().assert_nothing_lost();
}

#[test]
fn without_marks_ranges_still_belong_to_the_window_that_they_were_open_in() {
    let ended = setup(
        "--gate profiler",
        "I >aouter +ashared t5 P >ainner l1 p t30 l2 < < -0 P p s",
    )
    .env("COLONEL_NVTX_MARKS", "0")
    .run()
    .assert_code(0);
    let rows = ranges(&ended);
    let mut found: Vec<_> = rows.texts("path").into_iter().zip(rows.all("window")).collect();
    found.sort();
    let expected = ["outer", "outer/inner", "outer/shared"].map(|path| (path.to_owned(), 1));
    assert_eq!(found, expected);
}

#[test]
fn pushes_without_pops_are_told_up_to_a_limit() {
    let ended = run("--gate profiler", "I P >>20000 l1 p P l2 p s");
    let rows = ranges(&ended);
    let session = ended.session();
    assert_eq!(rows.tally("window"), BTreeMap::from([(1, 10_000), (2, 10_000)]));
    assert_eq!(rows.all("depth").iter().min(), Some(&10_000), "the innermost");
    assert_eq!(session.lost("nvtx_ranges", "too_many_open"), 20_000);
    let kernels = session.table("kernels").maybe_texts("nvtx_path");
    assert!(kernels.iter().flatten().all(|path| path.ends_with("/n19999")) && kernels.len() == 3);
}

#[test]
fn a_signal_handler_may_push_while_its_thread_tells_of_ranges() {
    let ended = run("--gate profiler", "I >>3000 k W300 P l1 p s");
    assert_eq!(ended.session().process().windows.len(), 301);
    assert_eq!(ended.session().count("kernels"), 1);
}

#[test]
fn a_process_that_leaves_within_a_push_does_not_wait_for_itself() {
    let ended = run("", "I >aa l1 s >S");
    assert!(ended.took < std::time::Duration::from_millis(2_500), "{:?}", ended.took);
    let session = ended.session();
    assert_eq!(
        (session.count("kernels"), session.process().ended_ns.is_some()),
        (1, true)
    );
    // What was open on that thread could not be told.
    assert_eq!(session.losses().len(), 1, "{:?}", session.losses());
}
