//! `colonel list`, `show` and `rm` as their users see them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use colonel::schema::columns::TableBuilder as _;
use colonel::schema::manifest::{Exit, Loss, Problem, Window};
use colonel::schema::tables::{DevicesBuilder, KernelsBuilder, MemcpysBuilder, MemsetsBuilder};
use colonel::session::synthetic::{SyntheticGuest, h100, kernel, memcpy, memset};
use colonel::session::{NewSession, Session, SessionWriter, SessionsDir};

/// 2026-11-24 05:12:03 UTC.
const CREATED_NS: i64 = 1_795_497_123_000_000_000;
/// What `list` shows as 1.00 MB.
const SIZE: u64 = 1_000_000;

struct Sessions {
    folder: tempfile::TempDir,
}

impl Sessions {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn dir(&self) -> SessionsDir {
        SessionsDir::resolve(Some(self.folder.path())).unwrap()
    }

    fn writer(&self, command: &[&str]) -> SessionWriter {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        let new = NewSession {
            command,
            gate: "process".to_owned(),
            ..NewSession::default()
        };
        SessionWriter::create(&self.dir(), new).unwrap()
    }

    /// Seals under a fixed id, with fixed times and size.
    fn seal(&self, mut writer: SessionWriter, id: &str, age: i64, compact: bool) -> PathBuf {
        writer
            .seal(
                Some(Exit {
                    code: Some(0),
                    signal: None,
                }),
                &mut |_, _, _| {},
            )
            .unwrap();
        if compact {
            writer.compact(&mut |_, _, _| {}).unwrap();
        }
        let manifest = writer.manifest_mut();
        manifest.id = id.to_owned();
        manifest.created_ns = CREATED_NS - age;
        manifest.ended_ns = Some(manifest.created_ns + 12_400_000_000);
        writer.write().unwrap();
        let path = self.folder.path().join(id);
        fs::rename(writer.path(), &path).unwrap();
        let size = Session::load(&path).unwrap().disk_bytes();
        File::create(path.join("notes")).unwrap().set_len(SIZE - size).unwrap();
        path
    }

    /// A loop of two processes that lost something.
    fn decode(&self, id: &str, compact: bool) -> PathBuf {
        let writer = self.writer(&["python", "decode.py", "--steps", "100"]);
        for pid in [4711, 4712] {
            write_guest(writer.path(), pid);
        }
        self.seal(writer, id, 0, compact)
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_colonel"));
        command
            .args(args)
            .env("COLONEL_SESSIONS_DIR", self.folder.path())
            .current_dir(self.folder.path());
        command.output().unwrap()
    }

    /// Exit code, stdout and stderr, without what differs from run to run.
    fn words(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = format!(
            "exit {}\n--- stdout\n{}--- stderr\n{}",
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap()
        );
        text.replace(self.folder.path().to_str().unwrap(), "SESSIONS")
    }
}

fn write_guest(session: &Path, pid: u32) {
    let mut guest = SyntheticGuest::new(session, pid);
    let (mut kernels, mut copies, mut fills) = (
        KernelsBuilder::default(),
        MemcpysBuilder::default(),
        MemsetsBuilder::default(),
    );
    let mut devices = DevicesBuilder::default();
    devices.push(h100(pid));
    for step in 0..100_i64 {
        let start = CREATED_NS + step * 20_000_000;
        kernels.push(kernel(
            pid,
            "void cutlass::device_kernel<flash::FlashAttnFwd<128, cutlass::bfloat16_t>>(Params)",
            start,
            8_100_000,
        ));
        let mut gemm = kernel(
            pid,
            "nvjet_sm90_tst_128x8_64x12_2x1_v_bz_TNT",
            start + 8_100_500,
            54_100 + step,
        );
        (gemm.grid_x, gemm.grid_y, gemm.block_y) = (16, 8 + i32::try_from(step % 3).unwrap(), 3);
        kernels.push(gemm);
        kernels.push(kernel(pid, "weird\u{7}\nname", start + 9_000_000, 812));
        copies.push(memcpy(pid, "HtoD", 1_048_576, start + 9_500_000, 21_000));
        fills.push(memset(pid, 65_536, start + 9_600_000, 900));
    }
    guest.seal(&mut devices).unwrap();
    guest.seal(&mut kernels).unwrap();
    guest.seal(&mut copies).unwrap();
    guest.seal(&mut fills).unwrap();
    guest.process.windows[0].start_ns = CREATED_NS - 1_000_000_000;
    if pid == 4712 {
        guest.process.losses.push(Loss {
            pid: None,
            kind: "kernels".to_owned(),
            reason: "dropped_by_cupti".to_owned(),
            count: Some(1_234),
            first_ns: CREATED_NS,
            last_ns: CREATED_NS,
        });
        guest.process.problems.push(Problem {
            code: "other_subscriber".to_owned(),
            message: "another CUPTI client was there from 05:12:04 on".to_owned(),
            time_ns: CREATED_NS,
        });
    }
    guest.end(CREATED_NS + 2_000_000_000).unwrap();
}

