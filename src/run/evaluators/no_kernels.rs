//! Why a session of the guests has no kernel, from what it holds, and what to do: in the words of its flavor.

use super::super::flavors::{Flavor, GENERIC};
use super::super::settings::Gate;
use super::super::summary::{COUNTERS_ALONE, process_name};
use super::super::words::counted;
use crate::schema::manifest::{BURST, Exit, Problem, Process, ProcessState, Session as Manifest};
use crate::schema::ranges::PREFIX;

/// The reason; further lines say what to do.
pub(super) fn why_no_kernels(manifest: &Manifest) -> String {
    // A recovered session does not know its flavor.
    let flavor = Flavor::named(&manifest.flavor).unwrap_or(&GENERIC);
    let processes = manifest.processes.as_slice();
    if processes.is_empty() {
        let end = unhappy_end(manifest.exit.as_ref());
        let mut why = format!("no process of this command initialised CUDA{end}");
        if !end.is_empty() && !flavor.where_cuda_is.is_empty() {
            why += "\nwhat it said itself comes first; where that is not the cause:";
        }
        return with_advice(why, flavor.where_cuda_is);
    }
    if let Some(off) = processes.iter().find(|process| process.state == ProcessState::Off) {
        let message = off
            .problems
            .last()
            .map_or("it does not say why", |problem| problem.message.as_str());
        return format!("pid {} could not be recorded: {message}", off.pid);
    }
    if manifest.losses.iter().any(|loss| loss.kind == "kernels") {
        return "every kernel that was recorded is lost".to_owned();
    }
    match processes.iter().find(|process| !process.windows.is_empty()) {
        Some(opened) => why_none_in_window(flavor, opened, processes),
        None => why_no_window(flavor, manifest),
    }
}

/// A window was open, and no kernel was launched in it.
fn why_none_in_window(flavor: &Flavor, opened: &Process, processes: &[Process]) -> String {
    let by_call = opened
        .windows
        .iter()
        .any(|window| window.trigger == Gate::Profiler.name());
    if took_counters_alone(opened) {
        return COUNTERS_ALONE.to_owned();
    }
    let without = processes.iter().find(|process| process.windows.is_empty());
    match without {
        Some(without) if by_call => with_advice(
            format!(
                "a window opened in {}, which launched none in it, and none in {}\n\
                 cudaProfilerStart opens a window in the process that calls it, and in no other",
                called(opened),
                called(without)
            ),
            flavor.how_to_open,
        ),
        _ if opened.windows.iter().any(|window| window.sampled) => {
            let bursts = opened.windows.iter().filter(|window| window.trigger == BURST).count();
            format!(
                "nothing was launched on a GPU in {}, which alone `--mode sampled` records; make bursts longer \
                 (`--burst`) or more (`--burst-every`), or leave the mode out",
                counted(bursts as u64, "burst")
            )
        }
        _ => "nothing was launched on a GPU while a window was open".to_owned(),
    }
}

/// A window that takes records attaches to CUPTI.
fn took_counters_alone(process: &Process) -> bool {
    let about_counters = |problem: &Problem| problem.code.starts_with("counters_");
    process.attached_ns.is_none() && (!process.counters.is_empty() || process.problems.iter().any(about_counters))
}

fn why_no_window(flavor: &Flavor, manifest: &Manifest) -> String {
    let processes = manifest.processes.as_slice();
    let who = match processes {
        [one] => format!("{} initialised CUDA, but", called(one)),
        several => format!("{} processes initialised CUDA, but", several.len()),
    };
    if manifest.gate == Gate::Profiler.name() {
        let end = unhappy_end(manifest.exit.as_ref());
        let mut why = with_advice(
            format!("{who} no window opened: cudaProfilerStart was not called{end}"),
            flavor.how_to_open,
        );
        // Of other flavors we know how they call it.
        let by_callback = |process: &Process| process.gate_by.as_deref() == Some("callback");
        if *flavor == GENERIC && !processes.iter().any(by_callback) {
            why +=
                "\na program that calls it through ctypes, cuda-python or a static cudart needs `--gate-by callback`";
        }
        why
    } else if let Some(pattern) = manifest.gate.strip_prefix(PREFIX) {
        format!(
            "{who} no window opened: no NVTX range named `{pattern}` was open; `--gate process --trace nvtx` records every range, and \
             `nvtx_ranges` then has their names"
        )
    } else if manifest.gate == Gate::Manual.name() {
        format!("{who} no window opened: open one with `colonel start` while the command runs")
    } else {
        format!("{who} ended before the window opened: take a shorter `--after`")
    }
}

fn called(process: &Process) -> String {
    format!("{} (pid {})", process_name(process), process.pid)
}

/// A command that failed may never have come to its window, or to its GPU.
fn unhappy_end(exit: Option<&Exit>) -> String {
    match exit.map(|exit| (exit.code, exit.signal)) {
        Some((Some(code), _)) if code != 0 => format!(", and the command ended with exit code {code}"),
        Some((None, Some(signal))) => format!(", and the command was killed by signal {signal}"),
        _ => String::new(),
    }
}

