//! Where it ends badly: profilers that are absent, hang, crash or have nothing to tell.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{ran, run_with, with_stand_ins};
use crate::support::{Workplace, assert_code, stderr, stdout};

/// ncu gives a signal's number as if it were an exit code: told by whether it took leave of the command.
#[test]
fn a_signal_that_killed_the_command_under_ncu_is_told() {
    let killed = ran("ncu", "", &[], "kill -SEGV $$");
    assert_code(&killed.output, 128 + 11);
    assert_eq!((killed.codes(), killed.rows("kernels")), (vec!["target_crashed"], 3));
    insta::assert_snapshot!(killed.said, @r"
    colonel: session ID  1 window, 12.7 us  python3.11 (pid 4711)
             by ncu 2025.3.1.0: .colonel/sessions/ID/ncu/report.ncu-rep
             ! the command was killed by signal 11 (SIGSEGV) under ncu; what was recorded until then is kept
    ");
    let same_code = ran("ncu", "", &[], "exit 11");
    assert_code(&same_code.output, 11);
    assert_eq!(same_code.codes(), [""; 0]);
    let by_ncu = ran("ncu", "shutdown", &[], "exec sleep 600");
    assert_code(&by_ncu.output, 128 + 9);
    assert_eq!(by_ncu.codes(), ["target_crashed", "ncu_error"]);
    insta::assert_snapshot!(by_ncu.said, @r#"
    colonel: session ID  1 window, 12.7 us  python3.11 (pid 4711)
             by ncu 2025.3.1.0: .colonel/sessions/ID/ncu/report.ncu-rep
             ! ncu itself ended the command, by signal 9, after an error
             ! ncu: Failed to profile "gemm" in process 4711
    "#);
}

#[test]
fn a_command_without_cuda_is_no_failure_of_the_profiler() {
    for (flavor, evaluator) in [("generic", "ncu"), ("vllm", "ncu"), ("generic", "nsys")] {
        let ran = ran(evaluator, "no_cuda", &["--flavor", flavor], "true");
        assert_code(&ran.output, 0);
        assert_eq!(ran.rows("kernels"), 0);
        let line = ran.said.lines().next().unwrap();
        match evaluator {
            "ncu" => insta::allow_duplicates!(
                insta::assert_snapshot!(line, @"colonel: session ID  no kernels: no process of the command used CUDA, so no kernel was launched")
            ),
            _ => insta::assert_snapshot!(line, @"colonel: session ID  no kernels: nsys saw none launched"),
        }
    }
}

#[test]
fn a_report_of_ncu_that_is_empty_is_kept_and_told() {
    let ran = ran("ncu", "empty", &[], "true");
    assert_code(&ran.output, 0);
    assert_eq!(ran.codes(), ["ncu_unread"]);
    insta::assert_snapshot!(ran.said, @r"
    colonel: session ID  no kernels: the report `HERE/.colonel/sessions/ID/ncu/report.ncu-rep` is kept, but could not be read: `ncu --import` failed: it ended with exit status: 1: ==ERROR== Failed to load report file.
             by ncu 2025.3.1.0: .colonel/sessions/ID/ncu/report.ncu-rep
    ");
}

#[test]
fn an_ncu_that_never_profiles_is_stopped_with_its_command() {
    let started = Instant::now();
    let ran = ran("ncu", "hang_first", &["--ncu-start-timeout", "1s"], "exec sleep 600");
    assert!(started.elapsed() < Duration::from_secs(60));
    assert_code(&ran.output, 128 + 9);
    assert_eq!(ran.codes(), ["ncu_stopped"]);
    insta::assert_snapshot!(ran.said, @r"
    colonel: session ID  no kernels: ncu had profiled no kernel after 1.00 s and was stopped, and the command with it; where it needs longer to come to its kernels: `--ncu-start-timeout 15min`
             by ncu 2025.3.1.0: .colonel/sessions/ID/ncu/report.ncu-rep
    ");
}

/// What came before the hang is kept, also where ncu does not listen: then without a report there is nothing to read.
#[test]
fn an_ncu_that_hangs_later_keeps_what_came() {
    let options = ["--flavor", "vllm", "--ncu-stall-timeout", "1s"];
    let stopped = ran("ncu", "hang_later", &options, "sleep 600 & exec sleep 600");
    assert_code(&stopped.output, 128 + 9);
    assert_eq!((stopped.codes(), stopped.rows("kernels")), (vec!["ncu_stopped"], 1));
    insta::assert_snapshot!(stopped.said, @r"
    colonel: session ID  1 window, 2.30 us  python3.11 (pid 4711)
             by ncu 2025.3.1.0: .colonel/sessions/ID/ncu/report.ncu-rep
             ! ncu came no further for 1.00 s in kernel `nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT` and was stopped, and the command with it; it had profiled 1 kernel
             try `--ncu-graph-profiling graph`, `--ncu-replay-mode application`, fewer launches by `--ncu-launch-count` or `--ncu-kernel`; or, where the command does other things for so long, `--ncu-stall-timeout 10min`
    ");

    let started = Instant::now();
    let deaf = ran("ncu", "deaf", &options, "exec sleep 600");
    assert!(started.elapsed() < Duration::from_secs(60));
    assert_code(&deaf.output, 128 + 9);
    assert_eq!((deaf.codes(), deaf.rows("kernels")), (vec!["ncu_stopped"], 0));
}

#[test]
fn a_command_without_further_kernels_is_stopped_and_those_it_had_are_kept() {
    let ran = ran("ncu", "", &["--ncu-stall-timeout", "1s"], "exec sleep 600");
    assert_code(&ran.output, 128 + 9);
    assert_eq!((ran.codes(), ran.rows("kernels")), (vec!["ncu_stopped"], 3));
    assert!(ran.said.contains("after kernel `rms_norm_kernel`"), "{}", ran.said);
}

/// A hang in the last launch that was asked for is one, too: ncu's warning does not end it.
#[test]
fn an_ncu_that_hangs_in_its_last_launch_is_stopped() {
    let options = ["--ncu-launch-count", "2", "--ncu-stall-timeout", "1s"];
    let stopped = ran("ncu", "hang_later", &options, "exec sleep 600");
    assert_code(&stopped.output, 128 + 9);
    assert_eq!((stopped.codes(), stopped.rows("kernels")), (vec!["ncu_stopped"], 1));
    assert!(stopped.said.contains("in kernel `nvjet"), "{}", stopped.said);
}

/// Once it has all it was asked for, the command may go on for as long as it likes, but ncu itself may not.
#[test]
fn an_ncu_that_hangs_after_its_last_launch_and_the_command_is_stopped() {
    let options = ["--ncu-launch-count", "1", "--ncu-stall-timeout", "1s"];
    let stopped = ran("ncu", "hang_report", &options, "sleep 3; echo well");
    assert_code(&stopped.output, 128 + 9);
    assert_eq!(stdout(&stopped.output), "well\n");
    assert_eq!((stopped.codes(), stopped.rows("kernels")), (vec!["ncu_stopped"], 1));
    insta::assert_snapshot!(stopped.said, @r"
    colonel: session ID  1 window, 2.30 us  python3.11 (pid 4711)
             by ncu 2025.3.1.0: .colonel/sessions/ID/ncu/report.ncu-rep
             ! ncu had profiled all that was asked for (1 kernel), but written nothing for 1.00 s after the command had ended, and was stopped; what came is kept, the command's exit code is lost
             where its report takes longer: `--ncu-stall-timeout 10min`
    ");
    let well = ran("ncu", "", &options, "sleep 3; echo well");
    assert_code(&well.output, 0);
    assert_eq!((well.codes(), well.rows("kernels")), (vec![], 1));
}

/// Only the shell that marks the command would be profiled, so then nobody can tell whether the command has ended.
#[test]
fn the_first_process_is_the_command_itself_where_ncu_looks_at_no_other() {
    let options = ["--ncu-target-processes", "application-only", "--ncu-launch-count", "1"];
    let options = [&options[..], &["--ncu-stall-timeout", "1s"]].concat();
    let ran = ran("ncu", "", &options, "echo \"<$COLONEL_COMMAND>\"; sleep 2");
    assert_code(&ran.output, 0);
    assert_eq!((stdout(&ran.output).as_str(), ran.codes()), ("<>\n", vec![]));
}

#[test]
fn profilers_that_crash_themselves_are_told_from_a_command_that_does() {
    let ncu = ran("ncu", "crash", &[], "exec sleep 600");
    assert_code(&ncu.output, 128 + 11);
    assert_eq!((ncu.codes(), ncu.rows("kernels")), (vec!["ncu_crashed"], 1));
    insta::assert_snapshot!(ncu.said, @r"
    colonel: session ID  1 window, 2.30 us  python3.11 (pid 4711)
             by ncu 2025.3.1.0: .colonel/sessions/ID/ncu/report.ncu-rep
             ! ncu itself was killed by signal 11 (SIGSEGV); what it wrote is kept
             try fewer launches (`--ncu-launch-count`) or sections (`--ncu-section`), `--ncu-replay-mode application`, or another release (`--ncu-path`)
    ");
    let by_script = ran("ncu", "crash_in_script", &[], "exec sleep 600");
    assert_code(&by_script.output, 128 + 11);
    assert_eq!(by_script.said, ncu.said);
    let nsys = ran("nsys", "killed", &[], "true");
    assert_code(&nsys.output, 128 + 9);
    assert_eq!(nsys.codes(), ["nsys_crashed", "nsys_unread"]);
    insta::assert_snapshot!(nsys.said, @r"
    colonel: session ID  no kernels: nsys itself was killed by signal 9 (SIGKILL), which is often the system's answer to too little memory (`dmesg`); what it wrote is kept
             try another release (`--nsys-path`), or `--nsys-cuda-graph-trace graph`
             nsys made no report; nsys said: Collecting data... / Generating '/tmp/nsys-report-2f4b.qdstrm'
    ");
    for evaluator in ["ncu", "nsys"] {
        let asked = ran(evaluator, "", &[], "kill -TERM $PPID; sleep 1");
        assert!(
            !asked.codes().contains(&format!("{evaluator}_crashed").as_str()),
            "{}",
            asked.said
        );
    }
}

/// By application a launch comes again in each pass, and none is the last.
#[test]
fn passes_of_an_application_replay_are_no_launches() {
    let options = ["--ncu-replay-mode", "application", "--ncu-launch-count", "2"];
    let whole = ran("ncu", "", &options, "true");
    assert_code(&whole.output, 0);
    assert_eq!((whole.codes(), whole.rows("kernels")), (vec![], 2));
    let options = [&options[..], &["--ncu-stall-timeout", "1s"]].concat();
    let stopped = ran("ncu", "hang_pass", &options, "true");
    assert_eq!(stopped.codes(), ["ncu_stopped"]);
    assert!(stopped.said.contains("it had profiled 2 kernels"), "{}", stopped.said);
}

/// For longer than an ncu that writes nothing would get.
#[test]
fn a_report_that_grows_is_waited_for() {
    let ran = ran("ncu", "slow_report", &["--ncu-stall-timeout", "1s"], "exec sleep 600");
    assert_eq!((ran.codes(), ran.rows("kernels")), (vec!["ncu_stopped"], 1));
}

#[test]
fn an_ncu_that_can_not_be_watched_is_told() {
    let ran = ran("ncu", "no_log", &[], "true; sleep 1");
    assert_code(&ran.output, 0);
    assert_eq!((ran.codes(), ran.rows("kernels")), (vec!["ncu_unwatched"], 3));
    insta::assert_snapshot!(ran.said, @r#"
    colonel: session ID  1 window, 12.7 us  python3.11 (pid 4711)
             by ncu 2025.3.1.0: .colonel/sessions/ID/ncu/report.ncu-rep
             ! ncu was not watched, so it would not have been stopped had it hung: its log `HERE/.colonel/sessions/ID/ncu/log.txt` could not be read: No such file or directory (os error 2)
    "#);
}

/// While the command runs it may be silent for as long as it likes.
#[test]
fn an_nsys_that_hangs_after_the_command_is_stopped_and_its_report_kept() {
    let ran = ran("nsys", "hang", &["--nsys-report-timeout", "1s"], "sleep 3; echo well");
    assert_code(&ran.output, 128 + 9);
    assert_eq!(stdout(&ran.output), "well\n");
    assert_eq!((ran.codes(), ran.rows("kernels")), (vec!["nsys_stopped"], 6));
    insta::assert_snapshot!(ran.said, @r"
    colonel: session ID  1 window, 9.00 ms  2 processes (pids 4700, 4711), H100 80GB HBM3
             by nsys 2025.3.1.90: .colonel/sessions/ID/nsys/report.nsys-rep
             ! 1 kernel lost: their timestamps were zero or reversed
             ! nsys had written nothing for 1.00 s after the command had ended, and was stopped; what came is kept, the command's exit code is lost
             where its report takes longer: `--nsys-report-timeout 30min`
    ");
}

#[test]
fn profilers_that_are_not_on_the_path_are_told_with_where_they_were_looked_for() {
    let workplace = Workplace::new();
    for name in ["nsys", "ncu"] {
        if ["/opt/nvidia", "/usr/local/cuda/bin"]
            .iter()
            .any(|root| Path::new(root).exists())
        {
            // One may be there.
            continue;
        }
        let mut command = workplace.colonel();
        command
            .args(["run", "--evaluator", name, "--", "/bin/true"])
            .env("PATH", "");
        let output = command.output().unwrap();
        assert_code(&output, 125);
        let said = stderr(&output).replace(name, "NAME");
        insta::allow_duplicates!(
            insta::assert_snapshot!(said, @"colonel: failed to find NAME: it is neither on the PATH nor in /opt/nvidia or /usr/local/cuda; install it, or name it with `--NAME-path FILE`; colonel's own evaluator, `--evaluator cupti`, needs neither")
        );
    }
    assert_eq!(workplace.sessions(), 0);
}

#[test]
fn profilers_that_are_absent_or_too_old_are_told_before_the_start() {
    let workplace = Workplace::new();
    let output = workplace.run_sh(&["--evaluator", "nsys", "--nsys-path", "no/nsys"], "true");
    assert_code(&output, 125);
    insta::assert_snapshot!(stderr(&output).replace(&workplace.path().display().to_string(), "HERE"), @"colonel: failed to find nsys: `HERE/no/nsys`, which `nsys_path` names, is no program");
    let workplace = with_stand_ins();
    for evaluator in ["nsys", "ncu"] {
        let output = run_with(&workplace, evaluator, "old", &[], "true");
        assert_code(&output, 125);
        let said = stderr(&output).replace(&workplace.path().display().to_string(), "HERE");
        match evaluator {
            "nsys" => {
                insta::assert_snapshot!(said, @"colonel: failed to work with nsys 2019.3.1.94-e0a4d1e (`HERE/bin/nsys`): colonel knows 2022.1 and newer; install a newer one, or name one with `--nsys-path FILE`")
            }
            _ => {
                insta::assert_snapshot!(said, @"colonel: failed to work with ncu 2019.4.0.0 (`HERE/bin/ncu`): colonel knows 2022.3 and newer; install a newer one, or name one with `--ncu-path FILE`")
            }
        }
    }
    assert_eq!(workplace.sessions(), 0);
}

#[test]
fn a_target_that_crashed_under_nsys_keeps_its_report() {
    let ran = ran("nsys", "crash", &["--flavor", "vllm"], "true");
    assert_code(&ran.output, 128 + 11);
    assert_eq!(ran.codes(), ["target_crashed"]);
    assert_eq!(ran.rows("kernels"), 6);
    insta::assert_snapshot!(ran.said, @r"
    colonel: session ID  1 window, 9.00 ms  2 processes (pids 4700, 4711), H100 80GB HBM3
             by nsys 2025.3.1.90: .colonel/sessions/ID/nsys/report.nsys-rep
             ! 1 kernel lost: their timestamps were zero or reversed
             ! the command was killed by signal 11 (SIGSEGV) under nsys; what was recorded until then is kept; nsys loses what it had not fetched by then; `--nsys-cuda-graph-trace graph` is known to survive where recording each node of a CUDA graph does not
    ");
}

#[test]
fn a_signal_that_nsys_says_nothing_of_is_told_by_its_code() {
    let killed = ran("nsys", "", &[], "kill -SEGV $$");
    assert_code(&killed.output, 128 + 11);
    assert_eq!(killed.codes(), ["target_crashed"]);
    let asked = ran("nsys", "", &[], "kill -TERM $$");
    assert_code(&asked.output, 128 + 15);
    assert_eq!(asked.codes(), [""; 0]);
}

#[test]
fn an_importer_without_its_library_keeps_the_events() {
    let ran = ran("nsys", "no_libdw", &[], "true");
    assert_code(&ran.output, 0);
    assert_eq!(ran.codes(), ["nsys_unread"]);
    assert!(ran.folder.join("nsys/report.qdstrm").is_file());
    insta::assert_snapshot!(ran.said, @"colonel: session ID  no kernels: nsys made no report: `libdw.so.1` is missing; install it (Debian and Ubuntu: `apt install libdw1`; Red Hat: `dnf install elfutils-libs`), or put it on LD_LIBRARY_PATH; what it recorded is in `HERE/.colonel/sessions/ID/nsys/report.qdstrm`, for a machine that has it");
}

#[test]
fn reports_of_nothing_say_what_is_missing() {
    let empty = ran("nsys", "empty", &[], "true");
    insta::assert_snapshot!(empty.said, @r"
    colonel: session ID  no kernels: nsys saw none launched
             by nsys 2025.3.1.90: .colonel/sessions/ID/nsys/report.nsys-rep
    ");
    let no_range = ran("nsys", "no_report", &["--flavor", "vllm"], "true");
    insta::assert_snapshot!(no_range.said.lines().next().unwrap(), @"colonel: session ID  no kernels: nsys saw none between cudaProfilerStart and cudaProfilerStop, or they were not called");
    let nothing = ran("nsys", "no_report", &[], "true");
    insta::assert_snapshot!(nothing.said, @"colonel: session ID  no kernels: nsys made no report; nsys said: Collecting data... / Generating '/tmp/nsys-report-2f4b.qdstrm'");
    let no_launch = ran("ncu", "none", &[], "true");
    insta::assert_snapshot!(no_launch.said, @"colonel: session ID  no kernels: ncu saw none launched");
}

#[test]
fn counters_without_permission_come_with_the_remedy() {
    let ran = ran("ncu", "permission", &[], "true");
    assert_eq!(ran.codes(), ["ncu_no_permission"]);
    assert!(ran.said.contains("ERR_NVGPUCTRPERM"), "{}", ran.said);
    assert!(
        ran.said.contains("NVreg_RestrictProfilingToAdminUsers=0"),
        "{}",
        ran.said
    );
}
