//! Programs in C for what the workload can't do: linked against the runtime as torch is, loading it as Python does,
//! closing their streams, forking, becoming another program.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Ended, Setup, stand_ins, target};

/// Compiles a program of tests/guest/hosts into `folder`, linked against the stand-in runtime.
pub(crate) fn compile(folder: &Path, source: &str, name: &str, options: &[&str]) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/hosts");
    let libraries = folder.join("stand-ins");
    let program = folder.join(name);
    let output = Command::new("cc")
        .args(["-O1", "-Wall", "-Wno-unused-function", "-Wno-unused-result", "-pthread"])
        // As most programs are bound: each call by name goes through the PLT.
        .args(["-Wl,-z,lazy", "-Wl,--no-as-needed"])
        .args(options)
        .arg("-o")
        .arg(&program)
        .arg(sources.join(source))
        .arg("-L")
        .arg(&libraries)
        .args(["-l:libcudart.so.13", "-ldl"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{source}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    program
}

/// A program of tests/guest/hosts to run, with `options` of `colonel run`.
pub(crate) fn host(source: &str, options: &str) -> Setup {
    let mut setup = Setup::new([""; 0]).options(options);
    stand_ins(setup.path());
    let program = compile(setup.path(), source, "host", &[]);
    setup.word(program);
    setup
}

/// The same by a program that loads it as a library.
fn plugin(loader: &[&str], options: &str) -> Setup {
    let mut setup = Setup::new(loader).options(options);
    stand_ins(setup.path());
    let library = compile(
        setup.path(),
        "windows.c",
        "plugin.so",
        &["-shared", "-fPIC", "-DPLUGIN"],
    );
    if loader.is_empty() {
        setup.word(compile(setup.path(), "local.c", "local", &[]));
    }
    setup.word(library);
    setup
}

#[track_caller]
fn assert_three_windows(ended: &Ended, gate_by: &str) {
    let session = ended.session();
    session.assert_nothing_lost();
    let kernels = session.table("kernels");
    assert_eq!(kernels.tally("window"), BTreeMap::from([(1, 5), (2, 5), (3, 5)]));
    assert!(kernels.texts("name").iter().all(|name| name == "step_kernel"));
    assert_eq!(session.process().gate_by.as_deref(), Some(gate_by));
}

#[test]
fn a_program_that_links_the_runtime_is_seen_by_preload() {
    let ended = host("windows.c", "--gate profiler").run().assert_code(21);
    assert_three_windows(&ended, "preload");
}

#[test]
fn a_program_that_links_the_runtime_is_seen_by_callback() {
    let ended = host("windows.c", "--gate profiler --gate-by callback")
        .run()
        .assert_code(21);
    assert_three_windows(&ended, "callback");
}

#[test]
fn a_library_loaded_locally_is_seen_by_preload() {
    let ended = plugin(&[], "--gate profiler").run().assert_code(21);
    assert_three_windows(&ended, "preload");
}

#[test]
fn a_library_that_python_loads_is_seen_by_preload() {
    let script = "import ctypes, os, sys; sys.exit(ctypes.CDLL(sys.argv[1]).run())";
    let ended = plugin(&["python3", "-c", script], "--gate profiler")
        .run()
        .assert_code(21);
    assert_three_windows(&ended, "preload");
}

#[test]
fn a_window_opened_before_cuda_is_initialised_holds_the_first_kernels() {
    let ended = host("early.c", "--gate profiler").run().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(session.table("kernels").tally("window"), BTreeMap::from([(1, 9)]));
}

#[test]
fn output_and_code_are_the_programs_own() {
    let alone = host("windows.c", "").run_alone().assert_code(21);
    assert_eq!(alone.stdout(), "launched 28 kernels, 15 of them in windows\n");
    assert_eq!(alone.stderr(), "and said so\n");
    for options in [
        "",
        "--gate profiler",
        "--gate profiler --gate-by callback",
        "--gate manual",
        "--trace api",
    ] {
        let captured = host("windows.c", options).run().assert_code(21);
        assert_eq!(captured.stdout, alone.stdout, "{options}");
        let ours = captured
            .stderr
            .strip_prefix(alone.stderr.as_slice())
            .expect("its stderr comes first");
        assert!(ours.starts_with(b"colonel: session "), "{}", captured.stderr());
    }
}

#[test]
fn environment_cwd_umask_signals_and_errno_are_untouched() {
    for options in [
        "",
        "--gate profiler",
        "--gate profiler --gate-by callback",
        "--trace api",
    ] {
        let ended = host("untouched.c", options).run();
        assert_eq!(ended.stdout(), "the same\n", "{options}: {}", ended.stderr());
        ended.assert_code(0);
    }
}

#[test]
fn signals_are_delivered_to_the_programs_threads() {
    let ended = host("signals.c", "--gate profiler").run().assert_code(0);
    assert_eq!(ended.stdout(), "300 signals, 0 on threads that are not the program's\n");
    assert_eq!(ended.session().count("kernels"), 300);
}

#[test]
fn a_program_without_standard_streams_writes_into_nothing_of_ours() {
    let ended = host("closed.c", "").run().assert_code(23);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(session.count("kernels"), 3_000);
}

#[test]
fn children_have_nothing_of_ours() {
    let ended = host("children.c", "--gate profiler").run().assert_code(0);
    let stdout = ended.stdout();
    for code in [11, 12, 13] {
        assert!(stdout.contains(&format!("exited with {code}\n")), "{stdout}");
    }
    assert!(stdout.contains("sh\n"), "the shell's own thread: {stdout}");
    for ours in ["colonel-", "eventfd", "socket:", ".parquet", ".progress"] {
        assert!(!stdout.contains(ours), "`{ours}` in {stdout}");
    }
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(session.table("kernels").tally("window"), BTreeMap::from([(1, 20)]));
    session.process();
}

#[test]
fn a_program_that_becomes_another_keeps_the_rows_of_the_first() {
    let ended = host("becomes.c", "--gate profiler").run().assert_code(0);
    assert_eq!(ended.session().count("kernels"), 6 + 8);
    let message = ended.session().problem("replaced_by_exec");
    assert!(message.contains("by `exec`"), "{message}");
}

#[test]
fn a_program_that_is_a_cupti_client_itself_keeps_cupti() {
    let ended = host("rival.c", "--gate profiler").run().assert_code(24);
    assert_eq!(ended.stdout(), "subscribed\n");
    let message = ended.session().problem("other_subscriber");
    assert!(message.contains("another profiler (`CUPTI for rival`)"), "{message}");
}

#[test]
fn a_program_without_cuda_has_no_thread_and_no_file_of_ours() {
    let script = "cat /proc/$$/task/*/comm; readlink /proc/$$/fd/*; printenv LD_PRELOAD";
    let ended = Setup::new(["sh", "-c", script])
        .options("--gate profiler")
        .run()
        .assert_code(0);
    let stdout = ended.stdout();
    assert!(stdout.contains("libcolonel_guest.so"), "it was preloaded: {stdout}");
    for ours in ["colonel-", "eventfd", "socket:", ".parquet", ".progress"] {
        assert!(!stdout.contains(ours), "`{ours}` in {stdout}");
    }
    assert_eq!(
        fs::read_dir(ended.session().path().join("processes")).unwrap().count(),
        0
    );
    assert!(
        ended.stderr().contains("no process of this command initialised CUDA"),
        "{}",
        ended.stderr()
    );
}

#[test]
fn a_guest_without_a_session_does_nothing() {
    let place = tempfile::tempdir().unwrap();
    stand_ins(place.path());
    let program = compile(place.path(), "windows.c", "host", &[]);
    let guest = target().join("libcolonel_guest.so");
    let output = Command::new(program)
        .env("LD_LIBRARY_PATH", place.path().join("stand-ins"))
        .env("LD_PRELOAD", &guest)
        .env("CUDA_INJECTION64_PATH", &guest)
        .env("COLONEL_SIM_CALLS", place.path().join("calls"))
        .env_remove("COLONEL_SESSION")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(21), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "and said so\n");
    assert!(!place.path().join("calls").exists());
}
