//! What a run leaves: the session, its summary, and the words at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use colonel::schema::columns::TableBuilder;
use colonel::schema::manifest::{ProcessState, SessionState};
use colonel::schema::tables::{DevicesBuilder, KernelsBuilder};
use colonel::session::synthetic::{SyntheticGuest, h100, kernel};
use colonel::session::{own_id, start_ticks};

use crate::support::{Running, Workplace, assert_code, stderr, wait_until};

/// A command that says where its session is, and ends when told.
pub const WAITING: &str =
    "echo \"$COLONEL_SESSION\" > path.tmp; mv path.tmp path; while [ ! -e go ]; do sleep 0.02; done";

/// A run of [`WAITING`], and its session folder.
pub fn waiting(place: &Workplace, options: &[&str]) -> (Running, PathBuf) {
    let running = place.start(options, &["sh", "-c", WAITING]);
    let path = place.path().join("path");
    wait_until("the command runs", || path.exists());
    let session = fs::read_to_string(path).unwrap().trim_end().into();
    (running, session)
}

fn record(session: &Path, kernels: i64) -> SyntheticGuest {
    let mut guest = SyntheticGuest::new(session, 4711);
    let mut rows = KernelsBuilder::default();
    for start in 0..kernels {
        rows.push(kernel(4711, "void decode<float>(float*)", 1_000 + start * 100, 50));
    }
    guest.seal(&mut rows).unwrap();
    let mut devices = DevicesBuilder::default();
    devices.push(h100(4711));
    guest.seal(&mut devices).unwrap();
    guest
}

#[test]
fn a_recorded_run_is_summed_up() {
    let place = Workplace::new();
    let (running, session) = waiting(&place, &["--name", "first", "--json", "summary.json"]);
    let mut guest = record(&session, 1_500);
    guest.process.windows[0].start_ns = 1_000;
    guest.end(2_000_001_000).unwrap();
    place.write("go", "", 0o644);
    let output = running.end();
    assert_code(&output, 0);
    let id = session.file_name().unwrap().to_str().unwrap();
    let said = stderr(&output);
    let lines: Vec<&str> = said.lines().collect();
    let expected =
        format!("colonel: session {id} (first)  1 window, 2.00 s  python loop.py (pid 4711), H100 80GB HBM3");
    assert_eq!(lines[0], expected);
    assert!(lines[1].starts_with("         1,500 kernels  0 lost  "), "{said}");
    let pattern = format!("pl.scan_parquet(\".colonel/sessions/{id}/kernels/**/*.parquet\")");
    assert_eq!(lines[2], format!("         next: colonel show   {pattern}"));
    assert_eq!(lines[3], "colonel: what costs time (`colonel analyze` says more)");
    assert!(lines[4..].iter().all(|line| line.starts_with("         ")), "{said}");

    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path().join("summary.json")).unwrap()).unwrap();
    assert_eq!(json["session"], id);
    assert_eq!(json["rows"]["kernels"], 1_500);
    assert_eq!(json["processes"][0]["gpus"][0], "H100 80GB HBM3");
    assert_eq!(json["exit"]["code"], 0);
    assert_eq!(json["why_no_kernels"], serde_json::Value::Null);
}

#[test]
fn tables_are_compacted_unless_they_are_to_be_left() {
    for (options, expected) in [
        (&[][..], SessionState::Compacted),
        (&["--no-analyze"], SessionState::Sealed),
    ] {
        let place = Workplace::new();
        let (running, session) = waiting(&place, options);
        record(&session, 10).end(2_000).unwrap();
        place.write("go", "", 0o644);
        assert_code(&running.end(), 0);
        let (_, manifest) = place.session();
        assert_eq!(manifest.state, expected);
        assert_eq!(manifest.rows["kernels"], 10);
    }
}

#[test]
fn the_session_exists_while_the_command_runs() {
    let place = Workplace::new();
    let output = place.run_sh(
        &["--name", "x"],
        "grep -c '\"state\": \"running\"' \"$COLONEL_SESSION/session.json\"",
    );
    assert_code(&output, 0);
    let (_, manifest) = place.session();
    assert_eq!(manifest.name.as_deref(), Some("x"));
    assert!(manifest.state != SessionState::Running);
    assert!(manifest.ended_ns.unwrap() >= manifest.created_ns);
}

#[test]
fn a_session_removed_meanwhile_is_said_and_the_code_stays_the_commands() {
    let place = Workplace::new();
    let output = place.run_sh(&["--json", "summary.json"], "rm -r \"$COLONEL_SESSION\"; exit 3");
    assert_code(&output, 3);
    assert!(
        stderr(&output).contains("was removed while the session ran"),
        "{}",
        stderr(&output)
    );
    assert!(!place.path().join("summary.json").exists(), "no empty file is left");
}

#[test]
fn a_summary_that_can_not_be_written_is_told_before_the_command_starts() {
    let place = Workplace::new();
    let output = place.run(&["--json", "missing/summary.json"], &["touch", "started"]);
    assert_code(&output, 125);
    assert!(
        stderr(&output).contains("`missing/summary.json` given with `--json`"),
        "{}",
        stderr(&output)
    );
    assert!(!place.path().join("started").exists());
}

#[test]
fn a_process_that_outlives_the_command_is_waited_for_and_then_named() {
    let place = Workplace::new();
    let (running, session) = waiting(&place, &[]);
    // This test plays the process that outlives the command.
    let own = own_id().unwrap();
    let mut guest = SyntheticGuest::new(&session, own.pid);
    guest.process.start_ticks = own.start_ticks;
    guest.write_process().unwrap();
    let started = Instant::now();
    place.write("go", "", 0o644);
    let output = running.end();
    assert!(started.elapsed() >= Duration::from_secs(2), "it was not waited for");
    assert!(
        stderr(&output).starts_with("colonel: waiting for processes that outlive the command …\n"),
        "said once"
    );
    assert_code(&output, 0);
    assert!(
        stderr(&output).contains(&format!("{} outlived the command and still runs", own.pid)),
        "{}",
        stderr(&output)
    );
    let (_, manifest) = place.session();
    assert_eq!(
        manifest.state,
        SessionState::Sealed,
        "tables that still grow are not compacted"
    );
}

#[test]
fn a_process_that_ends_in_the_meantime_is_not_named() {
    let place = Workplace::new();
    let (running, session) = waiting(&place, &[]);
    let own = own_id().unwrap();
    let mut guest = SyntheticGuest::new(&session, own.pid);
    guest.process.start_ticks = own.start_ticks;
    guest.write_process().unwrap();
    place.write("go", "", 0o644);
    std::thread::sleep(Duration::from_millis(300));
    guest.end(2_000).unwrap();
    let output = running.end();
    assert_code(&output, 0);
    assert!(!stderr(&output).contains("outlived"), "{}", stderr(&output));
    assert_eq!(place.session().1.processes[0].state, ProcessState::Ended);
}

#[test]
fn a_background_process_without_cuda_is_not_waited_for() {
    let place = Workplace::new();
    let started = Instant::now();
    let output = place.run_sh(&[], "sleep 60 > /dev/null 2>&1 & echo $! > pid");
    assert_code(&output, 0);
    assert!(started.elapsed() < Duration::from_secs(2));
    let pid: u32 = fs::read_to_string(place.path().join("pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(start_ticks(pid).is_some(), "it is left alone");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
}