#[test]
fn show_prints_losses_kernels_copies_and_idle_time() {
    let sessions = Sessions::new();
    sessions.decode("5e27fc0e", true);
    insta::assert_snapshot!("show", sessions.words(&["show"]));
    insta::assert_snapshot!("show_limit", sessions.words(&["show", "5e", "--limit", "1"]));
}

#[test]
fn show_is_the_same_before_compaction() {
    let sessions = Sessions::new();
    sessions.decode("5e27fc0e", false);
    let before = sessions.words(&["show"]);
    fs::remove_dir_all(sessions.folder.path().join("5e27fc0e")).unwrap();
    sessions.decode("5e27fc0e", true);
    assert_eq!(before, sessions.words(&["show"]));
}

#[test]
fn show_json_has_everything_exact() {
    let sessions = Sessions::new();
    let path = sessions.decode("5e27fc0e", true);
    let output = sessions.run(&["show", "--json"]);
    let mut json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["path"], path.to_str().unwrap());
    assert!(json["host"]["cpus"].as_u64().unwrap() > 0);
    json["path"] = "PATH".into();
    json["host"] = "HOST".into();
    insta::assert_snapshot!("show_json", serde_json::to_string_pretty(&json).unwrap());
    let output = sessions.run(&["show", "--json", "--limit", "2"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (json["kernels"].as_array().unwrap().len(), json["kernel_count"].as_u64()),
        (2, Some(600))
    );
}

/// A region of 30 steps with one of 10 in it, then another of 5; a second process has one of another name.
fn regions(sessions: &Sessions, id: &str) {
    let writer = sessions.writer(&["python", "regions.py"]);
    let region = |number, start: i64, end: i64, name: &str| Window {
        number,
        start_ns: CREATED_NS + start * 20_000_000,
        end_ns: Some(CREATED_NS + end * 20_000_000),
        trigger: "region".to_owned(),
        name: Some(name.to_owned()),
        sealed_ns: None,
        sampled: false,
    };
    for pid in [4711, 4712] {
        let mut guest = SyntheticGuest::new(writer.path(), pid);
        guest.process.windows = match pid {
            4711 => vec![
                region(1, 0, 30, "outer"),
                region(2, 10, 20, "bs8"),
                region(3, 80, 85, "bs8"),
            ],
            _ => vec![region(1, 40, 50, "bs1")],
        };
        let mut kernels = KernelsBuilder::default();
        let mut copies = MemcpysBuilder::default();
        let mut devices = DevicesBuilder::default();
        devices.push(h100(pid));
        for step in 0..100_i64 {
            let newest = guest.process.windows.iter().rev().find(|window| {
                let start = CREATED_NS + step * 20_000_000;
                window.start_ns <= start && start < window.end_ns.unwrap()
            });
            let Some(window) = newest.map(|window| window.number) else {
                continue;
            };
            let mut step_kernel = kernel(pid, "step", CREATED_NS + step * 20_000_000, 10_000_000);
            step_kernel.window = window;
            kernels.push(step_kernel);
            let mut copy = memcpy(
                pid,
                "HtoD",
                1_000_000,
                CREATED_NS + step * 20_000_000 + 10_000_000,
                5_000_000,
            );
            copy.window = window;
            copies.push(copy);
        }
        guest.seal(&mut devices).unwrap();
        guest.seal(&mut kernels).unwrap();
        guest.seal(&mut copies).unwrap();
        guest.end(CREATED_NS + 2_000_000_000).unwrap();
    }
    sessions.seal(writer, id, 0, true);
}

