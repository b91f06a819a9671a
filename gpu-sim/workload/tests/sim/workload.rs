//! The workload alone: its last line, how it ends, and how it finds CUDA.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use crate::support::{Sim, summary};

#[test]
fn the_last_line_counts_what_was_launched() {
    let sim = Sim::new();
    for (args, kernels, in_windows) in [
        ("--steps 4 --kernels 5", 20, 20),
        ("--steps 4 --kernels 5 --graph --threads 3", 60, 60),
        ("--steps 4 --kernels 5 --windows 2 --outside 1", 55, 40),
        ("--steps 0", 0, 0),
        ("--steps 2 --kernels 7 --peer --resolve static", 14, 14),
        (
            "--steps 2 --kernels 7 --windows 1 --outside 0 --in-flight 2 --resolve handle",
            14,
            14,
        ),
    ] {
        let output = sim.command(args).output().unwrap();
        assert!(output.status.success(), "{args}: {output:?}");
        let summary = summary(&output);
        assert_eq!(summary["kernels"], kernels, "{args}");
        assert_eq!(summary["kernels_in_windows"], in_windows, "{args}");
        assert_eq!(summary["processes"], 1, "{args}");
    }
}

#[test]
fn forked_children_do_the_work_and_the_parent_sums_it_up() {
    let sim = Sim::new();
    let child = sim
        .command("--steps 2 --kernels 3 --fork=2 --end os-exit --code 7")
        .output()
        .unwrap();
    assert_eq!(child.status.code(), Some(7));
    let summary = summary(&child);
    assert_eq!((&summary["kernels"], &summary["processes"]), (&12.into(), &2.into()));
    let pids = summary["pids"].as_array().unwrap();
    assert_eq!(pids.len(), 2);
    assert_ne!(pids[0], pids[1]);
}

#[test]
fn it_ends_as_asked_after_it_has_spoken() {
    let sim = Sim::new();
    for (end, code, signal) in [
        ("exit --code 3", Some(3), None),
        ("os-exit --code 4", Some(4), None),
        ("abort", None, Some(libc::SIGABRT)),
        ("segv", None, Some(libc::SIGSEGV)),
        ("abort --fork", Some(128 + libc::SIGABRT), None),
    ] {
        let output = sim.command(&format!("--steps 1 --end {end}")).output().unwrap();
        assert_eq!((output.status.code(), output.status.signal()), (code, signal), "{end}");
        assert_eq!(summary(&output)["kernels"], 336, "{end}");
    }
}

#[test]
fn it_hangs_when_asked_to() {
    let sim = Sim::new();
    let mut child = sim
        .command("--steps 1 --end hang")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert!(line.contains("\"kernels\":336"));
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn without_stand_ins_in_front_it_finds_those_of_its_own_build() {
    let output = Command::new(env!("CARGO_BIN_EXE_colonel-sim"))
        .args(["decode", "--steps", "1"])
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap();
    // On a machine with a real libcudart in the loader's path it says so instead.
    let told = String::from_utf8_lossy(&output.stderr).contains("is a real one");
    assert!(output.status.success() || told, "{output:?}");
}

/// A step takes as long as its kernels do, or as long as asked.
#[test]
fn the_pace_is_the_gpus_or_the_one_asked_for() {
    let sim = Sim::new();
    let time = |args| {
        let begun = std::time::Instant::now();
        assert!(sim.command(args).output().unwrap().status.success());
        begun.elapsed().as_millis()
    };
    assert!(time("--steps 20 --kernels 336 --graph") >= 20 * 336 * 1_700 / 1_000_000);
    assert!(time("--steps 10 --kernels 1 --step-us 10000") >= 100);
}

#[test]
fn a_library_that_cannot_be_injected_is_passed_over_in_silence() {
    let sim = Sim::new();
    for library in ["/nonexistent.so", "/etc/hostname", ""] {
        let output = sim
            .command("--steps 1")
            .env("CUDA_INJECTION64_PATH", library)
            .output()
            .unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{library}: {output:?}"
        );
    }
}

#[test]
fn a_machine_without_a_gpu_gives_cudas_error() {
    let sim = Sim::new();
    let output = sim
        .command("--steps 1")
        .env("COLONEL_SIM_DEVICES", "0")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("`cudaSetDevice` failed with 100"), "{stderr}");
    assert!(output.stdout.is_empty());
}
