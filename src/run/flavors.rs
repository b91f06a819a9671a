//! Flavors: what kind of workload, as a set of defaults. No code of an evaluator lives here.

use super::Gate;
use crate::schema::env as variables;

/// A kind of workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flavor {
    /// Name on the command line and in the session.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Gate, unless one is given.
    pub gate: Gate,
    /// What the command's environment gets.
    pub environment: &'static [EnvDefault],
    /// Packages of the command's python whose versions the session holds; none: its python is not asked.
    pub software: &'static [&'static str],
    /// Settings of nsys and ncu, by name.
    pub knobs: &'static [(&'static str, &'static str)],
    /// What to do where cudaProfilerStart was never called.
    pub how_to_open: &'static str,
    /// What to look at where no process used CUDA; may be empty.
    pub where_cuda_is: &'static str,
}

/// A variable of the command's environment, unless the user has set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvDefault {
    /// Name.
    pub name: &'static str,
    /// Value.
    pub value: &'static str,
    /// Who must know it.
    pub known_to: KnownTo,
}

/// Who must know a variable for it to be set: vLLM warns of those it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownTo {
    /// Colonel's own Python package, which may be there or not.
    Colonel,
    /// The vLLM that the command will import.
    Vllm,
}

/// Every flavor.
pub const FLAVORS: &[Flavor] = &[GENERIC, VLLM];

/// Of a command that nothing is known of.
pub const GENERIC: Flavor = Flavor {
    name: "generic",
    about: "any CUDA program, over its whole life",
    gate: Gate::Process,
    environment: &[],
    software: &[],
    knobs: &[],
    how_to_open: "call torch.cuda.profiler.start() and stop() around what is to be recorded, or take `--gate process`",
    where_cuda_is: "",
};

const VLLM: Flavor = Flavor {
    name: "vllm",
    about: "a vLLM server or benchmark, between its profiler calls",
    gate: Gate::Profiler,
    environment: &[
        EnvDefault {
            name: variables::VLLM_ENABLE_NVTX,
            value: "1",
            known_to: KnownTo::Colonel,
        },
        // The engine whose process model we know. Gone after 0.11.0, which has no other.
        EnvDefault {
            name: "VLLM_USE_V1",
            value: "1",
            known_to: KnownTo::Vllm,
        },
    ],
    software: &["vllm", "torch"],
    knobs: &[
        ("nsys_trace", "cuda,nvtx"),
        ("nsys_capture_range", "cudaProfilerApi"),
        ("nsys_capture_range_end", "stop"),
        ("nsys_cuda_graph_trace", "node"),
        // EngineCore is a fork of the script.
        ("nsys_trace_fork_before_exec", "on"),
        ("ncu_section", "SpeedOfLight"),
        ("ncu_profile_from_start", "off"),
        ("ncu_target_processes", "all"),
        // Some ten layers of a step, in about a minute and a half.
        ("ncu_launch_count", "128"),
    ],
    how_to_open: "in the script:   from colonel.profiling.vllm import profile_region\n\
                  \x20                with profile_region(llm): llm.generate(...)\n\
                  or by vLLM:      LLM(..., profiler_config={\"profiler\": \"cuda\"})\n\
                  \x20                llm.start_profile(), llm.stop_profile()\n\
                  in a server:     vllm serve … --profiler-config.profiler=cuda, then POST /start_profile, /stop_profile\n\
                  from outside:    `colonel start` and `colonel stop` while it runs\n\
                  its whole life:  `colonel run --flavor vllm --gate process`",
    where_cuda_is: "did vLLM find a GPU? `colonel doctor` says what is here\n\
                    is its engine in another container, or of a Ray cluster that runs already? run colonel there",
};

impl Flavor {
    /// The flavor of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        FLAVORS.iter().find(|flavor| flavor.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::knobs::{Knob, Knobs, NcuTargets, NsysRange, NsysRangeEnd, NsysTrace};

    fn knobs_of(flavor: &Flavor) -> Knobs {
        let mut knobs = Knobs::default();
        for (name, value) in flavor.knobs {
            Knob::named(name).unwrap().set(&mut knobs, value).unwrap();
        }
        knobs
    }

    #[test]
    fn generic_changes_nothing() {
        let generic = Flavor::named("generic").unwrap();
        assert_eq!(generic.gate, Gate::Process);
        assert!(generic.environment.is_empty() && generic.software.is_empty());
        assert_eq!(knobs_of(generic), Knobs::default());
    }

    #[test]
    fn vllm_records_every_process_between_its_profiler_calls() {
        let vllm = Flavor::named("vllm").unwrap();
        assert_eq!(vllm.gate, Gate::Profiler);
        let set: Vec<_> = vllm.environment.iter().map(|v| (v.name, v.value, v.known_to)).collect();
        let expected = [
            ("COLONEL_VLLM_ENABLE_NVTX", "1", KnownTo::Colonel),
            ("VLLM_USE_V1", "1", KnownTo::Vllm),
        ];
        assert_eq!(set, expected);
        assert_eq!(vllm.software, ["vllm", "torch"]);
        let Knobs { nsys, ncu } = knobs_of(vllm);
        assert_eq!(nsys.trace, [NsysTrace::Cuda, NsysTrace::Nvtx]);
        assert_eq!(nsys.capture_range, Some(NsysRange::ProfilerApi));
        assert_eq!(nsys.capture_range_end, NsysRangeEnd::Stop);
        assert_eq!(ncu.sections, ["SpeedOfLight"]);
        assert_eq!(ncu.profile_from_start, Some(false));
        assert_eq!(ncu.target_processes, Some(NcuTargets::All));
        assert_eq!(ncu.launch_count, Some(128));
    }
}
