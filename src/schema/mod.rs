//! What launcher, guest and reader share: the session on disk, and nothing else.
//!
//! `tables` defines every Parquet table, `manifest` the JSON files, `env` the names of the environment,
//! `control` the messages on the guest's socket, `counters` the metrics of `--counters`, `samples` their raw
//! data, `names` what kernels are called, `ranges` the pattern of
//! `--gate nvtx:NAME`.

pub mod columns;
pub mod control;
pub mod counters;
pub mod env;
pub mod manifest;
pub mod names;
pub mod ranges;
pub mod samples;
pub mod tables;
