//! Stand-in for CUPTI, `libcupti.so.13`: see gpu-sim/README.md for what it plays and where it differs.
//!
//! - `version`, `faults`: what to play, from the environment
//! - `driver`: finds the stand-in driver and hooks into it
//! - `tracer`: what the driver tells us, turned into callbacks and records
//! - `correlation`, `kinds`, `subscriber`: the state that this needs
//! - `records`: the records themselves, in the bytes of the version played
//! - `buffers`, `flush`: the client's buffers and the thread that hands them back
//! - `overwrite`: end times that a later replay of a graph overwrites
//! - `takeover`: another client that takes the buffers over
//! - `teardown`: what becomes of it at exit
//! - `counters`: PM sampling and the profiler host
//! - `attributes`, `api`: the exported functions
//!
//! No lock is held while a client's callback runs.

mod api;
mod attributes;
mod buffers;
mod correlation;
mod counters;
mod driver;
mod faults;
mod flush;
mod kinds;
mod overwrite;
mod records;
mod subscriber;
mod takeover;
mod teardown;
mod tracer;
mod version;
