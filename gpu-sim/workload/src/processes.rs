//! Who does the work: this process, or forked children that tell their counts through a pipe. The summary is printed
//! before any of them ends in the way that `--end` asks for.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::args::{Decode, End};
use crate::decode::{self, Count};

/// The last line on stdout.
#[derive(Debug, serde::Serialize)]
struct Summary {
    #[serde(flatten)]
    count: Count,
    /// Processes that used CUDA.
    processes: usize,
    pids: Vec<u32>,
}

/// A forked child and the two pipes to it.
struct Child {
    pid: libc::pid_t,
    /// Its count comes from here.
    count: BufReader<File>,
    /// Closed once the summary is printed: then it may end.
    printed: File,
}

pub(crate) fn run(args: &Decode) -> Result<ExitCode> {
    set_environment(args);
    let Some(number) = args.fork else {
        let count = decode::run(args)?;
        print(&Summary {
            count,
            processes: 1,
            pids: vec![std::process::id()],
        })?;
        return Ok(end(args));
    };
    let mut children = Vec::new();
    for _ in 0..number {
        match fork()? {
            Forked::Parent(child) => children.push(child),
            Forked::Child(tell, printed) => {
                // The pipes of earlier children stay open here; so does nothing that would keep the parent waiting,
                // since it reads from each child's own end.
                drop(children);
                return work(args, tell, printed);
            }
        }
    }
    gather(children)
}

/// Settings that the stand-ins read from the environment when they are loaded.
fn set_environment(args: &Decode) {
    let set = |name: &str, value: String| {
        // SAFETY: no other thread exists yet.
        unsafe { std::env::set_var(name, value) };
    };
    if let Some(speed) = args.gpu_speed {
        set("COLONEL_SIM_SPEED", speed.to_string());
    }
    if args.peer && std::env::var_os("COLONEL_SIM_DEVICES").is_none() {
        set("COLONEL_SIM_DEVICES", "2".into());
    }
}

fn print(summary: &Summary) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(summary)?)?;
    stdout.flush().context("stdout cannot be written")
}

/// Ends this process as asked; a normal end is returned.
fn end(args: &Decode) -> ExitCode {
    match args.end {
        End::Exit => ExitCode::from(args.code),
        // SAFETY: ends the process at once, which is what is asked for.
        End::OsExit => unsafe { libc::_exit(i32::from(args.code)) },
        // SAFETY: as above.
        End::Abort => unsafe { libc::abort() },
        End::Segv => {
            // SAFETY: takes Rust's handler away, which would return; then the signal kills.
            unsafe {
                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                libc::raise(libc::SIGSEGV);
            }
            ExitCode::FAILURE
        }
        End::Hang => loop {
            std::thread::sleep(Duration::from_secs(3_600));
        },
    }
}

enum Forked {
    Parent(Child),
    Child(File, File),
}

fn pipe() -> Result<[File; 2]> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(std::io::Error::last_os_error()).context("no pipe");
    }
    // SAFETY: both were just opened and belong to nobody else.
    Ok(ends.map(|end| File::from(unsafe { OwnedFd::from_raw_fd(end) })))
}

fn fork() -> Result<Forked> {
    let [count, tell] = pipe()?;
    let [printed, told] = pipe()?;
    // SAFETY: no other thread exists yet, so the child may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()).context("no fork"),
        0 => {
            drop((count, told));
            Ok(Forked::Child(tell, printed))
        }
        pid => Ok(Forked::Parent(Child {
            pid,
            count: BufReader::new(count),
            printed: told,
        })),
    }
}

/// The child: works, tells its count, waits until the parent has printed, ends.
fn work(args: &Decode, mut tell: File, mut printed: File) -> Result<ExitCode> {
    let count = decode::run(args)?;
    writeln!(tell, "{}", serde_json::to_string(&count)?)?;
    drop(tell);
    // Ends when the parent closes its end, be it by dying.
    printed.read_to_end(&mut Vec::new())?;
    Ok(end(args))
}

/// The parent: prints the sum, lets the children end, and ends as the first of them that failed, else as the first.
fn gather(children: Vec<Child>) -> Result<ExitCode> {
    let pids = children.iter().map(|child| child.pid as u32).collect();
    let mut counts = Vec::new();
    let mut running = Vec::new();
    for mut child in children {
        let mut line = String::new();
        child.count.read_line(&mut line)?;
        counts.push(serde_json::from_str::<Count>(&line).with_context(|| format!("child {} failed", child.pid)));
        running.push((child.pid, child.printed));
    }
    let processes = running.len();
    if counts.iter().all(Result::is_ok) {
        let count = counts.iter().flatten().copied().sum();
        print(&Summary { count, processes, pids })?;
    }
    let (pids, printed): (Vec<_>, Vec<_>) = running.into_iter().unzip();
    drop(printed);
    let codes = pids.into_iter().map(wait).collect::<Result<Vec<_>>>()?;
    counts.into_iter().collect::<Result<Vec<_>>>()?;
    let code = codes
        .iter()
        .find(|code| **code != 0)
        .or(codes.first())
        .copied()
        .unwrap_or(0);
    Ok(ExitCode::from(code))
}

/// Waits for a child; its exit code, or 128 and the number of the signal that killed it.
fn wait(pid: libc::pid_t) -> Result<u8> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place to write to.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            bail!("child {pid} is lost: {error}");
        }
    }
    let code = if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    };
    Ok(code as u8)
}
