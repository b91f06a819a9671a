//! nsys and ncu as evaluators, by the stand-ins in tests/nsight, which also play what goes wrong.

use std::fs;
use std::path::Path;
use std::process::Output;

use colonel::schema::manifest::Session as Manifest;

use crate::support::{Workplace, assert_code, stderr, stdout};

mod ends;

/// A folder with `nsys` and `ncu` in it, for the PATH.
fn with_stand_ins() -> Workplace {
    let workplace = Workplace::new();
    fs::create_dir(workplace.path().join("bin")).unwrap();
    for name in ["nsys", "ncu"] {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/nsight/{name}.py"));
        let script = format!("#!/bin/sh\nexec python3 '{}' \"$@\"\n", program.display());
        workplace.write(&format!("bin/{name}"), &script, 0o755);
    }
    workplace
}

struct Ran {
    output: Output,
    folder: std::path::PathBuf,
    manifest: Manifest,
    /// What colonel says, without what differs from run to run.
    said: String,
}

/// `colonel run --evaluator EVALUATOR OPTIONS -- sh -c SCRIPT`, with a fault.
fn run_with(workplace: &Workplace, evaluator: &str, fault: &str, options: &[&str], script: &str) -> Output {
    let path = format!("{}/bin:{}", workplace.path().display(), std::env::var("PATH").unwrap());
    let mut command = workplace.colonel();
    command.args(["run", "--evaluator", evaluator]).args(options);
    command.args(["--", "sh", "-c", script]);
    command.env("PATH", path).env("HOME", workplace.path());
    command.env("FAKE_NSYS", fault).env("FAKE_NCU", fault);
    command.output().unwrap()
}

fn ran(evaluator: &str, fault: &str, options: &[&str], script: &str) -> Ran {
    let workplace = with_stand_ins();
    let output = run_with(&workplace, evaluator, fault, options, script);
    let (folder, manifest) = workplace.session();
    let said = stderr(&output)
        .replace(&manifest.id, "ID")
        .replace(&workplace.path().display().to_string(), "HERE");
    // On a busy machine there are lines of progress.
    let varies = |line: &str| line.contains(" kB") || line.contains("next: ") || line.ends_with('…');
    let lines = said.lines().filter(|line| !varies(line));
    let lines = lines.map(|line| line.split(", read in ").next().unwrap_or_default());
    let said = lines.collect::<Vec<_>>().join("\n");
    let folder_name = folder.file_name().unwrap().to_owned();
    // The session outlives the workplace in what was read of it; its files are looked at before.
    let kept = std::env::temp_dir().join(format!("colonel-test-{}", folder_name.display()));
    let _ = fs::remove_dir_all(&kept);
    fs::rename(&folder, &kept).unwrap();
    Ran {
        output,
        folder: kept,
        manifest,
        said,
    }
}

impl Drop for Ran {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Ran {
    fn codes(&self) -> Vec<&str> {
        self.manifest
            .problems
            .iter()
            .map(|problem| problem.code.as_str())
            .collect()
    }

