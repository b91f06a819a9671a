//! PM sampling and the profiler host, in an image format of our own: raw counts a sample, which only the host can turn
//! into values.
//!
//! - `metrics`: the metrics of the chip that is played, with the passes that each takes
//! - `images`: configuration and counter data images
//! - `activity`: what the GPU did when, from the driver's submissions
//! - `sampler`: the hardware buffer of a device
//! - `api`: the exported functions

mod activity;
mod api;
mod images;
mod metrics;
mod sampler;

pub(crate) use activity::submitted;
