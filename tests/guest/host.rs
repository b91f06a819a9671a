//! The captured process seen from outside: its threads, its files, what is said on its stderr.

use std::fs;
use std::path::PathBuf;

use crate::run::{Running, decode};

const O_CLOEXEC: u32 = 0o2_000_000;

/// A workload in mid-capture, with rows on disk.
fn capturing() -> (Running, PathBuf) {
    let mut running = decode("--steps 1000000 --kernels 24 --step-us 4000").start();
    let process = running.process("rows are on disk", |process| process.rows.contains_key("kernels"));
    let proc = PathBuf::from(format!("/proc/{}", process.pid));
    (running, proc)
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find(|line| line.starts_with(name));
    line.unwrap_or_else(|| panic!("no {name} in {status}"))[name.len()..]
        .trim()
        .to_owned()
}

#[test]
fn our_threads_are_named_and_block_every_signal() {
    let (_running, proc) = capturing();
    let mut ours = Vec::new();
    for task in fs::read_dir(proc.join("task")).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let name = field(&status, "Name:");
        let blocked = u64::from_str_radix(&field(&status, "SigBlk:"), 16).unwrap();
        if name.starts_with("colonel-") && !name.starts_with("colonel-sim") {
            // All but SIGKILL and SIGSTOP, which can't be, and the two that the C library keeps for itself.
            let unblockable = 1 << 8 | 1 << 18 | 1 << 31 | 1 << 32;
            assert_eq!(blocked | unblockable, u64::MAX, "{name}: {blocked:x}");
            ours.push(name);
        } else {
            assert_eq!(
                blocked, 0,
                "{name} is the program's and not CUPTI's or ours: {blocked:x}"
            );
        }
    }
    ours.sort();
    assert_eq!(ours, ["colonel-steward", "colonel-writer"]);
}

#[test]
fn our_files_are_closed_on_exec_and_above_the_standard_streams() {
    let (_running, proc) = capturing();
    let mut ours = 0;
    for entry in fs::read_dir(proc.join("fd")).unwrap() {
        let path = entry.unwrap().path();
        let number: u32 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let Ok(to) = fs::read_link(&path) else { continue };
        // Standard streams, and what the test's own caller handed down.
        if number <= 2 || fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|inherited| inherited == to) {
            continue;
        }
        let Ok(info) = fs::read_to_string(proc.join(format!("fdinfo/{number}"))) else {
            continue;
        };
        let flags = u32::from_str_radix(&field(&info, "flags:"), 8).unwrap();
        assert_ne!(flags & O_CLOEXEC, 0, "{number} -> {} is inherited", to.display());
        ours += 1;
    }
    assert!(ours >= 3, "the eventfd, the socket and the progress file");
}

#[test]
fn nothing_is_said_unless_asked_for() {
    let line = "--steps 5 --kernels 24 --windows 2";
    let quiet = decode(line).options("--gate profiler").run().assert_code(0);
    assert!(quiet.stderr().starts_with("colonel: session"), "{}", quiet.stderr());

    let said = decode(line)
        .options("--gate profiler")
        .env("COLONEL_LOG", "1")
        .run()
        .assert_code(0);
    let pid = said.count().pids[0];
    let prefix = format!("colonel[{pid}]: ");
    let stderr = said.stderr();
    let lines: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
    for part in [
        "armed: gate profiler",
        "libcupti.so.13",
        "window 1 open",
        "window 2 closed",
    ] {
        assert!(lines.iter().any(|line| line.contains(part)), "no `{part}` in {stderr}");
    }
    assert_eq!(said.stdout().lines().count(), 1, "stdout is the program's");
}

#[test]
fn a_program_of_two_hundred_threads_is_captured_exactly() {
    let ended = decode("--steps 3 --kernels 5 --threads 200").run().assert_code(0);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(session.count("kernels"), ended.count().kernels);
    assert_eq!(session.table("kernels").tally("stream_id").len(), 200);
}

#[test]
fn the_control_socket_is_the_users_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (mut running, _) = capturing();
    let socket = running
        .process("it can be asked", |process| process.control.is_some())
        .control
        .unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket) & 0o077, 0, "{:o}", mode(&socket));
    assert_eq!(mode(socket.parent().unwrap()) & 0o077, 0);
}
