//! A device that is sampled: from its hardware buffer into a file of raw counter data. What the data mean is worked out
//! after the run, since that takes 25 to 50 us of CPU time a sample.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use cupti_sys::constants::DECODE_STOPPED_IMAGE_FULL;
use cupti_sys::counters::{Names, Sampling, availability, chip};
use cupti_sys::loader::Cupti;
use zstd::bulk::Compressor;

use crate::inject::config::CountersConfig;
use crate::inject::counters::choice::choose;
use crate::inject::counters::refusals::{self, Refusal};
use crate::inject::descriptors;
use crate::inject::guest::Guest;
use crate::inject::log::log;
use crate::inject::losses::Reason;
use crate::inject::threads::now_ns;
use crate::schema::manifest::Sampled;
use crate::schema::samples::{EXTENSION, Event, Frame, Header, SAMPLES_DIR, VERSION};

/// Samples that wait to be fetched: at 20 us between samples of all metrics some tenths of a second.
const HARDWARE_BUFFER_BYTES: usize = 128 << 20;
/// A counter data image, about, of which there are two a device; a third is the compressed one.
const IMAGE_BYTES: usize = 8 << 20;
/// Samples of an image.
const IMAGE_SAMPLES: std::ops::RangeInclusive<usize> = 16..=4096;
/// Longest interval that sampling falls back to.
const MAX_INTERVAL_NS: u64 = 1_000_000;
/// Raw data of a device on disk at most.
const MAX_FILE_BYTES: u64 = 16 << 30;
/// Fetches are this far apart at most, and at least.
const FETCH_EVERY: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];
/// Images of a fetch at most, so that a thread that can't keep up still sees a window close.
const IMAGES_AT_ONCE: usize = 8;
/// Speed before size: the data are mostly zeros, and this runs beside the program.
const COMPRESSION_LEVEL: i32 = -3;

/// One device.
pub(super) struct Device {
    guest: &'static Guest,
    sampling: Sampling,
    config: Vec<u8>,
    /// An image without samples, and the one in use.
    blank: Vec<u8>,
    image: Vec<u8>,
    compressor: Compressor<'static>,
    file: File,
    /// End of the last sample, while sampling runs.
    last_end: Option<u64>,
    runs: bool,
    spent: Spent,
    pub(super) state: Sampled,
}

/// What the hardware had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetched {
    All,
    /// More than an image holds.
    More,
    /// More than its buffer holds.
    Overflow,
}

/// Where the thread's time goes, for `COLONEL_LOG`.
#[derive(Debug, Default)]
struct Spent {
    decoding: Duration,
    asking_times: Duration,
    compressing: Duration,
    writing: Duration,
}

impl Device {
    /// Takes the device and readies everything; sampling does not run yet.
    pub(super) fn open(
        guest: &'static Guest,
        cupti: &Cupti,
        helpers: &[std::path::PathBuf],
        wanted: &CountersConfig,
        ordinal: u32,
    ) -> Result<Device, Refusal> {
        let functions = &cupti.functions;
        let failed = |failure| refusals::failed(&failure, ordinal);
        let chip = chip(functions, ordinal).map_err(failed)?;
        // Before the device is taken: it may fail after.
        let availability = availability(functions, ordinal).map_err(failed)?;
        let choice = choose(functions, &chip, &availability, &wanted.metrics).map_err(failed)?;
        let chip = chip.to_string_lossy().into_owned();
        if choice.metrics.is_empty() {
            return Err(refusals::no_metric(ordinal, &chip));
        }
        let sampling = Sampling::enable(functions, ordinal).map_err(failed)?;
        let interval_ns = u64::try_from(wanted.interval.as_nanos()).unwrap_or(u64::MAX);
        // The size of an image is only known then.
        sampling
            .configure(&choice.config, HARDWARE_BUFFER_BYTES, interval_ns)
            .map_err(failed)?;
        let names = Names::new(choice.metrics.iter().map(|metric| &metric.source));
        let blank = image(&sampling, &names).map_err(failed)?;
        let max_samples = blank.1;
        let header = Header {
            version: VERSION,
            pid: guest.identity.pid,
            start_ticks: guest.identity.start_ticks,
            device_id: ordinal,
            chip: chip.clone(),
            cupti: absolute(&cupti.path),
            cupti_version: cupti.version,
            helpers: helpers.iter().map(|helper| absolute(helper)).collect(),
            clock_offset_ns: crate::inject::attach::clock_offset(cupti),
            metrics: choice.metrics.clone(),
            image_bytes: blank.0.len() as u64,
            max_samples,
            hardware_buffer_bytes: HARDWARE_BUFFER_BYTES as u64,
        };
        let not_written = |error: io::Error| {
            let message = format!("failed to write the samples of device {ordinal}: {error}; none are taken");
            ("counters_not_written", message)
        };
        let mut device = Device {
            state: Sampled {
                device_id: ordinal,
                chip,
                metrics: choice.metrics.into_iter().map(|metric| metric.name).collect(),
                left_out: choice.left_out,
                asked_interval_ns: interval_ns,
                interval_ns,
                hardware_buffer_bytes: HARDWARE_BUFFER_BYTES as u64,
                image_bytes: blank.0.len() as u64,
                image_samples: max_samples,
                ..Sampled::default()
            },
            guest,
            sampling,
            config: choice.config,
            image: blank.0.clone(),
            blank: blank.0,
            compressor: Compressor::new(COMPRESSION_LEVEL).map_err(not_written)?,
            file: create(guest, ordinal).map_err(not_written)?,
            last_end: None,
            runs: false,
            spent: Spent::default(),
        };
        device.write(&Frame::Header(Box::new(header))).map_err(not_written)?;
        device.write(&Frame::Availability(availability)).map_err(not_written)?;
        Ok(device)
    }

