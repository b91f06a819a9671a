//! `colonel-sim`: a program that uses CUDA as an LLM server's decode loop does, for the stand-ins in gpu-sim. It counts
//! its own kernels and says so in its last line on stdout: the independent count that tests hold colonel against.
//!
//! - `args`: the command line; `processes`: who does the work, and how it ends
//! - `decode`: the loop; `kernels`: what it launches
//! - `gpu`: what it needs of CUDA, over the runtime (`runtime`) or the driver alone (`driver`); `symbols` finds them

mod args;
mod decode;
mod driver;
mod gpu;
mod kernels;
mod processes;
mod runtime;
mod symbols;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args::Command::Decode(args) = args::Args::parse().command;
    match processes::run(&args) {
        Ok(code) => code,
        Err(problem) => {
            // With stderr closed there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "colonel-sim: {problem:#}");
            ExitCode::FAILURE
        }
    }
}
