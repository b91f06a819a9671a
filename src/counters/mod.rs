//! From raw counter data to the table `counters`: what the guest leaves to be done after the run, on all cores.
//!
//! NVIDIA's library evaluates a sample in 30 us (few metrics) to some 500 us (all), and is not ours: so each core gets a
//! process of its own ([`shard`]), and one that dies takes no session with it. Rows are made aside and moved into the session when all of a
//! file are there, so that a broken-off evaluation can be done again.

mod placing;
pub mod shard;

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::schema::manifest::{Evaluation, ProcessId};
use crate::schema::samples::{EXTENSION, SAMPLES_DIR};
use crate::session::{SessionError, process_id_of, process_name_of};
use shard::{Report, Shard};

/// More processes than this make the disk the bottleneck.
const MOST_SHARDS: usize = 16;
/// Each has this much to do at least: to load the library takes 0.2 s of CPU time, as much as this does or more.
const LEAST_BYTES: u64 = 2 << 20;
/// Evaluation that takes longer is broken off, to be done again on demand.
const PATIENCE: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(50);
/// Beside the raw file: rows that are not the session's yet.
const UNFINISHED: &str = "evaluating";
/// What a raw file is called that was evaluated and kept: it is not evaluated twice.
const KEPT: &str = "evaluated";

/// Code of the problem of a session whose samples are still raw.
pub const NOT_EVALUATED: &str = "counters_not_evaluated";

/// What an evaluation is to do.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Leave the raw files, as `*.evaluated`.
    pub keep: bool,
    /// Another libcupti than the one that sampled.
    pub cupti: Option<&'a Path>,
    /// Set when it is to be broken off.
    pub stop: &'a AtomicBool,
}

/// Told of samples done, and of bytes of raw data done and in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// A file of raw counter data.
#[derive(Debug, Clone)]
pub struct RawFile {
    path: PathBuf,
    process: ProcessId,
    bytes: u64,
}

/// Raw files of a session that wait for evaluation.
pub fn raw_files(session: &Path) -> io::Result<Vec<RawFile>> {
    let folder = session.join(SAMPLES_DIR);
    let mut files = Vec::new();
    for process in entries(&folder)? {
        let Some(id) = process.file_name().and_then(process_id_of) else {
            continue;
        };
        for path in entries(&process)? {
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                files.push(RawFile {
                    bytes: fs::metadata(&path)?.len(),
                    process: id,
                    path,
                });
            }
        }
    }
    Ok(files)
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
            paths.sort();
            Ok(paths)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Evaluates every raw file of a session, but for those of `running` processes. What could not be is said in words, and
/// its raw file stays.
pub fn evaluate(
    session: &Path,
    running: &[u32],
    options: Options<'_>,
    progress: Progress<'_>,
) -> Result<(Evaluation, Vec<String>), SessionError> {
    let read = SessionError::io("read", session.join(SAMPLES_DIR));
    let files = raw_files(session).map_err(read)?;
    let whole: u64 = files.iter().map(|file| file.bytes).sum();
    let started = Instant::now();
    let mut evaluation = Evaluation::default();
    let mut failures = Vec::new();
    let mut done = 0;
    for file in files {
        if running.contains(&file.process.pid) {
            failures.push(format!("`{}`: its process still runs", file.path.display()));
            continue;
        }
        let until = started + PATIENCE;
        let result = evaluate_file(session, &file, &options, until, &mut |bytes| {
            progress(done + bytes, whole)
        });
        done += file.bytes;
        match result {
            Ok(of_file) => {
                evaluation.add(&of_file.0);
                failures.extend(of_file.1);
                let gone = if options.keep {
                    fs::rename(&file.path, file.path.with_extension(KEPT))
                } else {
                    fs::remove_file(&file.path)
                };
                gone.map_err(SessionError::io("remove", &file.path))?;
            }
            Err(failure) => failures.push(format!("`{}`: {failure}", file.path.display())),
        }
    }
    remove_empty(&session.join(SAMPLES_DIR));
    evaluation.wall_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok((evaluation, failures))
}

/// Folders without anything left in them.
fn remove_empty(folder: &Path) {
    for process in entries(folder).unwrap_or_default() {
        let _ = fs::remove_dir(process);
    }
    let _ = fs::remove_dir(folder);
}

