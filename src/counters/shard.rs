//! One process's share of a raw file: every so-manieth image, turned into rows by NVIDIA's profiler host.

use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};

use cupti_sys::counters::{Host, Names, load_helpers};
use cupti_sys::loader;
use serde::{Deserialize, Serialize};
use zstd::bulk::Decompressor;

use crate::counters::placing::Placing;
use crate::schema::manifest::{PROCESSES_DIR, Process, ProcessId};
use crate::schema::samples::{Event, Frame, Frames, Header, VERSION};
use crate::schema::tables::{CounterRow, CountersBuilder};
use crate::session::{Recorder, Rows, SessionError, process_name_of};

/// Samples between two lines of progress.
const TELL_EVERY: u64 = 1_000;

/// What one process is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The session.
    pub session: PathBuf,
    /// File of raw counter data.
    pub raw: PathBuf,
    /// Folder for the rows.
    pub into: PathBuf,
    /// Which share, from 0.
    pub number: usize,
    /// How many shares.
    pub of: usize,
    /// Another libcupti than the one that sampled.
    pub cupti: Option<PathBuf>,
}

/// The command that takes a [`Shard`]'s arguments.
pub const COMMAND: [&str; 2] = ["counters", "shard"];

impl Shard {
    /// Arguments of the program that carries it out.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = COMMAND.map(OsString::from).to_vec();
        let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        add("--session", self.session.clone().into());
        add("--raw", self.raw.clone().into());
        add("--into", self.into.clone().into());
        add("--number", self.number.to_string().into());
        add("--of", self.of.to_string().into());
        if let Some(cupti) = &self.cupti {
            add("--cupti", cupti.clone().into());
        }
        arguments
    }
}

/// What a process says on its stdout.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// So many more bytes of raw data are done.
    Bytes(u64),
    /// It is done.
    Done(Report),
}

/// What came of a share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Samples evaluated.
    pub samples: u64,
    /// Samples outside of every window, or without a length.
    pub left_out: u64,
    /// Rows written.
    pub rows: u64,
    /// CPU time.
    pub cpu_ns: u64,
    /// The file ends within a frame.
    pub cut_off: bool,
}

/// Why a share could not be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The raw file can't be read.
    #[error("can't be read: {0}")]
    Raw(#[from] std::io::Error),
    /// It does not begin as it should.
    #[error("holds no samples: {0}")]
    NoHeader(&'static str),
    /// Of a later colonel.
    #[error("has version {0}, and this colonel reads {VERSION}: use the colonel that recorded it")]
    TooNew(u32),
    /// libcupti is not there any more, or does not fit.
    #[error("needs the libcupti that sampled: {0}; name one with `colonel counters --cupti FILE`")]
    Cupti(String),
    /// It was loaded, and refuses.
    #[error("`{}` does not evaluate samples of chip {chip}: {failure}", cupti.display())]
    Refused {
        /// The libcupti.
        cupti: PathBuf,
        /// The chip.
        chip: String,
        /// Its words.
        failure: cupti_sys::counters::Failure,
    },
    /// The rows can't be written.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Evaluates a share, telling of it on stdout.
pub fn run(shard: &Shard) -> Result<(), ShardError> {
    let mut frames = Frames::new(BufReader::with_capacity(1 << 20, File::open(&shard.raw)?));
    let (header, availability) = head(&mut frames)?;
    let mut evaluator = Evaluator::new(shard, &header, &availability)?;
    let mut image = 0_usize;
    let mut is_first = true;
    let mut report = Report::default();
    for frame in frames.by_ref() {
        match frame? {
            Frame::Event(Event::Started { .. }) => is_first = true,
            Frame::Image { times, compressed } => {
                if image % shard.of == shard.number {
                    evaluator.image(&times, &compressed, is_first, &mut report)?;
                }
                image += 1;
                is_first = false;
            }
            _ => {}
        }
    }
    report.cut_off = frames.cut_off;
    evaluator.finish()?;
    report.cpu_ns = cpu_ns();
    say(&Line::Done(report));
    Ok(())
}

fn head(frames: &mut Frames<BufReader<File>>) -> Result<(Header, Vec<u8>), ShardError> {
    let header = match frames.next().transpose()? {
        Some(Frame::Header(header)) if header.version == VERSION => *header,
        Some(Frame::Header(header)) => return Err(ShardError::TooNew(header.version)),
        _ => return Err(ShardError::NoHeader("it does not say what they are of")),
    };
    match frames.next().transpose()? {
        Some(Frame::Availability(image)) => Ok((header, image)),
        _ => Err(ShardError::NoHeader("it does not say what the device can count")),
    }
}

/// A line on stdout, for the process that started this one.
fn say(line: &Line) {
    if let Ok(text) = serde_json::to_string(line) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

/// CPU time of this process.
fn cpu_ns() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID);
    time.map_or(0, |time| {
        let ns = time.tv_sec() * 1_000_000_000 + time.tv_nsec();
        u64::try_from(ns).unwrap_or(0)
    })
}

struct Evaluator<'a> {
    header: &'a Header,
    host: Host,
    names: Names,
    cupti: PathBuf,
    placing: Placing,
    decompressor: Decompressor<'static>,
    recorder: Recorder,
    rows: Rows<CountersBuilder>,
    process: ProcessId,
    untold: (u64, u64),
}

