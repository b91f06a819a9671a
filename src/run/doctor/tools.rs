//! NVIDIA's profilers, and the `python3` on the PATH with its packages.

use std::time::Duration;

use super::super::profilers::{Tool, newest};
use super::super::python::{Python, Question};

/// What hangs longer is told as if it were not there.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Finds nsys and ncu.
pub(super) fn profilers() -> Vec<Tool> {
    ["nsys", "ncu"].into_iter().map(newest).collect()
}

/// Asks the `python3` on the PATH.
pub(super) fn python() -> Option<Python> {
    let question = Question {
        packages: &[
            "vllm",
            "torch",
            "nvidia-cuda-cupti",
            "nvidia-cuda-cupti-cu12",
            "nvidia-cuda-runtime",
            "nvidia-cuda-runtime-cu12",
        ],
        vllm_variables: &[],
        patience: PATIENCE,
    };
    question.ask("python3".as_ref(), None)
}
