//! The command line.

use clap::{Parser, Subcommand, ValueEnum};

/// A CUDA workload for the stand-ins in gpu-sim. Its last line on stdout says what it launched.
#[derive(Debug, Parser)]
#[command(name = "colonel-sim", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Steps of an LLM's decode loop: a copy to the GPU, a fill, the kernels of all layers, a synchronise.
    Decode(Decode),
}

/// Settings of the decode loop.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Decode {
    /// Steps; with --windows, steps of each window.
    #[arg(long, default_value_t = 10)]
    pub(crate) steps: u64,
    /// Kernels of one step.
    #[arg(long, default_value_t = 336)]
    pub(crate) kernels: usize,
    /// Capture the kernels of a step once, before the first window, and replay the graph each step.
    #[arg(long)]
    pub(crate) graph: bool,
    /// Wall time of a step in microseconds; 0 is as fast as it goes.
    #[arg(long, default_value_t = 0)]
    pub(crate) step_us: u64,
    /// Threads, each of which does all steps on a stream of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(crate) threads: u64,
    /// Do the work in a forked child (or N of them), as vLLM's server does; this process then does not use CUDA.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "1", value_name = "N")]
    pub(crate) fork: Option<u32>,
    /// Windows, each between a cudaProfilerStart and a cudaProfilerStop; 0 makes no such call.
    #[arg(long, default_value_t = 0)]
    pub(crate) windows: u32,
    /// With --windows: steps before, between and after them.
    #[arg(long, default_value_t = 2)]
    pub(crate) outside: u64,
    /// Leave the last N steps of each window unsynchronised, so that they still run when it stops.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) in_flight: u64,
    /// Add a copy between two GPUs to each step.
    #[arg(long)]
    pub(crate) peer: bool,
    /// How CUDA's functions are found.
    #[arg(long, value_enum, default_value_t = Resolve::Global)]
    pub(crate) resolve: Resolve,
    /// How many times faster than an H100 the simulated GPU is.
    #[arg(long, value_name = "N")]
    pub(crate) gpu_speed: Option<u64>,
    /// How the process that did the work ends.
    #[arg(long, value_enum, default_value_t = End::Exit)]
    pub(crate) end: End,
    /// Exit code with --end exit and os-exit.
    #[arg(long, default_value_t = 0)]
    pub(crate) code: u8,
}

/// How CUDA's functions are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Resolve {
    /// libcudart among the program's global symbols, as in a linked program: a preloaded library may interpose.
    Global,
    /// By handle, as ctypes does: a preloaded library is passed by.
    Handle,
    /// No libcudart at all, only the driver by handle, as with a static libcudart.
    Static,
}

/// How the process that did the work ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum End {
    /// Returns from main.
    Exit,
    /// `_exit`: no handlers run, as with os._exit of Python.
    OsExit,
    /// `abort`.
    Abort,
    /// Killed by SIGSEGV.
    Segv,
    /// Sleeps for ever.
    Hang,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn decode(line: &str) -> Decode {
        let Command::Decode(args) = Args::try_parse_from(line.split(' ')).unwrap().command;
        args
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn fork_takes_a_number_only_with_an_equals_sign() {
        assert_eq!(decode("colonel-sim decode").fork, None);
        assert_eq!(decode("colonel-sim decode --fork --graph").fork, Some(1));
        assert_eq!(decode("colonel-sim decode --fork=3").fork, Some(3));
        assert!(Args::try_parse_from(["colonel-sim", "decode", "--fork", "3"]).is_err());
    }
}
