//! What a flavor changes: the command's environment, what is asked of its python, what is said in the end.

use std::collections::BTreeMap;
use std::process::Output;
use std::time::{Duration, Instant};

use colonel::session::synthetic::SyntheticGuest;

use crate::session::waiting;
use crate::support::{Workplace, assert_code, stderr, stdout};

/// Versions as a python with vLLM 0.11.0 tells them; `known` is what it knows of the variables asked for.
fn answer(known: &str) -> String {
    format!(
        r#"{{"path": "/venv/bin/python", "release": "3.12.4", "packages": {{"vllm": "0.11.0", "torch": "2.8.0+cu128"}}, "vllm_variables": [{known}]}}"#
    )
}

/// A `python` that tells `said` when it is asked with `-c`, and runs a script, which is its environment.
fn fake_python(place: &Workplace, name: &str, said: &str) {
    let text = format!("#!/bin/sh\nif [ \"$1\" = -c ]; then\n{said}\nelse exec env; fi\n");
    place.write(name, &text, 0o755);
}

fn says(place: &Workplace, known: &str) {
    fake_python(place, "python", &format!("echo '{}'", answer(known)));
}

/// What a command sees that is not in the environment of this test.
fn seen(output: &Output) -> BTreeMap<String, String> {
    assert_code(output, 0);
    let lines = stdout(output);
    let variables = lines.lines().filter_map(|line| line.split_once('='));
    variables
        .filter(|(name, _)| name.starts_with("COLONEL_VLLM") || name.starts_with("VLLM_"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn expected(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    variables.iter().map(owned).collect()
}

const NVTX: (&str, &str) = ("COLONEL_VLLM_ENABLE_NVTX", "1");
const V1: (&str, &str) = ("VLLM_USE_V1", "1");

#[test]
fn generic_sets_nothing_and_asks_no_python() {
    let place = Workplace::new();
    fake_python(&place, "python", "touch asked");
    let output = place.run(&[], &["./python", "script.py"]);
    assert_eq!(seen(&output), expected(&[]));
    assert!(!place.path().join("asked").exists());
    assert!(place.session().1.software.is_empty());
}

#[test]
fn an_old_vllm_is_told_to_use_its_v1_engine() {
    let place = Workplace::new();
    says(&place, "\"VLLM_USE_V1\"");
    let output = place.run(&["--flavor", "vllm"], &["./python", "script.py"]);
    assert_eq!(seen(&output), expected(&[NVTX, V1]));
    let software = [("python", "3.12.4"), ("torch", "2.8.0+cu128"), ("vllm", "0.11.0")];
    assert_eq!(place.session().1.software, expected(&software));
}

#[test]
fn a_new_vllm_is_not_told_what_it_would_warn_of() {
    let place = Workplace::new();
    says(&place, "");
    let output = place.run(&["--flavor", "vllm"], &["./python", "script.py"]);
    assert_eq!(seen(&output), expected(&[NVTX]));
    assert_eq!(place.session().1.software["vllm"], "0.11.0");
}

#[test]
fn what_the_user_has_set_is_kept() {
    let place = Workplace::new();
    says(&place, "\"VLLM_USE_V1\"");
    let mut command = place.colonel();
    command
        .args(["run", "--flavor", "vllm", "--", "./python", "script.py"])
        .env("VLLM_USE_V1", "0")
        .env("COLONEL_VLLM_ENABLE_NVTX", "");
    let kept = expected(&[("COLONEL_VLLM_ENABLE_NVTX", ""), ("VLLM_USE_V1", "0")]);
    assert_eq!(seen(&command.output().unwrap()), kept);
}

#[test]
fn the_python_of_a_console_script_is_asked_as_the_command_will_run() {
    let place = Workplace::new();
    std::fs::create_dir(place.path().join("work")).unwrap();
    // It says where it is, and that no guest is in it.
    let said = "echo \"cwd $(pwd -P) $LD_PRELOAD$COLONEL_SESSION\" > ../asked; cat > ../stdin; echo 'a greeting'";
    fake_python(
        &place,
        "python3.12",
        &format!("{said}\necho '{}'", answer("\"VLLM_USE_V1\"")),
    );
    place.write("work/vllm", "#!/usr/bin/env python3.12\n", 0o755);
    let path = format!("{}:/usr/bin:/bin", place.path().display());
    let mut command = place.colonel();
    command.args(["run", "--flavor", "vllm", "-C", "work", "--", "./vllm", "serve"]);
    let output = command.env("PATH", path).output().unwrap();
    assert_eq!(seen(&output), expected(&[NVTX, V1]));
    let read = |name: &str| std::fs::read_to_string(place.path().join(name)).unwrap();
    let work = place.path().join("work").canonicalize().unwrap();
    assert_eq!(read("asked").trim_end(), format!("cwd {}", work.display()));
    assert_eq!(read("stdin"), "");
}

#[test]
fn a_python_that_gives_no_answer_changes_nothing() {
    let answers = [
        ("garbage", "echo '{\"packages\": 1}'; echo nonsense >&2"),
        ("nothing", ":"),
        ("failure", "echo '{}'; exit 3"),
        ("noise without end", "exec yes"),
        ("silence", "echo $$ > pid; exec sleep 600"),
    ];
    std::thread::scope(|scope| {
        for (what, said) in answers {
            scope.spawn(move || {
                let place = Workplace::new();
                fake_python(&place, "python", said);
                let started = Instant::now();
                let output = place.run(&["--flavor", "vllm"], &["./python", "script.py"]);
                assert!(started.elapsed() < Duration::from_secs(20), "{what}");
                assert_eq!(seen(&output), expected(&[NVTX]), "{what}");
                assert!(place.session().1.software.is_empty(), "{what}");
                assert!(!stderr(&output).contains("nonsense"), "{what}");
                if let Ok(pid) = std::fs::read_to_string(place.path().join("pid")) {
                    assert!(started.elapsed() >= Duration::from_secs(5), "{what}");
                    assert_eq!(
                        colonel::session::start_ticks(pid.trim().parse().unwrap()),
                        None,
                        "it was killed"
                    );
                }
            });
        }
    });
}

#[test]
fn a_command_without_a_python_is_run_all_the_same() {
    let place = Workplace::new();
    let output = place.run(&["--flavor", "vllm"], &["env"]);
    assert_eq!(seen(&output), expected(&[NVTX]));
    assert!(place.session().1.software.is_empty());

    let output = place.run(&["--flavor", "vllm"], &["./python", "script.py"]);
    assert_code(&output, 127);
}

#[test]
fn every_command_is_told_who_records() {
    let place = Workplace::new();
    let output = place.run_sh(&[], "echo $COLONEL_EVALUATOR");
    assert_eq!(stdout(&output), "cupti\n");
}

#[test]
fn a_vllm_script_without_a_window_is_told_how_to_open_one() {
    let place = Workplace::new();
    let (running, session) = waiting(&place, &["--flavor", "vllm"]);
    let mut guest = SyntheticGuest::new(&session, 4711);
    guest.process.command = vec!["VLLM::EngineCore".to_owned()];
    guest.process.windows.clear();
    guest.end(2_000).unwrap();
    place.write("go", "", 0o644);
    let output = running.end();
    assert_code(&output, 0);
    let said = stderr(&output);
    let reason =
        "VLLM::EngineCore (pid 4711) initialised CUDA, but no window opened: cudaProfilerStart was not called\n";
    assert!(said.contains(reason), "{said}");
    assert!(
        said.contains("\n                          with profile_region(llm): llm.generate(...)\n"),
        "{said}"
    );
}

#[test]
fn regions_that_are_switched_off_are_said() {
    let place = Workplace::new();
    for (value, said_so) in [("1", true), ("0", false)] {
        let mut command = place.colonel();
        command.env("COLONEL_DISABLE_PROFILE_REGION", value);
        let output = command
            .args(["run", "--flavor", "vllm", "--", "true"])
            .output()
            .unwrap();
        let said = stderr(&output);
        assert_eq!(
            said.contains("! `COLONEL_DISABLE_PROFILE_REGION=1` is set"),
            said_so,
            "{said}"
        );
    }
}
