//! Exit codes and words for every way in which a command can't be started, or ends.

use std::io::Write;
use std::process::Command;

use crate::support::{Workplace, assert_code, stderr, stdout};

#[test]
fn the_commands_code_is_its_own() {
    let place = Workplace::new();
    for code in [0, 1, 2, 7, 125, 126, 127, 255] {
        assert_code(&place.run_sh(&[], &format!("exit {code}")), code);
    }
}

#[test]
fn a_command_killed_by_a_signal_gives_128_and_its_number() {
    let place = Workplace::new();
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139), ("ABRT", 134)] {
        assert_code(&place.run_sh(&[], &format!("kill -{signal} $$; sleep 5")), code);
    }
    let place = Workplace::new();
    place.run_sh(&[], "kill -9 $$");
    let (_, manifest) = place.session();
    let exit = manifest.exit.unwrap();
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
}

#[test]
fn no_command_is_a_usage_error_that_shows_one() {
    let place = Workplace::new();
    for words in [&["run"][..], &["run", "--"], &["run", "--gate", "process"]] {
        let output = place.colonel().args(words).output().unwrap();
        assert_code(&output, 2);
        assert!(
            stderr(&output).contains("colonel run -- python train.py"),
            "{}",
            stderr(&output)
        );
        assert_eq!(place.sessions(), 0);
    }
}

#[test]
fn a_mode_that_does_not_go_with_the_rest_is_a_usage_error() {
    let place = Workplace::new();
    for (options, part) in [
        ("--burst 20ms", "are for `--mode sampled`"),
        ("--mode counters --burst-every 2s", "are for `--mode sampled`"),
        ("--mode sampled --burst 20ms --burst-every 30ms", "twice its length"),
        ("--mode sampled --burst 10us", "a burst is 1ms or longer"),
        ("--mode sampled --trace nvtx,api", "goes with `--mode full` alone"),
        ("--mode sampled --evaluator nsys", "leave `--evaluator` out"),
        ("--mode counters --evaluator ncu", "leave `--evaluator` out"),
        ("--mode now-and-then", "known: full, sampled, counters"),
    ] {
        let output = place.run(&options.split(' ').collect::<Vec<_>>(), &["true"]);
        assert_code(&output, 2);
        assert!(stderr(&output).contains(part), "{options}: {}", stderr(&output));
        assert_eq!(place.sessions(), 0);
    }
}

#[test]
fn a_command_that_is_not_found_gives_127_and_leaves_no_session() {
    let place = Workplace::new();
    let output = place.run(&[], &["no-such-command"]);
    assert_code(&output, 127);
    assert_eq!(
        stderr(&output),
        "colonel: failed to start `no-such-command`: it is not on the PATH\n"
    );
    assert_code(&place.run(&[], &["./no-such-file"]), 127);
    assert_eq!(place.sessions(), 0, "nothing ran");

    place.write("tool", "#!/bin/sh\n", 0o755);
    let output = place.run(&[], &["tool"]);
    assert_code(&output, 127);
    assert!(stderr(&output).contains("`./tool`"), "{}", stderr(&output));
}

#[test]
fn a_file_that_can_not_be_executed_gives_126_and_says_what_to_do() {
    let place = Workplace::new();
    place.write("plain", "text", 0o644);
    let output = place.run(&[], &["./plain"]);
    assert_code(&output, 126);
    assert!(stderr(&output).contains("chmod +x ./plain"), "{}", stderr(&output));

    place.write("script.py", "#!/usr/bin/python3\n", 0o644);
    let output = place.run(&[], &["./script.py"]);
    assert_code(&output, 126);
    assert!(
        stderr(&output).contains("`/usr/bin/python3 ./script.py`"),
        "{}",
        stderr(&output)
    );

    let output = place.run(&[], &["/"]);
    assert_code(&output, 126);
    assert!(stderr(&output).contains("is a folder"), "{}", stderr(&output));
    assert_eq!(place.sessions(), 0);
}