fn with_advice(mut why: String, advice: &str) -> String {
    if !advice.is_empty() {
        why.push('\n');
        why += advice;
    }
    why
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn engine(windows: &Value) -> Value {
        process(4711, &["VLLM::EngineCore"], windows)
    }

    fn process(pid: u32, command: &[&str], windows: &Value) -> Value {
        json!({
            "format": {"major": 1, "minor": 0}, "pid": pid, "start_ticks": 1, "ppid": 1, "command": command,
            "started_ns": 0, "state": "ended", "gate": "profiler", "gate_by": "preload", "windows": windows,
        })
    }

    fn why(flavor: &str, gate: &str, code: i32, processes: &[Value]) -> String {
        let manifest = json!({
            "format": {"major": 1, "minor": 0}, "id": "5e27fc0e", "colonel": "0.1.0", "state": "compacted",
            "created_ns": 0, "command": ["python"], "cwd": "/", "evaluator": "cupti", "flavor": flavor, "gate": gate,
            "exit": {"code": code, "signal": null}, "processes": processes,
        });
        why_no_kernels(&serde_json::from_value(manifest).unwrap())
    }

    #[test]
    fn a_vllm_script_that_never_opens_a_window_is_told_how() {
        insta::assert_snapshot!(why("vllm", "profiler", 0, &[engine(&json!([]))]), @r#"
        VLLM::EngineCore (pid 4711) initialised CUDA, but no window opened: cudaProfilerStart was not called
        in the script:   from colonel.profiling.vllm import profile_region
                         with profile_region(llm): llm.generate(...)
        or by vLLM:      LLM(..., profiler_config={"profiler": "cuda"})
                         llm.start_profile(), llm.stop_profile()
        in a server:     vllm serve … --profiler-config.profiler=cuda, then POST /start_profile, /stop_profile
        from outside:    `colonel start` and `colonel stop` while it runs
        its whole life:  `colonel run --flavor vllm --gate process`
        "#);
    }

    #[test]
    fn a_sampled_window_says_how_many_bursts_found_nothing() {
        let window = |number, trigger: &str, sampled| json!({"number": number, "start_ns": 0, "end_ns": 9, "trigger": trigger, "sampled": sampled});
        let windows = json!([window(1, "profiler", true), window(2, "burst", false)]);
        let said = why("generic", "profiler", 0, &[engine(&windows)]);
        assert!(
            said.contains("in 1 burst, which alone `--mode sampled` records"),
            "{said}"
        );
    }

    #[test]
    fn a_vllm_script_that_failed_first_is_reminded_of_it() {
        let said = why("vllm", "profiler", 1, &[engine(&json!([]))]);
        insta::assert_snapshot!(said.lines().next().unwrap(), @"VLLM::EngineCore (pid 4711) initialised CUDA, but no window opened: cudaProfilerStart was not called, and the command ended with exit code 1");
    }

    #[test]
    fn a_vllm_engine_that_is_elsewhere() {
        insta::assert_snapshot!(why("vllm", "profiler", 1, &[]), @r"
        no process of this command initialised CUDA, and the command ended with exit code 1
        what it said itself comes first; where that is not the cause:
        did vLLM find a GPU? `colonel doctor` says what is here
        is its engine in another container, or of a Ray cluster that runs already? run colonel there
        ");
        assert_eq!(
            why("generic", "process", 0, &[]),
            "no process of this command initialised CUDA"
        );
    }

    /// torch.cuda.profiler.start() in the script around llm.generate().
    #[test]
    fn a_window_in_the_script_and_none_in_the_engine() {
        let window = json!([{"number": 1, "start_ns": 1, "end_ns": 2, "trigger": "profiler"}]);
        let script = process(4700, &["python3", "demo.py"], &window);
        let said = why("vllm", "profiler", 0, &[script.clone(), engine(&json!([]))]);
        let reason: Vec<&str> = said.lines().take(2).collect();
        insta::assert_snapshot!(reason.join("\n"), @r"
        a window opened in python3 demo.py (pid 4700), which launched none in it, and none in VLLM::EngineCore (pid 4711)
        cudaProfilerStart opens a window in the process that calls it, and in no other
        ");
        assert!(said.contains("with profile_region(llm): llm.generate(...)"), "{said}");

        for opened in [&[script][..], &[engine(&window)]] {
            let said = why("vllm", "profiler", 0, opened);
            assert_eq!(said, "nothing was launched on a GPU while a window was open");
        }
    }

    #[test]
    fn other_gates_are_no_matter_of_the_flavor() {
        for (gate, expected) in [
            ("manual", "open one with `colonel start`"),
            ("process", "take a shorter `--after`"),
        ] {
            let said = why("vllm", gate, 0, &[engine(&json!([]))]);
            assert!(
                said.starts_with("VLLM::EngineCore (pid 4711) initialised CUDA, but"),
                "{said}"
            );
            assert!(said.contains(expected) && !said.contains('\n'), "{said}");
        }
    }

    #[test]
    fn a_session_that_does_not_know_its_flavor_gets_the_plain_words() {
        let said = why("unknown", "profiler", 0, &[engine(&json!([]))]);
        assert!(said.contains("torch.cuda.profiler.start()"), "{said}");
    }
}
