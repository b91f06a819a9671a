//! The guest as it lives in a process: the real `colonel`, the real `libcolonel_guest.so`, gpu-sim in the GPU's place.
//! Every count is read from the Parquet files and compared with the workload's own.

#![allow(missing_docs, unreachable_pub, reason = "a test is its own documentation")]

mod control;
mod counters;
mod counts;
mod disk;
mod ends;
mod faults;
mod gates;
mod graphs;
mod host;
mod hosts;
mod layouts;
mod losses;
mod nvtx;
mod regions;
mod run;
mod runtimes;
mod sampled;
mod session;
mod titles;