impl<'a> Evaluator<'a> {
    fn new(shard: &Shard, header: &'a Header, availability: &[u8]) -> Result<Self, ShardError> {
        let process = ProcessId {
            pid: header.pid,
            start_ticks: header.start_ticks,
        };
        let (host, names, cupti) = host(shard, header, availability)?;
        Ok(Self {
            placing: Placing::new(&windows(&shard.session, process)?.windows),
            decompressor: Decompressor::new()?,
            recorder: Recorder::new(&shard.into),
            rows: Rows::default(),
            untold: (0, 0),
            header,
            host,
            names,
            cupti,
            process,
        })
    }

    fn image(
        &mut self,
        times: &[(u64, u64)],
        compressed: &[u8],
        is_first: bool,
        report: &mut Report,
    ) -> Result<(), ShardError> {
        let room = usize::try_from(self.header.image_bytes).unwrap_or(usize::MAX);
        let image = self.decompressor.decompress(compressed, room)?;
        let mut values = vec![0.0; self.names.len()];
        for (sample, &(start, end)) in times.iter().enumerate() {
            // The first one after a start began at no defined time.
            let window = self.place(start, end).filter(|_| !(is_first && sample == 0));
            let Some((start_ns, end_ns, window)) = window else {
                report.left_out += 1;
                continue;
            };
            let evaluated = self.host.evaluate(&image, sample, &self.names, &mut values);
            evaluated.map_err(|failure| ShardError::Refused {
                cupti: self.cupti.clone(),
                chip: self.header.chip.clone(),
                failure,
            })?;
            for (metric, value) in self.header.metrics.iter().zip(&values) {
                let row = CounterRow {
                    pid: self.header.pid,
                    device_id: self.header.device_id,
                    start_ns,
                    end_ns,
                    metric: &metric.name,
                    value: value.is_finite().then_some(*value),
                    unit: &metric.unit,
                    window,
                };
                self.rows.push(&mut self.recorder, self.process, row)?;
            }
            report.samples += 1;
            report.rows += values.len() as u64;
        }
        self.tell(times.len() as u64, compressed.len() as u64 + 16 * times.len() as u64);
        Ok(())
    }

    /// Its times in Unix ns, and its window.
    fn place(&self, start: u64, end: u64) -> Option<(i64, i64, u32)> {
        let unix = |time: u64| time.cast_signed().saturating_add(self.header.clock_offset_ns);
        let (start_ns, end_ns) = (unix(start), unix(end));
        if start == 0 || end_ns <= start_ns {
            return None;
        }
        Some((start_ns, end_ns, self.placing.window_of(start_ns, end_ns)?))
    }

    fn tell(&mut self, samples: u64, bytes: u64) {
        self.untold = (self.untold.0 + samples, self.untold.1 + bytes);
        if self.untold.0 >= TELL_EVERY {
            say(&Line::Bytes(self.untold.1));
            self.untold = (0, 0);
        }
    }

    fn finish(mut self) -> Result<(), ShardError> {
        Ok(self.rows.finish(&mut self.recorder)?)
    }
}

/// The profiler host for the samples of a file.
fn host(shard: &Shard, header: &Header, availability: &[u8]) -> Result<(Host, Names, PathBuf), ShardError> {
    let unusable = |error: &dyn std::fmt::Display| ShardError::Cupti(error.to_string());
    let cupti = match &shard.cupti {
        None => {
            load_helpers(&header.helpers, &header.cupti).map_err(|error| unusable(&error))?;
            loader::open_without_gpu(&header.cupti).map_err(|error| unusable(&error))?
        }
        Some(path) => {
            let cupti = loader::open_without_gpu(path).map_err(|error| unusable(&error))?;
            cupti_sys::counters::prepare(&cupti).map_err(|error| unusable(&error))?;
            cupti
        }
    };
    let refused = |failure| ShardError::Refused {
        cupti: cupti.path.clone(),
        chip: header.chip.clone(),
        failure,
    };
    let names = Names::new(header.metrics.iter().map(|metric| &metric.source));
    let chip = CString::new(header.chip.as_str()).unwrap_or_default();
    let mut host = Host::new(&cupti.functions, &chip, Some(availability)).map_err(refused)?;
    host.add(&names).map_err(refused)?;
    Ok((host, names, cupti.path))
}

/// The process's own file, which knows its windows.
fn windows(session: &Path, process: ProcessId) -> Result<Process, ShardError> {
    let path = session
        .join(PROCESSES_DIR)
        .join(format!("{}.json", process_name_of(process)));
    let text = fs::read(&path).map_err(SessionError::io("read", &path))?;
    let parsed = serde_json::from_slice(&text);
    Ok(parsed.map_err(|source| SessionError::Json { path, source })?)
}
