//! All that the guest does inside its host. Order of a record's way:
//!
//! `entry` (how we get in) → `command`, `gate` (whether records count) → `attach` and `kinds` (CUPTI) → `buffers` (memory lent to CUPTI)
//! → `writer` (our thread) → `decode` (bytes to records) → `rows` and `kernels` (records to columns)
//! → `segments` and `pages` (columns to Parquet). Hardware counters are sampled by `counters`,
//! beside all this. NVTX ranges come by `nvtx`, those of CUDA graphs by `graphs`. `steward` is the other thread: `control` socket, timers, `delivery` (flushes).
//!
//! Nothing here may panic into, block, print in, or outlive its welcome in the host: style rules in
//! docs/architecture.md.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::todo,
        clippy::unreachable
    )
)]

mod attach;
mod buffers;
mod bursts;
mod command;
mod config;
mod contexts;
mod control;
mod counters;
mod decode;
mod delivery;
mod descriptors;
mod devices;
mod dump;
pub mod entry;
mod gate;
mod graphs;
mod guard;
mod guest;
mod kernels;
mod kinds;
mod late;
mod log;
mod losses;
mod names;
mod nvtx;
mod pages;
mod preload;
mod process_file;
mod rows;
mod sealing;
mod segments;
mod steward;
mod threads;
mod wake;
mod windows;
mod writer;

#[cfg(feature = "bench")]
pub mod pipeline;