    /// Starts sampling, if it does not run.
    pub(super) fn start(&mut self) -> Result<(), Refusal> {
        if self.runs {
            return Ok(());
        }
        let ordinal = self.state.device_id;
        self.sampling
            .start()
            .map_err(|failure| refusals::failed(&failure, ordinal))?;
        self.runs = true;
        self.last_end = None;
        let event = Event::Started {
            time_ns: now_ns(),
            interval_ns: self.state.interval_ns,
        };
        self.keep(&Frame::Event(event))
    }

    /// Stops, and fetches what is left.
    pub(super) fn stop(&mut self) -> Result<(), Refusal> {
        if !std::mem::take(&mut self.runs) {
            return Ok(());
        }
        let ordinal = self.state.device_id;
        let stopped = self.sampling.stop();
        self.fetch_rest()?;
        self.keep(&Frame::Event(Event::Stopped { time_ns: now_ns() }))?;
        log!("device {ordinal}: {} samples, {:?}", self.state.samples, self.spent);
        stopped.map_err(|failure| refusals::failed(&failure, ordinal))
    }

    /// Fetches the samples that the hardware has; where it had no room for more, sampling goes on at a longer interval.
    pub(super) fn fetch(&mut self) -> Result<(), Refusal> {
        for _ in 0..IMAGES_AT_ONCE {
            match self.fetch_image()? {
                Fetched::All => break,
                Fetched::More => {}
                Fetched::Overflow => return self.slow_down(),
            }
        }
        Ok(())
    }

    /// How long the next fetch may wait: until an image is almost full.
    pub(super) fn rest(&self) -> Duration {
        let full = self
            .state
            .interval_ns
            .saturating_mul(u64::from(self.state.image_samples));
        Duration::from_nanos(full / 4 * 3).clamp(FETCH_EVERY[0], FETCH_EVERY[1])
    }

    /// Fetches what is left, once sampling has stopped.
    fn fetch_rest(&mut self) -> Result<(), Refusal> {
        while self.fetch_image()? != Fetched::All {}
        Ok(())
    }

    fn fetch_image(&mut self) -> Result<Fetched, Refusal> {
        let ordinal = self.state.device_id;
        let failed = |failure| refusals::failed(&failure, ordinal);
        let started = Instant::now();
        self.image.copy_from_slice(&self.blank);
        let decoded = self.sampling.decode(&mut self.image).map_err(failed)?;
        let count = self.sampling.completed(&self.image).map_err(failed)?;
        self.spent.decoding += started.elapsed();
        if count > 0 {
            let started = Instant::now();
            let times: Result<Vec<(u64, u64)>, _> = (0..count)
                .map(|sample| self.sampling.sample_times(&self.image, sample))
                .collect();
            self.spent.asking_times += started.elapsed();
            self.store(times.map_err(failed)?)?;
        }
        Ok(match decoded.stop_reason {
            _ if decoded.overflow && self.runs => Fetched::Overflow,
            DECODE_STOPPED_IMAGE_FULL if count > 0 => Fetched::More,
            _ => Fetched::All,
        })
    }

    fn store(&mut self, times: Vec<(u64, u64)>) -> Result<(), Refusal> {
        self.count_gaps(&times);
        let count = times.len() as u64;
        let started = Instant::now();
        let compressed = self.compressor.compress(&self.image);
        self.spent.compressing += started.elapsed();
        let frame = compressed.map(|compressed| Frame::Image { times, compressed });
        let started = Instant::now();
        self.keep(&frame.map_err(|error| self.not_written(&error, count))?)?;
        self.spent.writing += started.elapsed();
        self.state.samples += count;
        Ok(())
    }