#[test]
fn show_lists_windows_and_counts_no_time_between_them() {
    let sessions = Sessions::new();
    regions(&sessions, "5e27fc0e");
    insta::assert_snapshot!("show_windows", sessions.words(&["show"]));
}

#[test]
fn show_of_one_window_has_those_within_it_and_no_other() {
    let sessions = Sessions::new();
    regions(&sessions, "5e27fc0e");
    insta::assert_snapshot!("show_window_by_name", sessions.words(&["show", "--window", "outer"]));
    let shown = |window: &str| -> serde_json::Value {
        serde_json::from_slice(&sessions.run(&["show", "--json", "--window", window]).stdout).unwrap()
    };
    let numbers = |json: &serde_json::Value| -> Vec<(u64, u64)> {
        let windows = json["windows"].as_array().unwrap().iter();
        windows
            .map(|window| (window["pid"].as_u64().unwrap(), window["number"].as_u64().unwrap()))
            .collect()
    };
    let by_name = shown("bs8");
    assert_eq!(
        (&by_name["kernel_count"], &by_name["window"]),
        (&15.into(), &"bs8".into())
    );
    assert_eq!(numbers(&by_name), [(4711, 2), (4711, 3)]);
    assert_eq!(by_name["memcpys"]["HtoD"]["count"], 15);
    assert_eq!(by_name["devices"][0]["span_ns"], 15 * 20_000_000);
    assert_eq!(by_name["devices"][0]["idle_ns"], 15 * 5_000_000);
    let by_number = shown("1");
    assert_eq!(by_number["kernel_count"], 40, "of each process");
    assert_eq!(numbers(&by_number), [(4711, 1), (4711, 2), (4712, 1)]);
    let whole: serde_json::Value = serde_json::from_slice(&sessions.run(&["show", "--json"]).stdout).unwrap();
    assert_eq!(
        (&whole["kernel_count"], &whole["window"]),
        (&45.into(), &serde_json::Value::Null)
    );
}

#[test]
fn a_window_that_is_not_there_is_a_no() {
    let sessions = Sessions::new();
    regions(&sessions, "5e27fc0e");
    for window in ["bs16", "7", "-1", ""] {
        let option = format!("--window={window}");
        let words = sessions.words(&["show", &option]);
        let expected = format!(
            "exit 1\n--- stdout\n--- stderr\ncolonel: session `5e27fc0e` has no window `{window}`; there are 1 (`bs1`), 1 \
             (`outer`), 2 (`bs8`), 3 (`bs8`)\n"
        );
        assert_eq!(words, expected);
    }
    sessions.seal(sessions.writer(&["true"]), "81c0a4f2", -1, false);
    let words = sessions.words(&["show", "--window", "1"]);
    assert!(
        words.contains("session `81c0a4f2` has no window `1`; it has none\n"),
        "{words}"
    );
}

#[test]
fn a_session_without_kernels_says_why() {
    let sessions = Sessions::new();
    let writer = sessions.writer(&["./no_cuda"]);
    sessions.seal(writer, "81c0a4f2", 0, true);
    insta::assert_snapshot!("show_no_kernels", sessions.words(&["show"]));
    let json: serde_json::Value = serde_json::from_slice(&sessions.run(&["show", "--json"]).stdout).unwrap();
    assert_eq!(json["why_no_kernels"], "no process of this command initialised CUDA");
}

