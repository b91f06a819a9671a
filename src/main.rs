//! The command `colonel`.

use std::process::ExitCode;

fn main() -> ExitCode {
    colonel::cli::main(std::env::args_os())
}