    /// Samples that are missing between two that follow each other.
    fn count_gaps(&mut self, times: &[(u64, u64)]) {
        let interval = self.state.interval_ns;
        let mut missing = 0;
        for (start, end) in times {
            if let Some(last) = self.last_end {
                missing += (start.saturating_sub(last) + interval / 2) / interval;
            }
            self.last_end = Some(*end);
        }
        self.lose(missing);
    }

    fn lose(&mut self, samples: u64) {
        self.state.lost_samples += samples;
        let rows = samples * self.state.metrics.len() as u64;
        self.guest
            .losses
            .add("counters", Reason::HardwareBufferFull, Some(rows));
    }

    fn slow_down(&mut self) -> Result<(), Refusal> {
        let ordinal = self.state.device_id;
        let stopped_ns = now_ns();
        let _ = self.sampling.stop();
        self.runs = false;
        self.fetch_rest()?;
        let interval = self.state.interval_ns;
        self.state.interval_ns = interval.saturating_mul(2).min(interval.max(MAX_INTERVAL_NS));
        log!(
            "device {ordinal}: hardware buffer full, samples every {} ns from now on",
            self.state.interval_ns
        );
        self.sampling
            .configure(&self.config, HARDWARE_BUFFER_BYTES, self.state.interval_ns)
            .map_err(|failure| refusals::failed(&failure, ordinal))?;
        self.guest.problem(
            "counters_slowed_down",
            format!(
                "samples of device {ordinal} came faster than they could be stored: those that the hardware had no room \
                 for are counted as lost, and the interval was lengthened from {} us (see `counters` of the process in \
                 session.json); sample fewer metrics, or use --counters-interval",
                self.state.asked_interval_ns / 1000
            ),
        );
        // What came since the buffer was full, as far as it can be told.
        let last_ns = self.last_end.map_or(stopped_ns, u64::cast_signed);
        let gap = u64::try_from(now_ns() - last_ns).unwrap_or(0);
        self.start()?;
        self.lose(gap / interval);
        Ok(())
    }

    fn keep(&mut self, frame: &Frame) -> Result<(), Refusal> {
        let samples = if let Frame::Image { times, .. } = frame {
            times.len()
        } else {
            0
        };
        if self.state.raw_bytes > MAX_FILE_BYTES {
            self.guest.losses.add("counters", Reason::WriteFailed, None);
            let message = format!(
                "the samples of device {} have reached {} GiB, and no more are kept; use a longer --counters-interval or \
                 shorter windows",
                self.state.device_id,
                MAX_FILE_BYTES >> 30
            );
            return Err(("counters_too_many", message));
        }
        self.write(frame)
            .map_err(|error| self.not_written(&error, samples as u64))
    }

    fn not_written(&self, error: &io::Error, samples: u64) -> Refusal {
        let rows = samples * self.state.metrics.len() as u64;
        self.guest.losses.add("counters", Reason::WriteFailed, Some(rows));
        let device = self.state.device_id;
        let message = format!("failed to write samples of device {device}: {error}; no more are taken");
        ("counters_not_written", message)
    }

    fn write(&mut self, frame: &Frame) -> io::Result<()> {
        let bytes = frame.to_bytes()?;
        self.file.write_all(&bytes)?;
        self.state.raw_bytes += bytes.len() as u64;
        Ok(())
    }
}

/// An image of about [`IMAGE_BYTES`], and the samples that it holds.
fn image(sampling: &Sampling, names: &Names) -> Result<(Vec<u8>, u32), cupti_sys::counters::Failure> {
    let [few, more] = [64, 128].map(|samples| sampling.image(names, samples).map(|image| image.len()));
    let a_sample = (more?.saturating_sub(few?) / 64).max(1);
    let samples = (IMAGE_BYTES / a_sample).clamp(*IMAGE_SAMPLES.start(), *IMAGE_SAMPLES.end());
    let samples = u32::try_from(samples).unwrap_or(u32::MAX);
    Ok((sampling.image(names, samples)?, samples))
}

/// Links within a runtime folder are gone when the samples are evaluated. A bare name stays one.
fn absolute(path: &std::path::Path) -> std::path::PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// A new file; a program that became another one by `exec` may have left some.
fn create(guest: &Guest, ordinal: u32) -> io::Result<File> {
    let folder = guest
        .config
        .session
        .join(SAMPLES_DIR)
        .join(guest.identity.folder_name());
    fs::create_dir_all(&folder)?;
    for attempt in 0_u32.. {
        let name = match attempt {
            0 => format!("{ordinal}.{EXTENSION}"),
            attempt => format!("{ordinal}-{attempt}.{EXTENSION}"),
        };
        match OpenOptions::new().append(true).create_new(true).open(folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return descriptors::above_standard(opened?),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
