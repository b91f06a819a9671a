//! Flavors: what kind of workload, as a set of defaults. No code of an evaluator lives here.

use super::Gate;

/// A kind of workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flavor {
    /// Name on the command line and in the session.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Gate, unless one is given.
    pub gate: Gate,
}

/// Every flavor.
pub const FLAVORS: &[Flavor] = &[
    Flavor {
        name: "generic",
        about: "any CUDA program, over its whole life",
        gate: Gate::Process,
    },
    Flavor {
        name: "vllm",
        about: "a vLLM server or benchmark, between its profiler calls",
        gate: Gate::Profiler,
    },
];

impl Flavor {
    /// The flavor of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        FLAVORS.iter().find(|flavor| flavor.name == name)
    }
}
