//! `colonel compare` as its users see it: words, formats, exit codes, bad input.

#![allow(missing_docs, reason = "a test is its own documentation")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use colonel::schema::columns::TableBuilder as _;
use colonel::schema::manifest::Window;
use colonel::schema::tables::{DevicesBuilder, KernelCounterRow, KernelCountersBuilder, KernelsBuilder};
use colonel::session::synthetic::bottlenecks;
use colonel::session::synthetic::model::{Engine, Model};
use colonel::session::synthetic::{SyntheticGuest, h100, kernel, model_kernels};
use colonel::session::{NewSession, SessionWriter, SessionsDir};

const BEGIN_NS: i64 = 1_795_497_123_000_000_000;
const PID: u32 = 4711;
/// Six of the ten kernels of a layer; no name would be markup without it.
const ATTENTION: &str = "device_kernel";

/// What a session is made of.
#[derive(Clone, Copy)]
struct Recipe {
    steps: u32,
    /// How much longer the attention takes.
    slowdown: f64,
    gpu: &'static str,
    /// Steps of the first window, where there are two.
    first_window: Option<u32>,
}

const USUAL: Recipe = Recipe {
    steps: 40,
    slowdown: 0.0,
    gpu: "NVIDIA H100 80GB HBM3",
    first_window: None,
};

struct Sessions {
    folder: tempfile::TempDir,
}

impl Sessions {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Under a fixed id, with fixed times.
    fn seal(&self, mut writer: SessionWriter, id: &str) -> PathBuf {
        writer.seal(None, &mut |_, _, _| {}).unwrap();
        writer.compact(&mut |_, _, _| {}).unwrap();
        let manifest = writer.manifest_mut();
        manifest.id = id.to_owned();
        manifest.created_ns = BEGIN_NS;
        manifest.ended_ns = Some(BEGIN_NS + 12_400_000_000);
        writer.write().unwrap();
        let path = self.folder.path().join(id);
        fs::rename(writer.path(), &path).unwrap();
        path
    }

    fn writer(&self) -> SessionWriter {
        let new = NewSession {
            command: vec!["python".to_owned(), "decode.py".to_owned()],
            gate: "process".to_owned(),
            ..NewSession::default()
        };
        SessionWriter::create(&SessionsDir::resolve(Some(self.folder.path())).unwrap(), new).unwrap()
    }

    fn decode(&self, id: &str, recipe: Recipe) -> PathBuf {
        let writer = self.writer();
        let mut guest = SyntheticGuest::new(writer.path(), PID);
        let mut devices = DevicesBuilder::default();
        let mut device = h100(PID);
        device.name = recipe.gpu;
        devices.push(device);
        guest.seal(&mut devices).unwrap();
        let model = Model {
            layers: 6,
            engine: Engine::Full,
            foreign: 0,
            lost: 0,
            first_id: 7,
        };
        let launched = model.launch(&vec![(false, 4); recipe.steps as usize]);
        let mut kernels = KernelsBuilder::default();
        for (index, (mut row, launched)) in (0..).zip(model_kernels(PID, &launched, BEGIN_NS).zip(&launched)) {
            let factor = if launched.name.contains(ATTENTION) {
                1.0 + recipe.slowdown
            } else {
                1.0
            };
            // Up to 2 % longer, differently in each session.
            let noise = f64::from((index * 7919 + recipe.steps * 31) % 101) / 5_000.0;
            row.end_ns = row.start_ns + (2_000.0 * factor * (1.0 + noise)) as i64;
            row.window = 1 + u32::from(recipe.first_window.is_some_and(|steps| launched.step >= steps));
            kernels.push(row);
        }
        guest.seal(&mut kernels).unwrap();
        if recipe.first_window.is_some() {
            let template = guest.process.windows[0].clone();
            guest.process.windows = [1, 2]
                .map(|number| Window {
                    number,
                    start_ns: BEGIN_NS + i64::from(number),
                    end_ns: Some(BEGIN_NS + 1 + i64::from(number)),
                    ..template.clone()
                })
                .to_vec();
        }
        guest.end(BEGIN_NS + 1_000_000_000).unwrap();
        self.seal(writer, id)
    }

