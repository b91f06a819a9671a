//! The decode loop: phases of steps, some of them inside a profiler window, on one or more threads.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::args::{Decode, Resolve};
use crate::driver::Driver;
use crate::gpu::{Gpu, Handle};
use crate::runtime::Runtime;

/// What was launched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Count {
    pub(crate) kernels: u64,
    pub(crate) kernels_in_windows: u64,
}

impl std::iter::Sum for Count {
    fn sum<I: Iterator<Item = Count>>(counts: I) -> Count {
        counts.fold(Count::default(), |sum, count| Count {
            kernels: sum.kernels + count.kernels,
            kernels_in_windows: sum.kernels_in_windows + count.kernels_in_windows,
        })
    }
}

/// Steps in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Phase {
    steps: u64,
    kind: PhaseKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PhaseKind {
    /// The program makes no profiler calls: all its work counts as in a window.
    Whole,
    /// Between a cudaProfilerStart and a cudaProfilerStop.
    Window,
    /// Before, between or after windows.
    Outside,
}

fn phases(args: &Decode) -> Vec<Phase> {
    if args.windows == 0 {
        return vec![Phase {
            steps: args.steps,
            kind: PhaseKind::Whole,
        }];
    }
    let outside = Phase {
        steps: args.outside,
        kind: PhaseKind::Outside,
    };
    let window = Phase {
        steps: args.steps,
        kind: PhaseKind::Window,
    };
    [outside]
        .into_iter()
        .chain((0..args.windows).flat_map(|_| [window, outside]))
        .collect()
}

/// Does the work in this process and returns what it launched.
pub(crate) fn run(args: &Decode) -> Result<Count> {
    match args.resolve {
        Resolve::Static => run_on(&Driver::open(args)?, args),
        Resolve::Global | Resolve::Handle => run_on(&Runtime::open(args)?, args),
    }
}

fn run_on(gpu: &impl Gpu, args: &Decode) -> Result<Count> {
    let phases = phases(args);
    if args.threads == 1 {
        let worker = Worker::new(gpu, args)?;
        let mut count = Count::default();
        for phase in phases {
            count = [count, windowed(gpu, phase, || worker.run(phase))?].into_iter().sum();
        }
        worker.finish()?;
        return Ok(count);
    }
    run_threads(gpu, args, &phases)
}

/// Runs `work` inside a profiler window if the phase is one.
fn windowed<R>(gpu: &impl Gpu, phase: Phase, work: impl FnOnce() -> Result<R>) -> Result<R> {
    if phase.kind != PhaseKind::Window {
        return work();
    }
    gpu.profiler_start()?;
    let done = work()?;
    gpu.profiler_stop()?;
    Ok(done)
}

/// Threads that live through all phases; this one opens and closes the windows while they stand at the barrier. One
/// that fails keeps coming to the barrier, so that nobody waits for it.
fn run_threads(gpu: &impl Gpu, args: &Decode, phases: &[Phase]) -> Result<Count> {
    let barrier = Barrier::new(args.threads as usize + 1);
    let thread = || -> Result<Count> {
        let worker = Worker::new(gpu, args);
        let mut counts = Vec::new();
        for phase in phases {
            barrier.wait();
            counts.push(
                worker
                    .as_ref()
                    .map_err(|problem| anyhow!("{problem:#}"))
                    .and_then(|worker| worker.run(*phase)),
            );
            barrier.wait();
        }
        worker?.finish()?;
        counts.into_iter().sum()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads).map(|_| scope.spawn(thread)).collect();
        let mut opened = Ok(());
        for phase in phases {
            let is_window = phase.kind == PhaseKind::Window;
            let started = if is_window { gpu.profiler_start() } else { Ok(()) };
            barrier.wait();
            barrier.wait();
            let stopped = if is_window { gpu.profiler_stop() } else { Ok(()) };
            opened = opened.and(started).and(stopped);
        }
        let counts: Result<Count> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
            .sum();
        opened.and(counts)
    })
}

/// One stream and the thread that feeds it.
struct Worker<'a, G> {
    gpu: &'a G,
    args: &'a Decode,
    stream: Handle,
    graph: Option<Handle>,
}

impl<'a, G: Gpu> Worker<'a, G> {
    fn new(gpu: &'a G, args: &'a Decode) -> Result<Self> {
        gpu.bind_thread()?;
        let stream = gpu.create_stream()?;
        let mut worker = Worker {
            gpu,
            args,
            stream,
            graph: None,
        };
        if args.graph {
            gpu.begin_capture(stream)?;
            worker.launch_kernels()?;
            worker.graph = Some(gpu.end_capture(stream)?);
        }
        Ok(worker)
    }

    fn launch_kernels(&self) -> Result<()> {
        (0..self.args.kernels).try_for_each(|index| self.gpu.launch(index, self.args.kernels, self.stream))
    }

    /// Runs a phase; the last steps of a window may be left running.
    fn run(&self, phase: Phase) -> Result<Count> {
        let in_flight = if phase.kind == PhaseKind::Outside {
            0
        } else {
            self.args.in_flight
        };
        for step in 0..phase.steps {
            let begun = Instant::now();
            self.step(step + in_flight < phase.steps)?;
            let left = Duration::from_micros(self.args.step_us).saturating_sub(begun.elapsed());
            if !left.is_zero() {
                std::thread::sleep(left);
            }
        }
        let kernels = phase.steps * self.args.kernels as u64;
        let kernels_in_windows = if phase.kind == PhaseKind::Outside { 0 } else { kernels };
        Ok(Count {
            kernels,
            kernels_in_windows,
        })
    }

    fn step(&self, synchronize: bool) -> Result<()> {
        self.gpu.copy_in(self.stream)?;
        self.gpu.fill(self.stream)?;
        if self.args.peer {
            self.gpu.copy_peer(self.stream)?;
        }
        match self.graph {
            Some(graph) => self.gpu.launch_graph(graph, self.stream)?,
            None => self.launch_kernels()?,
        }
        if synchronize {
            self.gpu.synchronize(self.stream)
        } else {
            Ok(())
        }
    }

    /// Waits for what is still running.
    fn finish(&self) -> Result<()> {
        self.gpu.synchronize(self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;

    fn phases_of(line: &str) -> Vec<(u64, PhaseKind)> {
        let Command::Decode(args) = Args::try_parse_from(line.split(' ')).unwrap().command;
        phases(&args).iter().map(|phase| (phase.steps, phase.kind)).collect()
    }

    #[test]
    fn windows_have_steps_around_them() {
        use PhaseKind::{Outside, Whole, Window};
        assert_eq!(phases_of("sim decode --steps 5"), [(5, Whole)]);
        assert_eq!(
            phases_of("sim decode --steps 5 --windows 2 --outside 1"),
            [(1, Outside), (5, Window), (1, Outside), (5, Window), (1, Outside)]
        );
    }
}