#[test]
fn list_shows_every_session_also_those_that_do_not_open() {
    let sessions = Sessions::new();
    sessions.decode("5e27fc0e", true);
    let mut named = sessions.writer(&["./no_cuda"]);
    named.manifest_mut().name = Some("baseline".to_owned());
    sessions.seal(named, "81c0a4f2", 60_000_000_000, false);
    let newer = sessions
        .seal(sessions.writer(&["./later"]), "deadbeef", 0, false)
        .join("session.json");
    fs::write(
        &newer,
        r#"{"format": {"major": 9, "minor": 1}, "id": "deadbeef", "colonel": "4.0.0"}"#,
    )
    .unwrap();
    insta::assert_snapshot!("list", sessions.words(&["list"]));

    let json: serde_json::Value = serde_json::from_slice(&sessions.run(&["list", "--json"]).stdout).unwrap();
    let listed = json["sessions"].as_array().unwrap();
    let ids: Vec<_> = listed.iter().map(|session| session["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["deadbeef", "81c0a4f2", "5e27fc0e"]);
    assert!(listed[0]["error"].as_str().unwrap().contains("colonel 4.0.0"));
    assert_eq!(listed[2]["rows"]["kernels"], 600);
    assert_eq!(
        (&listed[2]["lost"], &listed[2]["state"]),
        (&1234.into(), &"compacted".into())
    );
}

#[test]
fn an_empty_folder_is_an_empty_list_and_no_latest() {
    let sessions = Sessions::new();
    insta::assert_snapshot!("list_empty", sessions.words(&["list"]));
    insta::assert_snapshot!("show_empty", sessions.words(&["show"]));
    let json: serde_json::Value = serde_json::from_slice(&sessions.run(&["list", "--json"]).stdout).unwrap();
    assert!(json["sessions"].as_array().unwrap().is_empty());
}

#[test]
fn ids_that_do_not_name_one_session_are_a_no() {
    let sessions = Sessions::new();
    for (id, age) in [("5e27fc0e", 2), ("5e270000", 1)] {
        sessions.seal(sessions.writer(&["true"]), id, age, false);
    }
    insta::assert_snapshot!("show_ambiguous", sessions.words(&["show", "5e27"]));
    insta::assert_snapshot!("show_unknown", sessions.words(&["show", "77"]));
    assert_eq!(sessions.run(&["show", "--limit", "few"]).status.code(), Some(2));
    assert_eq!(sessions.run(&["rm"]).status.code(), Some(2));
}

#[test]
fn rm_removes_what_it_can() {
    let sessions = Sessions::new();
    let gone = sessions.seal(sessions.writer(&["true"]), "5e27fc0e", 2, false);
    let kept = sessions.seal(sessions.writer(&["true"]), "5e270000", 1, false);
    insta::assert_snapshot!("rm", sessions.words(&["rm", "77", "5e27f"]));
    assert!(!gone.exists() && kept.exists());
}

#[test]
fn a_running_session_needs_force() {
    let sessions = Sessions::new();
    let running = sessions.writer(&["sleep", "60"]);
    let words = sessions.words(&["rm", "latest"]);
    assert!(
        words.starts_with("exit 1\n") && words.contains("is still running (pid "),
        "{words}"
    );
    assert!(running.path().exists());
    let words = sessions.words(&["show"]);
    assert!(
        words.contains("still running") && words.contains("no kernels: none so far"),
        "{words}"
    );
    assert_eq!(sessions.run(&["rm", "--force", "latest"]).status.code(), Some(0));
    assert!(!running.path().exists());
}

#[test]
fn a_reader_that_left_is_no_failure() {
    let sessions = Sessions::new();
    sessions.decode("5e27fc0e", false);
    for args in [&["show"][..], &["show", "--json"], &["list"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_colonel"));
        command.args(args).env("COLONEL_SESSIONS_DIR", sessions.folder.path());
        let status = command.stdout(writer).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(0), "{args:?}");
    }
}

#[test]
fn the_option_wins_over_the_variable() {
    let (sessions, other) = (Sessions::new(), Sessions::new());
    sessions.seal(sessions.writer(&["true"]), "5e27fc0e", 0, false);
    let dir = sessions.folder.path().to_str().unwrap();
    let text = other.words(&["list", "--sessions-dir", dir]);
    assert!(
        text.contains("5e27fc0e") && text.contains(&format!("colonel show --sessions-dir {dir}")),
        "{text}"
    );
}
