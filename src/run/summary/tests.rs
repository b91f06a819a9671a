//! The closing lines, as snapshots.

use super::*;
use crate::run::evaluators;
use crate::schema::manifest::FORMAT;

const SECOND: i64 = 1_000_000_000;

fn window(number: u32, start_s: i64, end_s: i64) -> Window {
    Window {
        number,
        start_ns: start_s * SECOND,
        end_ns: Some(end_s * SECOND),
        trigger: "profiler".to_owned(),
        name: None,
        sealed_ns: None,
        sampled: false,
    }
}

fn process(pid: u32) -> Process {
    Process {
        format: FORMAT,
        pid,
        start_ticks: 86213,
        ppid: 1,
        exe: "/usr/bin/python3.11".to_owned(),
        command: vec!["VLLM::EngineCore".to_owned()],
        started_ns: 10 * SECOND,
        ended_ns: Some(100 * SECOND),
        state: ProcessState::Ended,
        gate: "profiler".to_owned(),
        gate_by: Some("preload".to_owned()),
        cupti: None,
        driver_version: Some(13000),
        attached_ns: Some(51 * SECOND),
        windows: vec![window(1, 51, 63)],
        rows: BTreeMap::new(),
        outside_windows: 0,
        counters: Vec::new(),
        losses: Vec::new(),
        problems: Vec::new(),
        control: None,
    }
}

fn manifest(processes: Vec<Process>, kernels: u64) -> Manifest {
    Manifest {
        format: FORMAT,
        id: "5e27fc0e".to_owned(),
        name: None,
        colonel: "0.1.0".to_owned(),
        commit: String::new(),
        state: SessionState::Compacted,
        created_ns: 0,
        ended_ns: Some(101 * SECOND),
        command: vec!["python".to_owned()],
        cwd: "/".to_owned(),
        evaluator: "cupti".to_owned(),
        flavor: "vllm".to_owned(),
        gate: "profiler".to_owned(),
        trace: Vec::new(),
        simulated: false,
        profiler: None,
        software: BTreeMap::new(),
        host: Default::default(),
        launcher: None,
        exit: Some(Exit {
            code: Some(0),
            signal: None,
        }),
        processes,
        rows: BTreeMap::from([("kernels".to_owned(), kernels)]),
        losses: Vec::new(),
        evaluation: None,
        problems: Vec::new(),
    }
}

fn problem(code: &str, message: &str) -> Problem {
    Problem {
        code: code.to_owned(),
        message: message.to_owned(),
        time_ns: 0,
    }
}

fn loss(reason: &str, count: Option<u64>) -> Loss {
    Loss {
        pid: Some(4711),
        kind: "kernels".to_owned(),
        reason: reason.to_owned(),
        count,
        first_ns: 0,
        last_ns: 0,
    }
}

fn summary(manifest: &Manifest) -> Summary {
    let path = PathBuf::from("/home/me/.colonel/sessions/5e27fc0e");
    let shown = PathBuf::from(".colonel/sessions/5e27fc0e");
    let gpus = manifest
        .processes
        .iter()
        .map(|p| (p.pid, vec!["H100 80GB HBM3".to_owned()]))
        .collect();
    let no_kernels = manifest.rows.get("kernels").is_none_or(|rows| *rows == 0);
    let why_no_kernels = no_kernels.then(|| evaluators::why_no_kernels(manifest));
    Summary::new(
        manifest,
        Surroundings {
            path,
            shown,
            gpus,
            bytes: 18_912_345,
            exit_code: 0,
            why_no_kernels,
        },
    )
}