    /// Exit code, stdout and stderr.
    fn words(&self, args: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_colonel"))
            .arg("compare")
            .args(args)
            .env("COLONEL_SESSIONS_DIR", self.folder.path())
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(self.folder.path().to_str().unwrap(), "SESSIONS")
        };
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

fn pair(slowdown: f64) -> Sessions {
    let sessions = Sessions::new();
    sessions.decode("aaaaaaaa", USUAL);
    sessions.decode(
        "bbbbbbbb",
        Recipe {
            slowdown,
            steps: 50,
            ..USUAL
        },
    );
    sessions
}

/// As ncu leaves it: some launches of a kernel, each by itself.
fn replayed(sessions: &Sessions, id: &str, name: &str, launches: u32, metrics: &[(&str, f64)]) {
    let writer = sessions.writer();
    let mut guest = SyntheticGuest::new(writer.path(), PID);
    let (mut kernels, mut counters) = (KernelsBuilder::default(), KernelCountersBuilder::default());
    for launch in 0..launches {
        kernels.push(kernel(PID, name, BEGIN_NS + 20_000 * i64::from(launch), 9_000));
        for &(metric, value) in metrics {
            counters.push(KernelCounterRow {
                pid: PID,
                correlation_id: Some(launch),
                device_id: 0,
                name,
                short_name: name,
                metric,
                value: Some(value + f64::from(launch % 2)),
                low: None,
                high: None,
                unit: None,
                source: "ncu",
            });
        }
    }
    guest.seal(&mut kernels).unwrap();
    guest.seal(&mut counters).unwrap();
    guest.end(BEGIN_NS + 1_000_000_000).unwrap();
    sessions.seal(writer, id);
}

#[test]
fn live_figures_stand_beside_those_of_ncu() {
    let sessions = Sessions::new();
    let writer = sessions.writer();
    bottlenecks::write(writer.path(), BEGIN_NS).unwrap();
    sessions.seal(writer, "aaaaaaaa");
    let metrics = [
        ("dram__throughput.avg.pct_of_peak_sustained_elapsed", 69.5),
        ("sm__warps_active.avg.pct_of_peak_sustained_elapsed", 40.0),
    ];
    replayed(&sessions, "bbbbbbbb", "gemm_1_2_waves", 10, &metrics);
    let (code, text, _) = sessions.words(&["aaaaaaaa", "bbbbbbbb", "--limit", "1"]);
    assert_eq!(code, 0);
    let (_, counters) = text.split_once("hardware counters\n").unwrap();
    // 81 % over 8.6 us live, and 70 % over 9 us by itself, which are 73 % of 8.6 us.
    insta::assert_snapshot!(counters, @r"
    metric                     A       B  difference  at A's time     mean, A → B  kernel
    dram_throughput  81.0 % ±1.7  70.0 %       -11.0         -8.0  8.62 → 9.00 us  gemm_1_2_waves
    at A's time: B's percentage put to the kernel's duration in A, before A is taken from it; ncu has a kernel's launch in its time
    ");
    let (_, json, _) = sessions.words(&["aaaaaaaa", "bbbbbbbb", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let rows = json["counters"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "warps were not sampled live: {rows:?}");
    assert_eq!(
        (&rows[0]["metric"], &rows[0]["b"]["value"]),
        (&"dram_throughput".into(), &70.0.into())
    );
    let (_, json, _) = sessions.words(&["bbbbbbbb", "aaaaaaaa", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let back = json["counters"][0]["difference"].as_f64().unwrap();
    assert!((back + rows[0]["difference"].as_f64().unwrap()).abs() < 1e-9);
}

#[test]
fn a_slower_kernel_stands_first() {
    let sessions = pair(0.5);
    let (code, text, error) = sessions.words(&["aaaa", "bbbb", "--limit", "3"]);
    assert_eq!((code, error.as_str()), (0, ""));
    insta::assert_snapshot!("compare", text);
    let (_, text, _) = sessions.words(&["aaaa", "bbbb", "--by", "layer", "--limit", "3"]);
    insta::assert_snapshot!("compare_by_layer", text);
    let (_, text, _) = sessions.words(&["aaaa", "bbbb", "--by", "step"]);
    insta::assert_snapshot!("compare_by_step", text);
    let (_, text, _) = sessions.words(&["aaaa", "bbbb", "--format", "md", "--limit", "3"]);
    insta::assert_snapshot!("compare_md", text);
}

#[test]
fn exit_codes_say_whether_it_is_a_regression() {
    let sessions = pair(0.5);
    let judged = |a: &str, b: &str| {
        let (code, _, error) = sessions.words(&[a, b, "--fail-on-regression", "3%"]);
        (code, error)
    };
    let (code, error) = judged("aaaa", "bbbb");
    assert_eq!(
        (code, error.as_str()),
        (1, "colonel: regression: B is slower than A by more than 3 %\n")
    );
    let (code, error) = judged("bbbb", "aaaa");
    assert_eq!((code, error.as_str()), (0, "colonel: no regression of more than 3 %\n"));
    sessions.decode("cccccccc", Recipe { steps: 2, ..USUAL });
    let (code, error) = judged("aaaa", "cccc");
    assert_eq!(code, 3, "{error}");
    assert!(
        error.contains("can't tell whether B is slower by more than 3 %: it takes six steps"),
        "{error}"
    );
    for wrong in ["3", "-3%", "three"] {
        let (code, _, error) = sessions.words(&["aaaa", "bbbb", &format!("--fail-on-regression={wrong}")]);
        assert_eq!(code, 2);
        assert!(
            error.contains("expected a percentage that is not negative, such as `3%`"),
            "{error}"
        );
    }
}

#[test]
fn two_windows_of_one_session_are_compared() {
    let sessions = Sessions::new();
    sessions.decode(
        "aaaaaaaa",
        Recipe {
            first_window: Some(20),
            ..USUAL
        },
    );
    let windows = ["aaaa", "aaaa", "--window-a", "1", "--window-b", "2"];
    let (code, text, error) = sessions.words(&[&windows[..], &["--json"]].concat());
    assert_eq!((code, error.as_str()), (0, ""));
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found["verdict"], "no_difference");
    assert_eq!(found["phases"][0]["a"], 20);
    assert_eq!(found["phases"][0]["b"], 20);
    assert_eq!([0, 1].map(|side| found["sessions"][side]["window"].clone()), ["1", "2"]);
    let (code, _, error) = sessions.words(&["aaaa", "aaaa"]);
    assert_eq!(code, 1);
    assert!(
        error.contains("A and B are both session `aaaaaaaa`: name another session, or two windows"),
        "{error}"
    );
    let (code, _, _) = sessions.words(&["aaaa", "aaaa", "--window-a", "2", "--window-b", "2"]);
    assert_eq!(code, 1, "the same window twice");
    let (code, _, error) = sessions.words(&["aaaa", "aaaa", "--window-a", "1", "--window-b", "warm"]);
    assert_eq!(code, 1);
    assert!(
        error.contains("has no window `warm`") && error.contains("there are 1, 2"),
        "{error}"
    );
}

#[test]
fn the_page_has_its_parts_and_names_are_no_markup() {
    let sessions = pair(0.5);
    let (code, text, error) = sessions.words(&["aaaa", "bbbb", "--format", "html"]);
    assert_eq!(
        (code, text.as_str(), error.as_str()),
        (0, "colonel-aaaaaaaa-bbbbbbbb.html\n", "")
    );
    let path = sessions.folder.path().join("colonel-aaaaaaaa-bbbbbbbb.html");
    let page = fs::read_to_string(&path).unwrap();
    for id in ["in-all", "charts", "difference", "both", "steps", "rows"] {
        assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
    }
    assert!(page.contains("<h1>B against A: slower</h1>"));
    assert!(page.contains("splitKreduce_kernel&lt;32") && !page.contains("splitKreduce_kernel<32, 16>\""));
    let (code, _, error) = sessions.words(&["aaaa", "bbbb", "--format", "html"]);
    assert_eq!(code, 1);
    assert!(
        error.contains("exists and is not overwritten without `--force`"),
        "{error}"
    );
    let (code, _, error) = sessions.words(&["aaaa", "bbbb", "-o", "x.html"]);
    assert_eq!(code, 1);
    assert!(error.contains("only `--format html` writes a file"), "{error}");
}

#[test]
fn sessions_that_have_little_in_common_are_compared_with_care() {
    let sessions = Sessions::new();
    sessions.decode("aaaaaaaa", USUAL);
    sessions.seal(sessions.writer(), "eeeeeeee");
    sessions.seal(sessions.writer(), "eeeeeee2");
    let (code, text, _) = sessions.words(&["eeeeeeee", "eeeeeee2", "--fail-on-regression=3%"]);
    assert!(code == 3 && text.contains("neither has a kernel"), "{text}");
    let (code, text, _) = sessions.words(&["aaaa", "eeeeeeee", "--fail-on-regression=3%"]);
    assert!(
        code == 3 && text.contains("only in A") && text.contains("can't tell"),
        "{text}"
    );

    sessions.decode(
        "dddddddd",
        Recipe {
            gpu: "NVIDIA L4",
            ..USUAL
        },
    );
    let (_, text, _) = sessions.words(&["aaaa", "dddd"]);
    assert!(
        text.contains("!  the GPUs differ: NVIDIA H100 80GB HBM3 in A, NVIDIA L4 in B"),
        "{text}"
    );

    // Without layers there are no steps: launches then, and blocks of them.
    let writer = sessions.writer();
    let mut guest = SyntheticGuest::new(writer.path(), PID + 1);
    let mut kernels = KernelsBuilder::default();
    for index in 0..2_000_i64 {
        kernels.push(kernel(PID + 1, "spin", BEGIN_NS + 5_000 * index, 2_000 + index % 7));
    }
    kernels.push(kernel(PID + 1, "once", BEGIN_NS + 5_000 * 2_000, 1_000));
    guest.seal(&mut kernels).unwrap();
    guest.end(BEGIN_NS + 1_000_000_000).unwrap();
    let flat = sessions.seal(writer, "ffffffff");
    let (code, text, error) = sessions.words(&["ffff", "aaaa", "--by", "layer"]);
    assert_eq!((code, text.as_str()), (1, ""));
    assert!(error.contains("need steps in both sessions"), "{error}");
    // A process of its own that has no steps, beside one that has.
    let mixed = sessions.decode("abababab", USUAL);
    let beside = fs::read_dir(flat.join("kernels")).unwrap().next().unwrap().unwrap();
    copy(&beside.path(), &mixed.join("kernels/4712-1"));
    let (_, text, _) = sessions.words(&["aaaa", "abab"]);
    assert!(text.contains("!  2001 launches of B belong to no step"), "{text}");
    copy(&flat, &sessions.folder.path().join("fffffff2"));
    let (_, text, _) = sessions.words(&["ffffffff", "fffffff2"]);
    assert!(
        text.contains("one session has no steps, so times are means of launches"),
        "{text}"
    );
    let line = |name: &str| text.lines().find(|line| line.ends_with(name)).unwrap().to_owned();
    assert!(line("spin").contains("no difference"), "{text}");
    assert!(line("once").contains("can't tell"), "it is in one block only: {text}");
}

fn copy(from: &PathBuf, to: &PathBuf) {
    assert!(
        Command::new("cp")
            .arg("-r")
            .args([from, to])
            .status()
            .unwrap()
            .success()
    );
}
