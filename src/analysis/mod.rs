//! Questions answered over a session: kernel summary, copies, idle time, layers and steps.
//!
//! Each is a fold over record batches: one pass, memory that grows with the distinct names and durations, not with the
//! rows. [`SessionSummary`] runs all of them. Sums saturate: a damaged file may hold any time, and is no reason to
//! die.

mod classes;
mod columns;
pub mod compare;
mod counter_lines;
mod counters;
mod durations;
pub mod findings;
mod frames;
mod idle;
mod items;
mod kernels;
mod layers;
mod phases;
mod ranges;
mod run_map;
mod speed_of_light;
mod steps;
mod summary;
mod texts;
mod transfers;

pub use compare::Comparison;
pub(crate) use counter_lines::CounterLines;
pub use counters::{CounterSummary, Counters};
pub use durations::{DurationCounts, DurationStats};
pub use idle::DeviceTime;
pub use kernels::{KernelFold, KernelGroup, LaunchShape};
pub use layers::{LayerSummary, PartSummary, PhaseSummary, SlowestKernel, StepClass};
pub use phases::Phase;
pub use ranges::RangeSummary;
pub(crate) use run_map::RunMap;
pub use speed_of_light::{
    BOUND_PCT, Bound, DeviceSpeed, Figure, FittedMetric, MetricFigure, Peaks, Roofline, Speed, SpeedOfLight, Trust,
};
pub use summary::{DeviceSummary, KernelSummary, SessionSummary, WindowSummary};
pub use transfers::{CopyFold, Transfer};