fn evaluate_file(
    session: &Path,
    file: &RawFile,
    options: &Options<'_>,
    until: Instant,
    progress: &mut dyn FnMut(u64),
) -> Result<(Evaluation, Vec<String>), String> {
    let aside = file.path.with_extension(UNFINISHED);
    let _ = fs::remove_dir_all(&aside);
    let result = run_shards(session, file, &aside, options, until, progress).and_then(|reports| {
        let moved = move_rows(session, file.process, &aside, reports.len());
        moved.map_err(|error| format!("its rows could not be moved into the session: {error}"))?;
        Ok(reports)
    });
    let _ = fs::remove_dir_all(&aside);
    let reports = result?;
    let mut evaluation = Evaluation {
        shards: u32::try_from(reports.len()).unwrap_or(u32::MAX),
        ..Evaluation::default()
    };
    let mut remarks = Vec::new();
    for report in reports {
        evaluation.samples += report.samples;
        evaluation.left_out += report.left_out;
        evaluation.rows += report.rows;
        evaluation.cpu_ns += report.cpu_ns;
        if report.cut_off && remarks.is_empty() {
            remarks.push(format!(
                "`{}` ends within a block of samples, which was lost: its process was killed",
                file.path.display()
            ));
        }
    }
    Ok((evaluation, remarks))
}

/// Processes at work, killed with this.
struct Shards(Vec<Child>);

impl Drop for Shards {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Processes that a file of raw data is worth.
fn shards_for(bytes: u64) -> usize {
    usize::try_from(1 + bytes / LEAST_BYTES).unwrap_or(MOST_SHARDS)
}

fn run_shards(
    session: &Path,
    file: &RawFile,
    aside: &Path,
    options: &Options<'_>,
    until: Instant,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Report>, String> {
    let cores = thread::available_parallelism().map_or(1, |count| count.get());
    let of = cores.min(MOST_SHARDS).min(shards_for(file.bytes));
    let program = std::env::current_exe().map_err(|error| format!("colonel itself could not be found: {error}"))?;
    let bytes = AtomicU64::new(0);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        let mut shards = Shards(Vec::new());
        for number in 0..of {
            let shard = Shard {
                session: session.to_owned(),
                raw: file.path.clone(),
                into: aside.join(number.to_string()),
                number,
                of,
                cupti: options.cupti.map(Path::to_owned),
            };
            let mut child = Command::new(&program)
                .args(shard.arguments())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .map_err(|error| format!("a process of its own could not be started: {error}"))?;
            let stdout = child.stdout.take();
            let (sender, bytes) = (sender.clone(), &bytes);
            scope.spawn(move || {
                let lines = stdout.map(BufReader::new).into_iter().flat_map(|stdout| stdout.lines());
                for line in lines.map_while(Result::ok) {
                    match serde_json::from_str::<shard::Line>(&line) {
                        Ok(shard::Line::Done(report)) => drop(sender.send(report)),
                        Ok(shard::Line::Bytes(more)) => drop(bytes.fetch_add(more, Ordering::Relaxed)),
                        Err(_) => {}
                    }
                }
            });
            shards.0.push(child);
        }
        drop(sender);
        wait(&mut shards, options.stop, until, &mut || {
            progress(bytes.load(Ordering::Relaxed))
        })?;
        Ok::<_, String>(())
    })?;
    let reports: Vec<Report> = receiver.into_iter().collect();
    if reports.len() < of {
        return Err("a process ended without its report".to_owned());
    }
    Ok(reports)
}

/// Waits for all; the first that fails ends the others.
fn wait(shards: &mut Shards, stop: &AtomicBool, until: Instant, look: &mut dyn FnMut()) -> Result<(), String> {
    let mut running: Vec<usize> = (0..shards.0.len()).collect();
    while !running.is_empty() {
        look();
        if stop.load(Ordering::Relaxed) {
            return Err("a signal came first".to_owned());
        }
        if Instant::now() > until {
            return Err(format!("it takes more than {} minutes", PATIENCE.as_secs() / 60));
        }
        let mut failure = None;
        running.retain(|index| {
            let child = &mut shards.0[*index];
            match child.try_wait() {
                Ok(None) => true,
                Ok(Some(status)) if status.success() => false,
                Ok(Some(status)) => {
                    failure =
                        Some(words_of(child).unwrap_or_else(|| format!("a process of its own ended with {status}")));
                    false
                }
                Err(error) => {
                    failure = Some(error.to_string());
                    false
                }
            }
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        if !running.is_empty() {
            thread::sleep(POLL);
        }
    }
    Ok(())
}

/// The last line that a process that failed has said.
fn words_of(child: &mut Child) -> Option<String> {
    let lines = BufReader::new(child.stderr.take()?).lines().map_while(Result::ok);
    let last = lines.filter(|line| !line.trim().is_empty()).last()?;
    Some(last.trim_start_matches("colonel: ").to_owned())
}

/// Makes the shards' segments the session's.
fn move_rows(session: &Path, process: ProcessId, aside: &Path, shards: usize) -> io::Result<()> {
    let to = session.join("counters").join(process_name_of(process));
    fs::create_dir_all(&to)?;
    let mut number = entries(&to)?.len();
    for shard in 0..shards {
        let from = aside
            .join(shard.to_string())
            .join("counters")
            .join(process_name_of(process));
        for segment in entries(&from)? {
            number += 1;
            fs::rename(segment, to.join(format!("{number:06}.parquet")))?;
        }
    }
    Ok(())
}
