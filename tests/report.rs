//! `colonel analyze` and `colonel report` as their users see them: findings in words, the page's structure, and bad input.

#![allow(missing_docs, reason = "a test is its own documentation")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use colonel::schema::columns::TableBuilder as _;
use colonel::schema::manifest::Loss;
use colonel::schema::tables::KernelsBuilder;
use colonel::session::synthetic::{SyntheticGuest, bottlenecks, kernel};
use colonel::session::{NewSession, SessionWriter, SessionsDir};

const BEGIN_NS: i64 = 1_795_497_123_000_000_000;

struct Sessions {
    folder: tempfile::TempDir,
}

impl Sessions {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Writes a session by what is given its folder, with an id and times that stay.
    fn make(&self, end: End, write: impl Fn(&Path)) -> PathBuf {
        let new = NewSession {
            command: vec!["python".to_owned(), "</pre><script>alert(1)</script>.py".to_owned()],
            gate: "process".to_owned(),
            ..NewSession::default()
        };
        let dir = SessionsDir::resolve(Some(self.folder.path())).unwrap();
        let mut writer = SessionWriter::create(&dir, new).unwrap();
        write(writer.path());
        if end != End::Killed {
            writer.seal(None, &mut |_, _, _| {}).unwrap();
        }
        if end == End::Compacted {
            writer.compact(&mut |_, _, _| {}).unwrap();
        }
        let manifest = writer.manifest_mut();
        manifest.id = "5e27fc0e".to_owned();
        manifest.created_ns = BEGIN_NS;
        if end == End::Killed {
            // A process that is no more.
            manifest.launcher = manifest
                .launcher
                .map(|id| colonel::schema::manifest::ProcessId { start_ticks: 1, ..id });
        } else {
            manifest.ended_ns = Some(BEGIN_NS + 12_400_000_000);
        }
        writer.write().unwrap();
        let path = self.folder.path().join("5e27fc0e");
        fs::rename(writer.path(), &path).unwrap();
        path
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_colonel"))
            .args(args)
            .env("COLONEL_SESSIONS_DIR", self.folder.path())
            .env_remove("COLONEL_LLM_API_KEY")
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    /// Exit code, stdout and stderr.
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

    /// The page without what is the same in each: styles and scripts.
    fn page(&self) -> String {
        let output = self.run(&["report", "-o", "page.html", "--force"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read_to_string(self.folder.path().join("page.html")).unwrap()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Compacted,
    Sealed,
    Killed,
}

fn bottlenecks_session(sessions: &Sessions) {
    sessions.make(End::Compacted, |path| bottlenecks::write(path, BEGIN_NS).unwrap());
}

/// Text of the element that begins so, up to its end tag.
fn without_elements(page: &str, begin: &str, end: &str) -> String {
    let mut text = String::new();
    let mut rest = page;
    while let Some((before, after)) = rest.split_once(begin) {
        let (_, after) = after.split_once(end).unwrap();
        text += before;
        rest = after;
    }
    text + rest
}

fn body(page: &str) -> String {
    let text = without_elements(page, "<style>", "</style>");
    without_elements(&text, "<script", "</script>")
}

/// What the page gives its script.
fn data(page: &str) -> serde_json::Value {
    let (_, data) = page.split_once("type=\"application/json\">").unwrap();
    serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn findings_in_words() {
    let sessions = Sessions::new();
    bottlenecks_session(&sessions);
    insta::assert_snapshot!("analyze", sessions.words(&["analyze"]));
    let text = sessions.words(&["analyze", "--format", "md"]);
    assert!(text.contains("# Bottlenecks of session 5e27fc0e"), "{text}");
    assert_eq!(
        text.matches("```sql").count(),
        16,
        "14 rules, two of them for both ranks: {text}"
    );
}

#[test]
fn counters_by_window_kernel_and_layer() {
    let sessions = Sessions::new();
    bottlenecks_session(&sessions);
    insta::assert_snapshot!("show_counters", sessions.words(&["show", "--counters"]));
}

#[test]
fn the_page_has_its_parts_and_foreign_text_is_no_markup() {
    let sessions = Sessions::new();
    bottlenecks_session(&sessions);
    let page = sessions.page();
    for id in [
        "findings",
        "timeline",
        "kernels",
        "layers0",
        "steps",
        "streams",
        "waits",
        "durations",
        "waves",
        "losses",
        "devices",
        "speed0",
        "roofline0",
        "counters0",
    ] {
        assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
    }
    let text = body(&page);
    assert!(text.contains("&lt;script&gt;alert(1)"), "{text}");
    assert!(
        !page.contains("<script>alert(1)") && !page.contains("</script><b>step"),
        "a name ends an element"
    );
    assert!(
        !text.contains("src=") && !text.contains("href="),
        "the page loads something: {text}"
    );
    assert_eq!(text.matches("class=\"finding ").count(), 16);
    let data = data(&page);
    let lanes: Vec<_> = data["timeline"]["lanes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lane| lane["label"].as_str().unwrap())
        .collect();
    assert_eq!(
        lanes[..8],
        [
            "NVTX 0, thread 100, pid 100",
            "NVTX 1, thread 100, pid 100",
            "NVTX 2, thread 100, pid 100",
            "steps, pid 100",
            "layers, pid 100",
            "stream 7, pid 100",
            "stream 13, pid 100",
            "copies, pid 100"
        ]
    );
    let spans: Vec<_> = data["timeline"]["lanes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lane| lane["spans"].as_u64().unwrap())
        .collect();
    assert_eq!(
        spans[3..7],
        [16, 96, 16 * 26, 1],
        "steps, layers, kernels of both streams"
    );
    assert!(page.len() < 1_500_000, "{} bytes", page.len());
}

#[test]
fn the_page_has_the_figures_that_show_has() {
    let sessions = Sessions::new();
    bottlenecks_session(&sessions);
    let page = sessions.page();
    let (_, section) = body(&page)
        .split_once("id=\"speed0\"")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let (section, _) = section.split_once("</section>").unwrap();
    let cells = |row: &str| -> Vec<String> {
        let cell = |part: &str| {
            part.split_once('>')
                .unwrap()
                .1
                .split_once("</td>")
                .map(|(text, _)| text.to_owned())
        };
        row.split("<td").skip(1).filter_map(cell).collect()
    };
    let rows: Vec<String> = section
        .split("<tr>")
        .map(|row| cells(row).join(" "))
        .filter(|row| !row.is_empty())
        .collect();
    let shown = sessions.words(&["show", "--counters"]);
    let shown: Vec<String> = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let figures = |row: &str| row.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(rows.len(), 7 + 3, "kernels and layers: {rows:?}");
    for row in &rows {
        assert!(shown.contains(&figures(row)), "{row} is not in {shown:#?}");
    }

    let json = sessions.run(&["show", "--counters", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let kernels = json["speed_of_light"][0]["kernels"].as_array().unwrap();
    let placed: Vec<_> = kernels.iter().filter(|kernel| !kernel["roofline"].is_null()).collect();
    let charts = &data(&page)["charts"];
    let points = charts["roofline0"]["series"][0]["data"].as_array().unwrap();
    assert_eq!((kernels.len(), placed.len(), points.len()), (7, 5, 5));
    for (kernel, point) in placed.iter().zip(points) {
        assert_eq!(
            (&kernel["roofline"]["memory_pct"], &kernel["roofline"]["compute_pct"]),
            (&point[0], &point[1])
        );
        assert_eq!(kernel["share"], point[2]);
        assert!(kernel["name"].as_str().unwrap().starts_with(point[3].as_str().unwrap()));
    }
    assert!(
        section.contains("Left out: 2 kernels whose") && section.contains("be told, 1.5 % of the time"),
        "{section}"
    );

    // Each window's mean, which the lines have by stretches of the same length.
    for (series, metric) in charts["counters0"]["series"]
        .as_array()
        .unwrap()
        .iter()
        .zip(json["metrics"].as_array().unwrap())
    {
        let points = series["data"].as_array().unwrap();
        let values: Vec<f64> = points.iter().filter_map(|point| point[1].as_f64()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        assert!((mean - metric["mean"].as_f64().unwrap()).abs() < 0.1, "{mean} {metric}");
    }
}

#[test]
fn without_counters_there_is_no_speed_of_light() {
    let sessions = Sessions::new();
    let session = concat!(env!("CARGO_MANIFEST_DIR"), "/demos/sessions/bcf20ce5");
    sessions.words(&["report", session, "-o", "page.html"]);
    sessions.words(&["report", session, "--format", "md", "-o", "md"]);
    let page = fs::read_to_string(sessions.folder.path().join("page.html")).unwrap();
    let summary = fs::read_to_string(sessions.folder.path().join("md/summary.md")).unwrap();
    assert!(
        page.contains("id=\"kernel-table\"") && summary.contains("kernels of"),
        "{summary}"
    );
    for text in [&body(&page), &summary] {
        assert!(!text.contains("Speed of light") && !text.contains("Roofline"), "{text}");
    }
    let charts = data(&page)["charts"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect::<Vec<_>>();
    assert!(
        !charts
            .iter()
            .any(|id| id.starts_with("roofline") || id.starts_with("counters")),
        "{charts:?}"
    );
}

#[test]
fn markdown_is_two_files() {
    let sessions = Sessions::new();
    bottlenecks_session(&sessions);
    let text = sessions.words(&["report", "--format", "md", "-o", "out"]);
    assert_eq!(
        text,
        "exit 0\n--- stdout\nout/summary.md\nout/bottlenecks.md\n--- stderr\n"
    );
    let summary = fs::read_to_string(sessions.folder.path().join("out/summary.md")).unwrap();
    insta::assert_snapshot!("report_summary_md", summary);
    let text = sessions.words(&["report", "--format", "text"]);
    assert!(
        text.contains("launch_bound") && text.contains("gemm_1_2_waves"),
        "{text}"
    );
}

#[test]
fn a_file_that_exists_is_kept() {
    let sessions = Sessions::new();
    bottlenecks_session(&sessions);
    fs::write(sessions.folder.path().join("mine.html"), "mine").unwrap();
    let text = sessions.words(&["report", "-o", "mine.html"]);
    assert_eq!(
        text,
        "exit 1\n--- stdout\n--- stderr\ncolonel: `mine.html` exists and is not overwritten without `--force`\n"
    );
    assert_eq!(
        fs::read_to_string(sessions.folder.path().join("mine.html")).unwrap(),
        "mine"
    );
    assert_eq!(
        sessions.words(&["report", "-o", "mine.html", "--force"]),
        "exit 0\n--- stdout\nmine.html\n--- stderr\n"
    );
    let text = sessions.words(&["report", "-o", "nowhere/page.html"]);
    assert!(
        text.starts_with("exit 1")
            && text.contains("failed to write `nowhere/page.html`")
            && text.contains("No such file"),
        "{text}"
    );
    let text = sessions.words(&["report", "-o", "."]);
    assert!(text.contains("is a folder: name a file"), "{text}");
}

#[test]
fn a_session_without_kernels_says_why() {
    let sessions = Sessions::new();
    sessions.make(End::Sealed, |_| {});
    let page = sessions.page();
    assert!(body(&page).contains("No kernels: "), "{}", body(&page));
    assert!(!page.contains("id=\"timeline\""));
    let text = sessions.words(&["analyze"]);
    assert!(
        text.contains("no findings: 14 rules looked at 0 kernels and 0 steps"),
        "{text}"
    );
}

#[test]
fn a_killed_run_with_losses_and_without_windows_has_a_page() {
    let sessions = Sessions::new();
    sessions.make(End::Killed, |path| {
        let mut guest = SyntheticGuest::new(path, 100);
        guest.process.windows.clear();
        guest.process.losses.push(Loss {
            pid: None,
            kind: "kernels".to_owned(),
            reason: "dropped_by_cupti".to_owned(),
            count: Some(1_234),
            first_ns: BEGIN_NS,
            last_ns: BEGIN_NS,
        });
        let mut kernels = KernelsBuilder::default();
        // No device is known, so there are no waves; times as a damaged record may have them.
        kernels.push(kernel(100, "a", i64::MIN + 1, 10));
        kernels.push(kernel(100, "b", BEGIN_NS, -50));
        kernels.push(kernel(100, "c", i64::MAX - 20, 10));
        guest.seal(&mut kernels).unwrap();
        guest.write_process().unwrap();
    });
    let page = sessions.page();
    let text = body(&page);
    assert!(text.contains("1,234 kernels lost: CUPTI dropped them"), "{text}");
    assert!(text.contains("ended before it could seal"), "{text}");
    assert!(!text.contains("NaN"), "{text}");
    assert!(sessions.run(&["analyze"]).status.success());
}

#[test]
fn the_findings_are_there_though_the_model_is_not() {
    let sessions = Sessions::new();
    bottlenecks_session(&sessions);
    // A port that nobody listens on: bound, and let go.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}/v1");
    let output = self::Command::new(env!("CARGO_BIN_EXE_colonel"))
        .args(["analyze", "--llm", &url])
        .env("COLONEL_SESSIONS_DIR", sessions.folder.path())
        .env("COLONEL_LLM_API_KEY", "very-secret")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let (out, err) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(out.contains("launch_bound"), "{out}");
    assert!(err.contains("did not answer"), "{err}");
    assert!(!out.contains("very-secret") && !err.contains("very-secret"));
    assert!(
        sessions
            .words(&["analyze", "--llm", "localhost"])
            .contains("is no address of a model")
    );
}
