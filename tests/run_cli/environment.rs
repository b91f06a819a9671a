//! What the command sees of us: its environment, and nothing on its streams.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Output;

use crate::support::{Workplace, assert_code, empty_guest, stderr, stdout};

fn variables(output: &Output) -> BTreeMap<String, String> {
    assert_code(output, 0);
    let lines = stdout(output);
    lines
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect()
}

#[test]
fn the_guest_is_told_what_was_asked() {
    let place = Workplace::new();
    let options = [
        "--flavor",
        "vllm",
        "--gate-by",
        "preload",
        "--after",
        "5s",
        "--for",
        "1min 30s",
        "--trace",
        "api,nvtx",
    ];
    let seen = variables(&place.run(&options, &["env"]));
    let (folder, manifest) = place.session();
    assert_eq!(Path::new(&seen["COLONEL_SESSION"]), folder.canonicalize().unwrap());
    assert_eq!(seen["COLONEL_GATE"], "profiler");
    assert_eq!(seen["COLONEL_GATE_BY"], "preload");
    assert_eq!(seen["COLONEL_AFTER_NS"], "5000000000");
    assert_eq!(seen["COLONEL_FOR_NS"], "90000000000");
    assert_eq!(seen["COLONEL_TRACE"], "api,nvtx");
    assert_eq!(Path::new(&seen["CUDA_INJECTION64_PATH"]), empty_guest());
    assert_eq!(Path::new(&seen["LD_PRELOAD"]), empty_guest());
    assert_eq!(Path::new(&seen["NVTX_INJECTION64_PATH"]), empty_guest());
    assert!(!seen.contains_key("COLONEL_NVTX_CHAIN"));
    assert_eq!((manifest.flavor.as_str(), manifest.gate.as_str()), ("vllm", "profiler"));
    assert_eq!(manifest.trace, ["api", "nvtx"]);
}

#[test]
fn an_outer_sessions_values_do_not_leak_in() {
    let place = Workplace::new();
    let mut command = place.colonel();
    command
        .env("COLONEL_AFTER_NS", "1")
        .env("COLONEL_FOR_NS", "1")
        .env("COLONEL_TRACE", "api");
    let seen = variables(&command.args(["run", "--", "env"]).output().unwrap());
    assert_eq!(seen["COLONEL_GATE"], "process");
    for name in ["COLONEL_AFTER_NS", "COLONEL_FOR_NS", "COLONEL_TRACE"] {
        assert!(!seen.contains_key(name), "{name}");
    }
}

#[test]
fn nvtx_is_left_alone_unless_asked_for() {
    let place = Workplace::new();
    let mut command = place.colonel();
    command
        .env("NVTX_INJECTION64_PATH", "/opt/nsight/nvtx.so")
        .args(["run", "--", "env"]);
    let seen = variables(&command.output().unwrap());
    assert_eq!(seen["NVTX_INJECTION64_PATH"], "/opt/nsight/nvtx.so");
    assert!(!seen.contains_key("COLONEL_NVTX_CHAIN"));
}

#[test]
fn another_nvtx_injection_is_passed_on() {
    let place = Workplace::new();
    let mut command = place.colonel();
    command
        .env("NVTX_INJECTION64_PATH", "/opt/nsight/nvtx.so")
        .args(["run", "--gate", "nvtx:step*@vllm", "--", "env"]);
    let seen = variables(&command.output().unwrap());
    assert_eq!(Path::new(&seen["NVTX_INJECTION64_PATH"]), empty_guest());
    assert_eq!(seen["COLONEL_NVTX_CHAIN"], "/opt/nsight/nvtx.so");
    assert_eq!(seen["COLONEL_GATE"], "nvtx:step*@vllm");
    assert_eq!(place.session().1.gate, "nvtx:step*@vllm");
}

#[test]
fn another_injection_is_refused_and_can_be_replaced() {
    let place = Workplace::new();
    let mut command = place.colonel();
    command
        .env("CUDA_INJECTION64_PATH", "/opt/nsight/inject.so")
        .args(["run", "--", "true"]);
    let output = command.output().unwrap();
    assert_code(&output, 125);
    assert!(
        stderr(&output).contains("`/opt/nsight/inject.so`"),
        "{}",
        stderr(&output)
    );
    assert_eq!(place.sessions(), 0);

    let mut command = place.colonel();
    command
        .env("CUDA_INJECTION64_PATH", "/opt/nsight/inject.so")
        .args(["run", "--replace-injection", "--", "env"]);
    let seen = variables(&command.output().unwrap());
    assert_eq!(Path::new(&seen["CUDA_INJECTION64_PATH"]), empty_guest());
}

