//! The launcher: makes the session, starts the command with the guest in it, passes signals on, waits, seals.
//!
//! It meets the guest in the environment's names and the session's files only.

mod command;
pub mod config;
pub mod control;
pub mod doctor;
pub mod environment;
mod error;
pub mod evaluators;
pub mod flavors;
mod gpus;
pub mod guest;
pub mod knobs;
mod launch;
mod probe;
mod profilers;
mod progress;
mod python;
pub mod runtime;
pub mod settings;
mod signals;
pub mod sim;
mod summary;
mod tree;
mod witness;
pub(crate) mod words;

pub use error::{RunError, exit_code};
pub use launch::{Launch, Outcome};
pub use python::Python;
pub use settings::{Bursts, Choice, Counters, Gate, GateBy, Mode, Settings, Trace};
pub use signals::Signals;
pub use summary::{JSON_VERSION, ProblemSummary, ProcessSummary, Summary, Surroundings};
