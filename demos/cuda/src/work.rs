//! Launches the kernels, on one or more threads, and counts what it launched.

use std::sync::{Arc, Barrier};
use std::time::Instant;

use anyhow::{Context, Result};
use cudarc::driver::{
    CudaContext, CudaGraph, CudaSlice, CudaStream, LaunchConfig, PushKernelArg, profiler_start, profiler_stop, sys,
};
use serde::Serialize;

use crate::Args;
use crate::kernels::{self, Kernels};

const BLOCK: u32 = 256;

/// The line on stdout: what colonel's rows must equal.
#[derive(Debug, Serialize)]
pub(crate) struct Launched {
    /// Kernels, all of them.
    pub(crate) kernels: u64,
    /// Kernels between cuProfilerStart and cuProfilerStop; all of them without `--windows`.
    pub(crate) kernels_in_windows: u64,
    /// Always 1.
    pub(crate) processes: u32,
    /// This process.
    pub(crate) pids: [u32; 1],
    /// `eager` or `graph`.
    pub(crate) mode: &'static str,
    /// Where the kernels came from: `nvrtc` or `ptx`.
    pub(crate) source: &'static str,
    /// Steps a thread and repetition.
    pub(crate) steps: u32,
    /// Host threads.
    pub(crate) threads: u32,
    /// Grid of each kernel, in blocks.
    pub(crate) grid_x: u32,
    /// Block of each kernel, in threads.
    pub(crate) block_x: u32,
    /// Median time of a step of the first thread, µs.
    pub(crate) step_us: f64,
    /// The numbers are what the same arithmetic gives on the host.
    pub(crate) correct: bool,
}

/// One thread's stream and data.
struct Lane<'a> {
    args: &'a Args,
    kernels: Kernels,
    stream: Arc<CudaStream>,
    state: CudaSlice<u32>,
    seeds: Vec<u32>,
    graph: Option<CudaGraph>,
}

impl<'a> Lane<'a> {
    fn new(args: &'a Args, context: &Arc<CudaContext>, kernels: &Kernels, thread: u32) -> Result<Self> {
        let stream = context.new_stream()?;
        let seeds: Vec<u32> = (0..args.elements)
            .map(|i| i.wrapping_mul(2_654_435_761).wrapping_add(thread + 1))
            .collect();
        let state = stream.clone_htod(&seeds)?;
        stream.synchronize()?;
        let mut lane = Self {
            args,
            kernels: kernels.clone(),
            stream,
            state,
            seeds,
            graph: None,
        };
        if args.graph {
            lane.stream
                .begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
            lane.launch()?;
            lane.graph = lane.stream.end_capture(sys::CUgraphInstantiate_flags(0))?;
            lane.graph.as_ref().context("capture gave no graph")?.upload()?;
            lane.stream.synchronize()?;
        }
        Ok(lane)
    }

    fn launch(&mut self) -> Result<()> {
        let count = self.args.elements;
        let config = LaunchConfig {
            grid_dim: (count.div_ceil(BLOCK), 1, 1),
            block_dim: (BLOCK, 1, 1),
            shared_mem_bytes: 0,
        };
        for launch in 0..self.args.kernels {
            let function = if launch % 2 == 0 {
                &self.kernels.lcg
            } else {
                &self.kernels.xorshift
            };
            let mut builder = self.stream.launch_builder(function);
            builder.arg(&mut self.state).arg(&count);
            // SAFETY: both kernels take a pointer to `count` numbers and `count`, and check their index against it.
            unsafe { builder.launch(config) }?;
        }
        Ok(())
    }

    /// All steps once; the time of each in µs.
    fn steps(&mut self) -> Result<Vec<f64>> {
        let mut times = Vec::with_capacity(self.args.steps as usize);
        for _ in 0..self.args.steps {
            let begin = Instant::now();
            match &self.graph {
                Some(graph) => graph.launch()?,
                None => self.launch()?,
            }
            self.stream.synchronize()?;
            times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        Ok(times)
    }

    fn correct(&self, repetitions: u32) -> Result<bool> {
        let numbers = self.stream.clone_dtoh(&self.state)?;
        self.stream.synchronize()?;
        let steps = self.args.steps * repetitions;
        // Some of them, spread: the host is slow at this.
        let stride = (self.seeds.len() / 16).max(1);
        let pairs = self.seeds.iter().zip(&numbers).step_by(stride);
        Ok(pairs
            .into_iter()
            .all(|(&seed, &number)| kernels::expected(seed, steps, self.args.kernels) == number))
    }
}

/// Runs it all. With `--windows` each window holds all steps once, with one round of them outside before it.
pub(crate) fn run(context: &Arc<CudaContext>, args: &Args) -> Result<Launched> {
    // SAFETY: every slice is used on the stream that made it and on no other.
    unsafe { context.disable_event_tracking() };
    let kernels = Kernels::load(context, args.nvrtc.as_deref(), args.ptx)?;
    let repetitions = if args.windows == 0 { 1 } else { 2 * args.windows };
    let barrier = Barrier::new(args.threads as usize);

    let lane = |thread: u32| -> Result<(Vec<f64>, bool)> {
        context.bind_to_thread()?;
        let made = Lane::new(args, context, &kernels, thread);
        // A thread that failed still meets the others, or they would wait for ever.
        let mut result = made.map(|lane| (lane, Vec::new()));
        for repetition in 0..repetitions {
            let window = args.windows > 0 && repetition % 2 == 1;
            barrier.wait();
            if window && thread == 0 {
                result = result.and_then(|state| profiler_start().map(|()| state).context("cuProfilerStart failed"));
            }
            barrier.wait();
            result = result.and_then(|(mut lane, mut times)| {
                times.extend(lane.steps()?);
                Ok((lane, times))
            });
            barrier.wait();
            if window && thread == 0 {
                result = result.and_then(|state| profiler_stop().map(|()| state).context("cuProfilerStop failed"));
            }
        }
        let (lane, times) = result?;
        let correct = lane.correct(repetitions)?;
        Ok((times, correct))
    };
    let outcomes: Vec<Result<(Vec<f64>, bool)>> = std::thread::scope(|scope| {
        let lane = &lane;
        let others: Vec<_> = (1..args.threads)
            .map(|thread| scope.spawn(move || lane(thread)))
            .collect();
        let first = lane(0);
        std::iter::once(first)
            .chain(
                others
                    .into_iter()
                    .map(|other| other.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked"))),
            )
            .collect()
    });

    let mut correct = true;
    let mut first_times = Vec::new();
    for (thread, outcome) in outcomes.into_iter().enumerate() {
        let (times, right) = outcome.with_context(|| format!("thread `{thread}` failed"))?;
        correct &= right;
        if thread == 0 {
            first_times = times;
        }
    }
    first_times.sort_by(f64::total_cmp);
    let each = u64::from(args.steps) * u64::from(args.kernels) * u64::from(args.threads);
    Ok(Launched {
        kernels: each * u64::from(repetitions),
        kernels_in_windows: if args.windows == 0 {
            each
        } else {
            each * u64::from(args.windows)
        },
        processes: 1,
        pids: [std::process::id()],
        mode: if args.graph { "graph" } else { "eager" },
        source: kernels.source,
        steps: args.steps,
        threads: args.threads,
        grid_x: args.elements.div_ceil(BLOCK),
        block_x: BLOCK,
        step_us: first_times.get(first_times.len() / 2).copied().unwrap_or_default(),
        correct,
    })
}
