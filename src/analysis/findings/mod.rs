//! Findings: what in a session costs time, with the numbers and the SQL that show it, and what to try next.
//!
//! One pass over the kernels ([`Evidence`]) gives the rules what they look at; each rule is a file of `rules`, with a
//! threshold that says why. No finding without a number, and each number is what its SQL gives over the tables of
//! docs/schema.md (tests/python/test_findings.py runs them all).

mod bounds;
mod evidence;
mod finding;
mod passage;
mod rules;
mod sql;
mod steps;

pub use evidence::Evidence;
pub use finding::{AffectedKernel, Figure, Finding, Findings, Severity, Value};
pub use passage::{KernelSeen, NO_NAME, Waves};
pub use steps::Step;
