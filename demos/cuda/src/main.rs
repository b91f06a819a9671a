//! A real CUDA workload: N steps of K small kernels, launched one by one or replayed as a CUDA graph, whose result is
//! checked and whose last line on stdout says what was launched. It is what colonel's rows are compared with.
//!
//! Exit codes: 0, 1 (a call failed or the result is wrong), 2 (usage), 3 (no GPU or no driver here).

mod kernels;
mod work;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cudarc::driver::CudaContext;

/// Exit code where there is nothing to run on.
const NO_GPU: u8 = 3;

#[derive(Debug, Parser)]
#[command(
    version,
    about = "Launch small CUDA kernels, check their result, say what was launched"
)]
struct Args {
    /// Steps, each launched and waited for
    #[arg(long, default_value_t = 100)]
    steps: u32,
    /// Kernels a step
    #[arg(long, default_value_t = 336, value_parser = clap::value_parser!(u32).range(1..))]
    kernels: u32,
    /// Replay each step as a CUDA graph
    #[arg(long)]
    graph: bool,
    /// Host threads, each with a stream and data of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Open a window by cuProfilerStart/Stop this many times; each holds all steps once
    #[arg(long, default_value_t = 0)]
    windows: u32,
    /// Numbers in the data of a thread
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    elements: u32,
    /// CUDA device
    #[arg(long, default_value_t = 0)]
    device: usize,
    /// The libnvrtc to compile with, where it is not found by name
    #[arg(long)]
    nvrtc: Option<PathBuf>,
    /// Use the embedded PTX, do not look for NVRTC
    #[arg(long)]
    ptx: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let context = match open(args.device) {
        Ok(context) => context,
        Err(reason) => {
            say(&format!("demo-cuda: {reason}"));
            return ExitCode::from(NO_GPU);
        }
    };
    match work::run(&context, &args) {
        Ok(launched) => {
            let line = serde_json::to_string(&launched).unwrap_or_default();
            if writeln!(std::io::stdout(), "{line}").is_err() {
                return ExitCode::FAILURE;
            }
            if launched.correct {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(problem) => {
            say(&format!("demo-cuda: {problem:#}"));
            ExitCode::FAILURE
        }
    }
}

fn say(message: &str) {
    // Nothing is left to tell it to when stderr is closed.
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// Functions of the driver without which cudarc would panic half-way.
const NEEDED: [&str; 12] = [
    "cuDevicePrimaryCtxRetain",
    "cuStreamCreate",
    "cuMemAllocAsync",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuFuncGetAttribute",
    "cuLaunchKernel",
    "cuStreamBeginCapture_v2",
    "cuGraphInstantiateWithFlags",
    "cuGraphUpload",
];

/// Opens the device, or says why there is none.
fn open(device: usize) -> Result<std::sync::Arc<CudaContext>, String> {
    // SAFETY: only loads the driver's library, which stays loaded for what follows.
    let driver = unsafe { libloading::Library::new("libcuda.so.1") };
    let Ok(driver) = driver else {
        return Err("no NVIDIA driver here: `libcuda.so.1` not found; run on a machine with an NVIDIA GPU".to_owned());
    };
    // SAFETY: the symbols are looked for, not used.
    let missing = |name: &&&str| unsafe { driver.get::<*const ()>(name.as_bytes()) }.is_err();
    if let Some(name) = NEEDED.iter().find(missing) {
        return Err(format!(
            "`libcuda.so.1` has no `{name}`: expected the driver of CUDA 11.4 or later, found an older one or a stand-in"
        ));
    }
    CudaContext::new(device)
        .map_err(|error| format!("no usable GPU: device `{device}` did not open: {error}; see `nvidia-smi`"))
}