#[test]
fn a_missing_interpreter_is_told_from_a_missing_command() {
    let place = Workplace::new();
    place.write("script", "#!/no/such/python -u\n", 0o755);
    let output = place.run(&[], &["./script"]);
    assert_code(&output, 126);
    assert!(
        stderr(&output).contains("its interpreter `/no/such/python`"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn unknown_names_list_the_known_ones() {
    let place = Workplace::new();
    for (option, value, expected) in [
        (
            "--gate",
            "sometimes",
            "unknown gate `sometimes` (known: process, profiler, manual, nvtx:NAME[@DOMAIN])",
        ),
        ("--gate", "nvtx:@vllm", "`nvtx:@vllm` names no range: write `nvtx:NAME`"),
        ("--gate-by", "magic", "(known: preload, callback, auto)"),
        ("--trace", "osrt", "unknown record kind `osrt` (known: api, nvtx)"),
        ("--flavor", "sglang", "unknown flavor `sglang` (known: generic, vllm)"),
        (
            "--evaluator",
            "vtune",
            "unknown evaluator `vtune` (known: cupti, nsys, ncu, auto)",
        ),
        ("--after", "5", "time unit"),
        ("--json", "-", "stdout is the command's: name a file"),
    ] {
        let output = place.run(&[option, value], &["true"]);
        assert_code(&output, 2);
        assert!(
            stderr(&output).contains(expected),
            "{option} {value}: {}",
            stderr(&output)
        );
    }
    let output = place.run(&["--gat", "process"], &["true"]);
    assert_code(&output, 2);
    assert!(
        stderr(&output).contains("'--gate'"),
        "a typo is not taken for the command: {}",
        stderr(&output)
    );
}

#[test]
fn no_session_folder_no_start() {
    let place = Workplace::new();
    place.write("file", "", 0o644);
    let output = place.run(&["--sessions-dir", "file/sessions"], &["touch", "started"]);
    assert_code(&output, 125);
    let said = stderr(&output);
    assert!(
        said.contains("failed to make a session in `file/sessions`, so the command was not started"),
        "{said}"
    );
    assert!(
        said.contains("--sessions-dir DIR") && said.contains("cause: "),
        "{said}"
    );
    assert!(!place.path().join("started").exists());
}

/// Runs a script in a mount namespace of its own; `None` where the machine does not allow that.
fn unshared(place: &Workplace, script: &str) -> Option<std::process::Output> {
    let allowed = Command::new("unshare")
        .args(["-Urm", "true"])
        .status()
        .is_ok_and(|status| status.success());
    if !allowed {
        let _ = writeln!(std::io::stderr(), "not tested here: `unshare -Urm` is not allowed");
        return None;
    }
    let colonel = place.colonel();
    let mut command = Command::new("unshare");
    command
        .args(["-Urm", "sh", "-c", script, "sh"])
        .arg(colonel.get_program())
        .current_dir(place.path());
    for (name, value) in colonel.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Some(command.output().unwrap())
}

#[test]
fn a_full_disk_and_a_read_only_one_are_named() {
    let place = Workplace::new();
    std::fs::create_dir(place.path().join("disk")).unwrap();
    let full = "mount -t tmpfs -o size=4k,nr_inodes=3 none disk && \"$1\" run --sessions-dir disk -- touch started";
    let Some(output) = unshared(&place, full) else { return };
    assert_code(&output, 125);
    assert!(
        stderr(&output).contains("No space left on device"),
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("free space"), "{}", stderr(&output));

    let read_only = "mount -t tmpfs -o ro none disk && \"$1\" run --sessions-dir disk -- touch started";
    let output = unshared(&place, read_only).unwrap();
    assert_code(&output, 125);
    assert!(stderr(&output).contains("Read-only file system"), "{}", stderr(&output));
    assert!(!place.path().join("started").exists());
}

#[test]
fn a_disk_that_fills_up_meanwhile_leaves_what_is_there_and_the_commands_code() {
    let place = Workplace::new();
    std::fs::create_dir(place.path().join("disk")).unwrap();
    let script = "mount -t tmpfs -o size=64k none disk && \
                  \"$1\" run --sessions-dir disk -- sh -c 'cat /dev/zero > disk/fill; exit 4'; code=$?; \
                  \"$1\" list --sessions-dir disk --json; exit $code";
    let Some(output) = unshared(&place, script) else { return };
    assert_code(&output, 4);
    let said = stderr(&output);
    assert!(
        said.contains("could not be sealed") && said.contains("No space left on device"),
        "{said}"
    );
    assert!(said.contains("is kept: free space, then `colonel show"), "{said}");
    assert_eq!(
        stdout(&output).matches("\"id\"").count(),
        1,
        "it still opens: {}",
        stdout(&output)
    );
}

#[test]
fn a_missing_guest_names_every_place() {
    let place = Workplace::new();
    let output = place
        .colonel()
        .env("COLONEL_GUEST", "nowhere.so")
        .args(["run", "--", "true"])
        .output()
        .unwrap();
    assert_code(&output, 125);
    assert!(
        stderr(&output).contains("looked at `nowhere.so`"),
        "{}",
        stderr(&output)
    );
    assert!(
        stderr(&output).contains("`COLONEL_GUEST` names it"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_folder_that_can_not_be_entered_gives_125() {
    let place = Workplace::new();
    let output = place.run(&["--cwd", "missing"], &["true"]);
    assert_code(&output, 125);
    assert!(
        stderr(&output).contains("failed to enter the folder `missing`"),
        "{}",
        stderr(&output)
    );
    assert_eq!(place.sessions(), 0);
}

#[test]
fn help_and_version_go_to_stdout() {
    let place = Workplace::new();
    let output = place.colonel().args(["run", "--help"]).output().unwrap();
    assert_code(&output, 0);
    assert!(stdout(&output).contains("--replace-injection"));
    let output = place.colonel().arg("--version").output().unwrap();
    assert_code(&output, 0);
    assert!(
        stdout(&output).starts_with(concat!("colonel ", env!("CARGO_PKG_VERSION"), " (")),
        "{}",
        stdout(&output)
    );
}