#[test]
fn one_process_with_its_gpu() {
    insta::assert_snapshot!(summary(&manifest(vec![process(4711)], 1_204_118)).render(""), @r#"
    colonel: session 5e27fc0e  1 window, 12.0 s  VLLM::EngineCore (pid 4711), H100 80GB HBM3
             1,204,118 kernels  0 lost  18.9 MB  armed 41.0 s at no cost
             next: colonel show   pl.scan_parquet(".colonel/sessions/5e27fc0e/kernels/**/*.parquet")
    "#);
}

#[test]
fn several_processes_and_a_folder_of_ones_own() {
    let mut idle = process(4713);
    (idle.windows, idle.attached_ns) = (Vec::new(), None);
    let mut worker = process(4712);
    worker.windows.push(window(2, 70, 71));
    let mut manifest = manifest(vec![process(4711), worker, idle], 20);
    manifest.name = Some("baseline".to_owned());
    manifest.simulated = true;
    insta::assert_snapshot!(summary(&manifest).render(" --sessions-dir /data"), @r#"
    colonel: session 5e27fc0e (baseline)  2 windows, 13.0 s  2 processes (pids 4711, 4712), H100 80GB HBM3  simulated
             20 kernels  0 lost  18.9 MB  armed 41.0 s at no cost
             next: colonel show --sessions-dir /data   pl.scan_parquet(".colonel/sessions/5e27fc0e/kernels/**/*.parquet")
    "#);
}

#[test]
fn no_process_used_cuda() {
    let mut manifest = manifest(Vec::new(), 0);
    manifest.flavor = "generic".to_owned();
    insta::assert_snapshot!(summary(&manifest).render(""), @r"colonel: session 5e27fc0e  no kernels: no process of this command initialised CUDA");
}

#[test]
fn the_profiler_gate_never_opened() {
    let mut armed = process(4711);
    (armed.windows, armed.attached_ns) = (Vec::new(), None);
    let generic = |process: Process| {
        let mut manifest = manifest(vec![process], 0);
        manifest.flavor = "generic".to_owned();
        summary(&manifest).render("")
    };
    insta::assert_snapshot!(generic(armed.clone()), @r"
    colonel: session 5e27fc0e  no kernels: VLLM::EngineCore (pid 4711) initialised CUDA, but no window opened: cudaProfilerStart was not called
             call torch.cuda.profiler.start() and stop() around what is to be recorded, or take `--gate process`
             a program that calls it through ctypes, cuda-python or a static cudart needs `--gate-by callback`
    ");

    armed.gate_by = Some("callback".to_owned());
    let by_callback = generic(armed);
    assert!(
        !by_callback.contains("--gate-by"),
        "it is by callback already: {by_callback}"
    );
}

#[test]
fn the_other_gates_never_opened() {
    let mut armed = process(4711);
    armed.windows.clear();
    let mut manifest = manifest(vec![armed.clone(), armed], 0);
    manifest.gate = "manual".to_owned();
    insta::assert_snapshot!(summary(&manifest).render(""), @r"colonel: session 5e27fc0e  no kernels: 2 processes initialised CUDA, but no window opened: open one with `colonel start` while the command runs");
    manifest.gate = "process".to_owned();
    insta::assert_snapshot!(summary(&manifest).render(""), @r"colonel: session 5e27fc0e  no kernels: 2 processes initialised CUDA, but ended before the window opened: take a shorter `--after`");
}

#[test]
fn the_guest_stayed_out() {
    let mut off = process(4711);
    off.windows.clear();
    off.state = ProcessState::Off;
    off.problems = vec![problem("no_cupti", "no libcupti was found; install nvidia-cuda-cupti")];
    let mut second = off.clone();
    second.pid = 4712;
    insta::assert_snapshot!(summary(&manifest(vec![off, second], 0)).render(""), @r"colonel: session 5e27fc0e  no kernels: pid 4711 could not be recorded: no libcupti was found; install nvidia-cuda-cupti");
}

#[test]
fn what_was_recorded_is_lost() {
    let mut manifest = manifest(vec![process(4711)], 0);
    manifest.losses = vec![loss("not_sealed", Some(29_025))];
    insta::assert_snapshot!(summary(&manifest).render(""), @r"
    colonel: session 5e27fc0e  no kernels: every kernel that was recorded is lost
             ! 29,025 kernels lost: the process was killed before they were on disk
    ");
}

#[test]
fn an_empty_window_and_copies_only() {
    let mut manifest = manifest(vec![process(4711)], 0);
    manifest.rows.insert("memcpys".to_owned(), 3);
    insta::assert_snapshot!(summary(&manifest).render(""), @r"
    colonel: session 5e27fc0e  no kernels: nothing was launched on a GPU while a window was open
             but 3 memcpys
             next: colonel show
    ");
}

#[test]
fn losses_and_problems_are_said_before_the_next_command() {
    let mut process = process(4711);
    process.problems = vec![problem(
        "other_subscriber",
        "another CUPTI client took over the buffers at 1.2 s",
    )];
    let mut manifest = manifest(vec![process], 20);
    manifest.losses = vec![
        loss("callbacks_replaced", Some(400_000)),
        loss("callbacks_replaced", Some(12_000)),
        Loss {
            kind: "memcpys".to_owned(),
            ..loss("callbacks_replaced", Some(1))
        },
        Loss {
            kind: "api_calls".to_owned(),
            ..loss("callbacks_replaced", None)
        },
        loss("dropped_by_cupti", None),
    ];
    manifest.problems = vec![problem("process_still_running", "process 4712 outlived the command")];
    insta::assert_snapshot!(summary(&manifest).render(""), @r#"
    colonel: session 5e27fc0e  1 window, 12.0 s  VLLM::EngineCore (pid 4711), H100 80GB HBM3
             20 kernels  412,001 lost and more  18.9 MB  armed 41.0 s at no cost
             ! 412,000 kernels, 1 memcpy, an unknown number of api calls lost: another CUPTI client (torch profiler?) took over the buffers; close it, then run again
             ! an unknown number of kernels lost: CUPTI dropped them
             ! pid 4711: another CUPTI client took over the buffers at 1.2 s
             ! process 4712 outlived the command
             next: colonel show   pl.scan_parquet(".colonel/sessions/5e27fc0e/kernels/**/*.parquet")
    "#);
}

#[test]
fn the_json_has_exact_integers_and_every_process() {
    let json: serde_json::Value =
        serde_json::from_str(&summary(&manifest(vec![process(4711)], 1_204_118)).to_json().unwrap()).unwrap();
    assert_eq!(json["version"], JSON_VERSION);
    assert_eq!(json["session"], "5e27fc0e");
    assert_eq!(json["state"], "compacted");
    assert_eq!(json["exit"]["code"], 0);
    assert_eq!(json["rows"]["kernels"], 1_204_118);
    assert_eq!(json["window_ns"], 12 * SECOND);
    assert_eq!(json["processes"][0]["pid"], 4711);
    assert_eq!(json["processes"][0]["armed_ns"], 41 * SECOND);
    assert_eq!(json["why_no_kernels"], serde_json::Value::Null);
}

#[test]
fn processes_are_named_as_people_know_them() {
    let named = |words: &[&str]| {
        process_name(&Process {
            command: words.iter().map(|&word| word.to_owned()).collect(),
            ..process(1)
        })
    };
    assert_eq!(named(&["VLLM::EngineCore"]), "VLLM::EngineCore");
    assert_eq!(
        named(&["/usr/bin/python3", "-u", "bench/serve.py", "--port", "1"]),
        "python3 serve.py"
    );
    assert_eq!(
        named(&["python", "-m", "vllm.entrypoints", "x"]),
        "python -m vllm.entrypoints"
    );
    assert_eq!(named(&["python", "-c", "import torch"]), "python");
    assert_eq!(named(&["./a.out", "file"]), "a.out");
    assert_eq!(named(&[]), "python3.11");
}

#[test]
fn time_in_nested_windows_counts_once() {
    let mut nested = process(4711);
    nested.windows = vec![
        window(1, 10, 30),
        window(2, 15, 20),
        window(3, 25, 40),
        window(4, 50, 51),
    ];
    let summary = Summary::new(&manifest(vec![nested], 7), Surroundings::default());
    assert_eq!((summary.windows, summary.window_ns), (4, 31_000_000_000));
}