    fn rows(&self, table: &str) -> u64 {
        self.manifest.rows.get(table).copied().unwrap_or(0)
    }
}

#[test]
fn nsys_fills_the_same_tables_and_leaves_the_streams_to_the_command() {
    let ran = ran(
        "nsys",
        "",
        &["--flavor", "vllm"],
        "echo to stdout; echo to stderr >&2; exit 3",
    );
    assert_code(&ran.output, 3);
    assert_eq!(stdout(&ran.output), "to stdout\n", "nsys talks into its log");
    assert!(ran.said.starts_with("to stderr\n"), "{}", ran.said);
    assert_eq!((ran.rows("kernels"), ran.rows("nvtx_ranges")), (6, 3));
    let profiler = ran.manifest.profiler.as_ref().unwrap();
    assert_eq!(profiler.release.as_deref(), Some("2025.3.1.90-253135822126v0"));
    assert_eq!(profiler.reports, ["nsys/report.nsys-rep"]);
    assert!(profiler.collect_ns.unwrap() > 0);
    let words = profiler.command.join(" ");
    for option in [
        "--trace=cuda,nvtx",
        "--capture-range=cudaProfilerApi",
        "--capture-range-end=stop",
        "--cuda-graph-trace=node",
        "--trace-fork-before-exec=true",
    ] {
        assert!(words.contains(option), "{words}");
    }
    assert!(ran.folder.join("nsys/report.nsys-rep").is_file());
    assert!(
        !ran.folder.join("nsys/report.sqlite").exists(),
        "it can be exported again"
    );
    assert!(
        fs::read_to_string(ran.folder.join("nsys/log.txt"))
            .unwrap()
            .contains("Collecting data...")
    );
    assert_eq!(ran.manifest.evaluator, "nsys");
    insta::assert_snapshot!(ran.said, @r"
    to stderr
    colonel: session ID  1 window, 9.00 ms  2 processes (pids 4700, 4711), H100 80GB HBM3
             by nsys 2025.3.1.90: .colonel/sessions/ID/nsys/report.nsys-rep
             ! 1 kernel lost: their timestamps were zero or reversed
    ");
}

/// An nsys that closes descriptors: the command's words still come where they should.
#[test]
fn streams_that_nsys_does_not_pass_on_are_found_by_their_paths() {
    let ran = ran("nsys", "closes", &[], "echo to stdout; echo to stderr >&2");
    assert_code(&ran.output, 0);
    assert_eq!(stdout(&ran.output), "to stdout\n");
    assert!(ran.said.starts_with("to stderr\n"), "{}", ran.said);
}

#[test]
fn ncu_fills_kernels_and_their_counters() {
    let ran = ran(
        "ncu",
        "",
        &["--flavor", "vllm", "--ncu-launch-count", "2"],
        "echo to stdout",
    );
    assert_code(&ran.output, 0);
    assert_eq!(stdout(&ran.output), "to stdout\n");
    assert_eq!((ran.rows("kernels"), ran.rows("kernel_counters")), (2, 12));
    let profiler = ran.manifest.profiler.as_ref().unwrap();
    assert_eq!(profiler.reports, ["ncu/report.ncu-rep"]);
    let words = profiler.command.join(" ");
    for option in [
        "--section=SpeedOfLight",
        "--profile-from-start=off",
        "--target-processes=all",
        "--launch-count=2",
    ] {
        assert!(words.contains(option), "{words}");
    }
    insta::assert_snapshot!(ran.said, @r"
    colonel: session ID  1 window, 10.4 us  python3.11 (pid 4711)
             by ncu 2025.3.1.0: .colonel/sessions/ID/ncu/report.ncu-rep
    ");
}

#[test]
fn the_bound_of_the_flavor_is_told_where_it_ended_ncu_and_can_be_taken_away() {
    let bound = ran("ncu", "many", &["--flavor", "vllm"], "true");
    assert_eq!((bound.codes(), bound.rows("kernels")), (vec!["ncu_bound"], 128));
    let line = bound.said.lines().find(|line| line.contains('!')).unwrap();
    insta::assert_snapshot!(line.trim(), @"! ncu ended at 128 launches, the bound of flavor vllm: others by `--ncu-launch-skip N`, more by `--ncu-launch-count N`, every one by `--ncu-launch-count all`");
    let all = ran(
        "ncu",
        "many",
        &["--flavor", "vllm", "--ncu-launch-count", "all"],
        "true",
    );
    assert_eq!((all.codes(), all.rows("kernels")), (vec![], 200));
    let asked = ran("ncu", "many", &["--flavor", "vllm", "--ncu-launch-count", "5"], "true");
    assert_eq!((asked.codes(), asked.rows("kernels")), (vec![], 5));
}

#[test]
fn a_command_that_is_not_there_is_told_as_ever() {
    let workplace = with_stand_ins();
    let path = format!("{}/bin:{}", workplace.path().display(), std::env::var("PATH").unwrap());
    for evaluator in ["nsys", "ncu"] {
        let mut command = workplace.colonel();
        command
            .args(["run", "--evaluator", evaluator, "--", "no-such-program"])
            .env("PATH", &path);
        let output = command.output().unwrap();
        assert_code(&output, 127);
        assert!(
            stderr(&output).contains("failed to start `no-such-program`"),
            "{}",
            stderr(&output)
        );
    }
    assert_eq!(workplace.sessions(), 0);
}

#[test]
fn a_metric_that_the_gpu_does_not_have_is_named() {
    let metrics = "sm__no_such.sum,sm__inst_executed_pipe_tensor.sum,dram__throughput";
    let ran = ran("ncu", "", &["--ncu-metrics", metrics], "true");
    assert_eq!((ran.codes(), ran.rows("kernels")), (vec!["ncu_unknown_metric"], 3));
    insta::assert_snapshot!(ran.said, @r"
    colonel: session ID  1 window, 12.7 us  python3.11 (pid 4711)
             by ncu 2025.3.1.0: .colonel/sessions/ID/ncu/report.ncu-rep
             ! ncu: reported no metric `sm__no_such.sum`; `ncu --query-metrics` lists what this GPU has
    ");
}

#[test]
fn options_that_ncu_does_not_take_are_told_apart_from_a_command_without_kernels() {
    let options = ["--flavor", "vllm", "--ncu-replay-mode"];
    assert_eq!(
        ran("ncu", "", &[&options[..], &["range"]].concat(), "true").rows("kernels"),
        3
    );
    let refused = ran("ncu", "refuse", &["--ncu-replay-mode", "kernel"], "true");
    assert_code(&refused.output, 1);
    assert_eq!(refused.codes(), ["ncu_refused"]);
    insta::assert_snapshot!(refused.said, @r"colonel: session ID  no kernels: ncu ended with exit code 1 before it started the command, and says why above; its options were --export=HERE/.colonel/sessions/ID/ncu/report --force-overwrite --log-file=HERE/.colonel/sessions/ID/ncu/log.txt --replay-mode=kernel");
}

#[test]
fn the_commands_own_failure_under_ncu_is_its_exit_code() {
    assert_code(&ran("ncu", "", &[], "exit 3").output, 3);
}

#[test]
fn durations_that_ncu_inflates_are_told() {
    let workplace = with_stand_ins();
    for (folder, options) in [
        ("graph", &["--ncu-graph-profiling", "graph"][..]),
        ("range", &["--ncu-replay-mode", "app-range"]),
        (
            "node",
            &["--ncu-graph-profiling", "node", "--ncu-replay-mode", "kernel"],
        ),
    ] {
        let output = run_with(
            &workplace,
            "ncu",
            "",
            &[&["--sessions-dir", folder], options].concat(),
            "true",
        );
        assert_code(&output, 0);
    }
    let colonel = |words: &[&str], folders: &[&str]| {
        let paths = folders.iter().map(|folder| workplace.session_in(folder).0);
        stdout(&workplace.colonel().args(words).args(paths).output().unwrap())
    };
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim).filter(|line| line.contains("30 to 50"));
        lines.map(str::to_owned).collect()
    };
    insta::assert_snapshot!(lines(&colonel(&["show"], &["graph"])).join("\n"), @"! by `--ncu-graph-profiling graph` ncu's durations are far longer than the work's, 30 to 50 times on an H100: compare its counters, and take times from `--ncu-graph-profiling node`");
    insta::assert_snapshot!(lines(&colonel(&["show"], &["range"])).join("\n"), @"! by `--ncu-replay-mode app-range` ncu's durations are far longer than the work's, 30 to 50 times on an H100: compare its counters, and take times from `--ncu-graph-profiling node`");
    insta::assert_snapshot!(lines(&colonel(&["compare"], &["node", "graph"])).join("\n"), @"!  B's times are not those of the work: ncu measured it by graph or by range, which makes them 30 to 50 times as long");
    assert_eq!(lines(&colonel(&["show"], &["node"])), [""; 0]);
}

#[test]
fn options_that_only_the_guest_knows_are_refused() {
    let workplace = with_stand_ins();
    for (options, expected) in [
        (&["--gate", "manual"][..], "failed to give `--gate manual` to nsys"),
        (&["--for", "1s"], "failed to give `--for` to nsys"),
        (&["--gate", "nvtx:step*"], "matches whole names only"),
        (&["--counters"], "failed to give `--counters` to nsys"),
    ] {
        let output = run_with(&workplace, "nsys", "", options, "true");
        assert_code(&output, 125);
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
    let output = run_with(&workplace, "ncu", "", &["--ncu-replay-mode", "twice"], "true");
    assert_code(&output, 2);
    assert!(
        stderr(&output).contains("unknown replay mode `twice`"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn settings_come_from_files_and_variables_too() {
    let workplace = with_stand_ins();
    let config = |words: &[&str]| {
        let mut command = workplace.colonel();
        command.arg("config").args(words).env("HOME", workplace.path());
        command
            .env_remove("XDG_CONFIG_HOME")
            .env("COLONEL_NCU_LAUNCH_COUNT", "1");
        let output = command.output().unwrap();
        let text = if output.status.success() {
            stdout(&output)
        } else {
            stderr(&output)
        };
        text.replace(&workplace.path().display().to_string(), "HERE")
    };
    insta::assert_snapshot!(config(&["path"]), @r"
    HERE/.colonel/config.toml
    HERE/.config/colonel/config.toml
    ");
    insta::assert_snapshot!(config(&["set", "ncu_set", "full"]), @"ncu_set = full  in HERE/.colonel/config.toml");
    insta::assert_snapshot!(config(&["set", "--user", "ncu_replay_mode", "application"]), @"ncu_replay_mode = application  in HERE/.config/colonel/config.toml");
    insta::assert_snapshot!(config(&["set", "ncu_launch_count", "0"]), @"colonel: ncu_launch_count: `0` is no number from 1 to 4294967295, nor `all`");
    assert!(config(&["set", "ncu_sets", "full"]).contains("unknown setting `ncu_sets`"));
    insta::assert_snapshot!(config(&["show", "--flavor", "vllm"]), @r"
    setting                      value            from
    ncu_launch_count             1                $COLONEL_NCU_LAUNCH_COUNT
    ncu_profile_from_start       off              flavor vllm
    ncu_replay_mode              application      HERE/.config/colonel/config.toml
    ncu_section                  SpeedOfLight     flavor vllm
    ncu_set                      full             HERE/.colonel/config.toml
    ncu_target_processes         all              flavor vllm
    nsys_capture_range           cudaProfilerApi  flavor vllm
    nsys_capture_range_end       stop             flavor vllm
    nsys_cuda_graph_trace        node             flavor vllm
    nsys_trace                   cuda,nvtx        flavor vllm
    nsys_trace_fork_before_exec  on               flavor vllm
    ");

    let path = format!("{}/bin:{}", workplace.path().display(), std::env::var("PATH").unwrap());
    let mut command = workplace.colonel();
    command
        .args(["run", "--evaluator", "ncu", "--", "true"])
        .env("PATH", path);
    command
        .env_remove("XDG_CONFIG_HOME")
        .env("HOME", workplace.path())
        .env("COLONEL_NCU_LAUNCH_COUNT", "1");
    assert_code(&command.output().unwrap(), 0);
    let words = workplace.session().1.profiler.unwrap().command.join(" ");
    for option in ["--set=full", "--replay-mode=application", "--launch-count=1"] {
        assert!(words.contains(option), "{words}");
    }
}

#[test]
fn sessions_of_two_evaluators_are_put_side_by_side() {
    let workplace = with_stand_ins();
    let mut ids = Vec::new();
    for evaluator in ["nsys", "ncu"] {
        let output = run_with(&workplace, evaluator, "", &["--sessions-dir", evaluator], "true");
        assert_code(&output, 0);
        ids.push(workplace.session_in(evaluator).0);
    }
    let compare = |words: &[&str]| {
        let mut command = workplace.colonel();
        command.arg("compare").args(&ids).args(words);
        let output = command.output().unwrap();
        assert_code(&output, 0);
        stdout(&output)
    };
    let mut text = compare(&[]);
    for id in &ids {
        text = text.replace(&id.file_name().unwrap().display().to_string(), "ID");
    }
    let heads = text.lines().map(|line| line.split("  ran ").next().unwrap_or_default());
    insta::assert_snapshot!(heads.collect::<Vec<_>>().join("\n"), @r"
    A  ID  nsys 2025.3.1.90  6 kernels
    B  ID  ncu 2025.3.1.0  3 kernels
    !  ncu runs each kernel alone, at its base clock and with cold caches: its times are longer
    !  A has lost 1 kernel, so its totals are too small

    in all                      A        B  difference   change  95 % interval
    time of A's launches  16.0 us  29.0 us    +13.0 us  +81.0 %              –  can't tell
    one session has no steps, so times are means of launches, and in all those of A's launches at A's and at B's means
    no interval: ncu runs each kernel by itself, so there are no steps, and no order in time

    count A → B         mean A → B  difference    change  95 % interval              kernel
          3 → 1  3.33 us → 8.13 us    +4.79 us  +143.8 %              –  can't tell  reshaped: nvjet_sm90_tst_6…4x1_v_bz_TNT
              2  3.00 us → 2.29 us     -712 ns   -23.7 %              –  can't tell  reshaped: rms_norm_kernel<float>
          1 → –        2.00 us → –           –         –              –  only in A   vectorized_elementwise_ker…tor<float> >
    ");
    let json: serde_json::Value = serde_json::from_str(&compare(&["--json"])).unwrap();
    assert_eq!(json["sessions"][0]["evaluator"], "nsys");
    assert!(json["sessions"][1]["collect_ns"].as_u64().unwrap() > 0);
    assert_eq!(json["equal_launches"], 2, "rms_norm, twice in both");
    let gemm = json["kernels"]
        .as_array()
        .unwrap()
        .iter()
        .find(|kernel| kernel["a"]["count"] == 3)
        .unwrap();
    assert_eq!(
        (gemm["a"]["total_ns"].as_i64(), gemm["b"]["total_ns"].as_i64()),
        (Some(10_000), Some(8_128))
    );
}