#[test]
fn a_session_within_a_session_is_refused() {
    let place = Workplace::new();
    let output = place.run(&[], &[env!("CARGO_BIN_EXE_colonel"), "run", "--", "true"]);
    assert_code(&output, 125);
    assert!(
        stderr(&output).contains("by an outer `colonel run`"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_preload_that_is_there_stays_behind_ours() {
    let place = Workplace::new();
    let other = place.path().join("other.so");
    fs::copy(empty_guest(), &other).unwrap();
    let seen = variables(
        &place
            .colonel()
            .env("LD_PRELOAD", &other)
            .args(["run", "--", "env"])
            .output()
            .unwrap(),
    );
    assert_eq!(
        seen["LD_PRELOAD"],
        format!("{}:{}", empty_guest().display(), other.display())
    );
}

#[test]
fn a_guest_in_a_folder_with_a_space_is_preloaded_all_the_same() {
    let place = Workplace::new();
    let folder = place.path().join("my files");
    fs::create_dir(&folder).unwrap();
    let guest = folder.join("libcolonel_guest.so");
    fs::copy(empty_guest(), &guest).unwrap();
    let mut command = place.colonel();
    command.env("COLONEL_GUEST", &guest).args([
        "run",
        "--",
        "grep",
        "-c",
        "my files/libcolonel_guest.so",
        "/proc/self/maps",
    ]);
    let output = command.output().unwrap();
    assert_code(&output, 0);
    assert!(!stderr(&output).contains("ERROR: ld.so"), "{}", stderr(&output));
}

#[test]
fn the_runtime_folder_is_the_users_alone_and_goes_away() {
    let place = Workplace::new();
    let output = place.run_sh(&[], "stat -c %a \"$COLONEL_RUNTIME\"; echo \"$COLONEL_RUNTIME\"");
    let said = stdout(&output);
    let [mode, folder] = said.lines().collect::<Vec<_>>()[..] else {
        panic!("{said}")
    };
    assert_eq!(mode, "700");
    assert!(
        folder.starts_with(&format!("{}/colonel/", place.path().display())),
        "{folder}"
    );
    assert!(!Path::new(folder).exists());
    assert!(!place.path().join("colonel").exists());
}

#[test]
fn a_long_runtime_folder_gives_way_to_tmp() {
    let place = Workplace::new();
    let long = place.path().join("x".repeat(100));
    fs::create_dir(&long).unwrap();
    let seen = variables(
        &place
            .colonel()
            .env("XDG_RUNTIME_DIR", &long)
            .args(["run", "--", "env"])
            .output()
            .unwrap(),
    );
    assert!(
        seen["COLONEL_RUNTIME"].starts_with("/tmp/colonel-"),
        "{}",
        seen["COLONEL_RUNTIME"]
    );
    assert!(!Path::new(&seen["COLONEL_RUNTIME"]).exists());
}

#[test]
fn stdout_and_stdin_are_the_commands() {
    let place = Workplace::new();
    let mut command = place.colonel();
    command
        .args(["run", "--", "cat"])
        .stdin(fs::File::open(place.write("in", "a\0b\u{ff}\n", 0o644)).unwrap());
    let output = command.output().unwrap();
    assert_code(&output, 0);
    assert_eq!(output.stdout, fs::read(place.path().join("in")).unwrap());
    assert!(stderr(&output).starts_with("colonel: session "), "{}", stderr(&output));
}

#[test]
fn we_speak_last_on_stderr() {
    let place = Workplace::new();
    let output = place.run_sh(&[], "echo out; echo one >&2; sleep 0.1; echo two >&2");
    assert_eq!(stdout(&output), "out\n");
    let said = stderr(&output);
    assert!(said.starts_with("one\ntwo\ncolonel: session "), "{said}");
    assert!(
        said.contains("no kernels: no process of this command initialised CUDA\n"),
        "{said}"
    );
}

#[test]
fn arguments_need_not_be_utf8() {
    let place = Workplace::new();
    let odd = OsStr::from_bytes(b"caf\xe9");
    let output = place.run(&[], &[OsStr::new("printf"), OsStr::new("%s"), odd]);
    assert_code(&output, 0);
    assert_eq!(output.stdout, odd.as_bytes());
    let (_, manifest) = place.session();
    assert_eq!(manifest.command, ["printf", "%s", "caf\u{fffd}"]);
}

#[test]
fn a_folder_of_sessions_need_not_be_utf8() {
    let place = Workplace::new();
    let odd = OsStr::from_bytes(b"sessions-\xe9");
    let mut command = place.colonel();
    command
        .arg("run")
        .arg("--sessions-dir")
        .arg(odd)
        .args(["--", "sh", "-c", "printf %s \"$COLONEL_SESSION\""]);
    let output = command.output().unwrap();
    assert_code(&output, 0);
    let (folder, _) = place.session_in(odd);
    assert_eq!(output.stdout, folder.canonicalize().unwrap().as_os_str().as_bytes());
}

#[test]
fn the_commands_own_options_stay_its_own() {
    let place = Workplace::new();
    let output = place
        .colonel()
        .args(["run", "echo", "--gate", "x", "-C", "--", "y"])
        .output()
        .unwrap();
    assert_code(&output, 0);
    assert_eq!(stdout(&output), "--gate x -C -- y\n");
}

#[test]
fn the_sessions_dir_is_relative_to_the_caller_and_not_to_cwd() {
    let place = Workplace::new();
    fs::create_dir(place.path().join("work")).unwrap();
    place.write("work/tool", "#!/bin/sh\npwd -P\n", 0o755);
    let output = place.run(
        &["-C", "work", "--sessions-dir", "mine", "--json", "summary.json"],
        &["./tool"],
    );
    assert_code(&output, 0);
    let work = place.path().join("work").canonicalize().unwrap();
    assert_eq!(stdout(&output).trim_end(), work.to_str().unwrap());
    let (_, manifest) = place.session_in("mine");
    assert_eq!(Path::new(&manifest.cwd).canonicalize().unwrap(), work);
    assert!(place.path().join("summary.json").is_file());
    assert_eq!(
        fs::read_dir(&work).unwrap().count(),
        1,
        "nothing was made in the command's folder"
    );
}

#[test]
fn sim_puts_the_stand_ins_in_front() {
    let place = Workplace::new();
    // Beside a colonel of its own, as cargo leaves them.
    let bin = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let colonel = bin.path().join("colonel");
    fs::hard_link(env!("CARGO_BIN_EXE_colonel"), &colonel).unwrap();
    let missing = |library: &str| {
        let mut command = std::process::Command::new(&colonel);
        command
            .current_dir(place.path())
            .env("COLONEL_GUEST", empty_guest())
            .env("XDG_RUNTIME_DIR", place.path());
        let output = command.args(["run", "--sim", "--", "true"]).output().unwrap();
        assert_code(&output, 125);
        let said = stderr(&output);
        assert!(
            said.contains(library) && said.contains("cargo build --release --workspace"),
            "{said}"
        );
    };
    for library in ["libsim_cuda.so", "libsim_cudart.so", "libsim_cupti.so"] {
        missing(library);
        fs::copy(empty_guest(), bin.path().join(library)).unwrap();
    }
    fs::write(
        bin.path().join("colonel-sim"),
        "#!/bin/sh\nreadlink -f ${LD_LIBRARY_PATH%%:*}/*; echo $LD_LIBRARY_PATH\n",
    )
    .unwrap();
    fs::set_permissions(
        bin.path().join("colonel-sim"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let mut command = std::process::Command::new(&colonel);
    command
        .current_dir(place.path())
        .env("COLONEL_GUEST", empty_guest())
        .env("XDG_RUNTIME_DIR", place.path());
    command
        .env("LD_LIBRARY_PATH", "/opt/other")
        .args(["run", "--sim", "--", "colonel-sim"]);
    let output = command.output().unwrap();
    assert_code(&output, 0);
    let said = stdout(&output);
    for library in ["libsim_cuda.so", "libsim_cudart.so", "libsim_cupti.so"] {
        assert!(
            said.contains(&bin.path().canonicalize().unwrap().join(library).display().to_string()),
            "{said}"
        );
    }
    assert!(said.trim_end().ends_with("/sim:/opt/other"), "{said}");
    assert!(place.session().1.simulated);
}
