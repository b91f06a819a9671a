//! A device that is sampled: from its hardware buffer into a file of raw counter data. What the data mean is worked out
//! after the run, since that takes 25 to 50 us of CPU time a sample.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use cupti_sys::constants::DECODE_STOPPED_IMAGE_FULL;
use cupti_sys::counters::{Failure, Names, Sampling, availability, chip};
use cupti_sys::loader::Cupti;
use zstd::bulk::Compressor;

use crate::inject::config::CountersConfig;
use crate::inject::counters::choice::choose;
use crate::inject::counters::refusals::{self, Refusal};
use crate::inject::descriptors;
use crate::inject::entry;
use crate::inject::guest::Guest;
use crate::inject::log::log;
use crate::inject::losses::Reason;
use crate::inject::threads::now_ns;
use crate::schema::manifest::Sampled;
use crate::schema::samples::{EXTENSION, Event, Frame, Header, SAMPLES_DIR, VERSION};

/// Samples that wait to be fetched. One of all metrics takes some 16 kB on an H100: 0.8 s of them at 100 us.
const HARDWARE_BUFFER_BYTES: usize = 128 << 20;
/// A counter data image at most, of which there is one a device. A sample of all metrics takes 99 kB on an H100, and what
/// finds no room in the image is gone: the more room, the longer the thread may be kept from running.
const IMAGE_BYTES: usize = 32 << 20;
/// Samples of an image: those of this time, within limits.
const IMAGE_TIME: Duration = Duration::from_millis(200);
const IMAGE_SAMPLES: std::ops::RangeInclusive<usize> = 64..=4096;
/// An image is stored once a decode may find no room in it, or it has waited this long: to store and empty one costs what its size costs.
const STORE_EVERY: Duration = Duration::from_millis(100);
/// Images on end that samples were missing in, until the interval is lengthened: once may be chance.
const LOSING_IMAGES: u32 = 3;
/// Longest interval that sampling falls back to.
const MAX_INTERVAL_NS: u64 = 1_600_000;
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
    image: Vec<u8>,
    /// Samples in it, and the most that a decode has brought.
    held: usize,
    most_at_once: usize,
    /// Since when the image is filled.
    filled_since: Instant,
    /// Images on end that samples were missing in.
    losing: u32,
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
    starting: Duration,
    decoding: Duration,
    asking_times: Duration,
    compressing: Duration,
    writing: Duration,
    emptying: Duration,
    stopping: Duration,
    decodes: u64,
    images: u64,
    /// Images that had no room for more, and overflows of the hardware buffer.
    full: u64,
    overflows: u64,
    /// Samples that were not all there when their image was emptied.
    partial: u64,
}

/// Adds the time that something takes.
fn timed<T>(spent: &mut Duration, act: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = act();
    *spent += started.elapsed();
    done
}

/// What such a call was the first to make, the process's exit tears down before all that was there already: with us still
/// within CUPTI a program that ended then died (H100). So our handler is put in front again, and waits for us.
pub(super) fn before_teardown<T>(called: T) -> T {
    entry::finish_at_exit();
    called
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
        let opened = Instant::now();
        let chip = before_teardown(chip(functions, ordinal)).map_err(failed)?;
        // Before the device is taken: it may fail after.
        let availability = before_teardown(availability(functions, ordinal)).map_err(failed)?;
        let choice = choose(functions, &chip, &availability, &wanted.metrics).map_err(failed)?;
        let chip = chip.to_string_lossy().into_owned();
        if choice.metrics.is_empty() {
            return Err(refusals::no_metric(ordinal, &chip));
        }
        let choosing = opened.elapsed();
        let sampling = before_teardown(Sampling::enable(functions, ordinal)).map_err(failed)?;
        let interval_ns = u64::try_from(wanted.interval.as_nanos()).unwrap_or(u64::MAX);
        // The size of an image is only known then.
        sampling
            .configure(&choice.config, HARDWARE_BUFFER_BYTES, interval_ns)
            .map_err(failed)?;
        let names = Names::new(choice.metrics.iter().map(|metric| &metric.source));
        let (image, max_samples) = image(&sampling, &names, wanted.interval).map_err(failed)?;
        log!(
            "device {ordinal}: metrics chosen in {choosing:?}, taken in {:?}",
            opened.elapsed() - choosing
        );
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
            image_bytes: image.len() as u64,
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
                image_bytes: image.len() as u64,
                image_samples: max_samples,
                ..Sampled::default()
            },
            guest,
            sampling,
            config: choice.config,
            image,
            held: 0,
            most_at_once: 0,
            filled_since: Instant::now(),
            losing: 0,
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
        let began = Instant::now();
        let started = self.sampling.start().or_else(|failure| self.start_anew(&failure));
        self.spent.starting += began.elapsed();
        started.map_err(|failure| refusals::failed(&failure, ordinal))?;
        self.runs = true;
        self.last_end = None;
        self.filled_since = Instant::now();
        self.losing = 0;
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
        let stopped = timed(&mut self.spent.stopping, || self.sampling.stop());
        self.fetch_rest()?;
        self.keep(&Frame::Event(Event::Stopped { time_ns: now_ns() }))?;
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

    /// How long the next fetch may wait: an eighth of what an image has room for.
    pub(super) fn rest(&self) -> Duration {
        let full = self
            .state
            .interval_ns
            .saturating_mul(u64::from(self.state.image_samples));
        Duration::from_nanos(full / 8).clamp(FETCH_EVERY[0], FETCH_EVERY[1])
    }

    /// Fetches what is left, once sampling has stopped.
    fn fetch_rest(&mut self) -> Result<(), Refusal> {
        while self.fetch_image()? != Fetched::All {}
        Ok(())
    }

    fn fetch_image(&mut self) -> Result<Fetched, Refusal> {
        let ordinal = self.state.device_id;
        let failed = |failure| refusals::failed(&failure, ordinal);
        self.spent.decodes += 1;
        let (decoded, held) = timed(&mut self.spent.decoding, || {
            let decoded = self.sampling.decode(&mut self.image)?;
            Ok((decoded, self.sampling.held(&self.image)?))
        })
        .map_err(failed)?;
        let is_full = decoded.stop_reason == DECODE_STOPPED_IMAGE_FULL;
        self.most_at_once = self.most_at_once.max(held.completed.saturating_sub(self.held));
        self.held = held.completed;
        let room = self.state.image_samples as usize - held.completed.min(self.state.image_samples as usize);
        let is_nearly_full = room < self.most_at_once.max(self.state.image_samples as usize / 4);
        let is_due = is_full || is_nearly_full || !self.runs || self.filled_since.elapsed() > STORE_EVERY;
        if is_due && held.completed > 0 {
            self.store(held.completed)?;
            self.spent.partial += held.populated.saturating_sub(held.completed) as u64;
            timed(&mut self.spent.emptying, || self.sampling.empty(&mut self.image)).map_err(failed)?;
            self.filled_since = Instant::now();
            self.held = 0;
        }
        self.spent.full += u64::from(is_full);
        self.spent.overflows += u64::from(decoded.overflow);
        Ok(match () {
            _ if self.runs && (decoded.overflow || self.losing >= LOSING_IMAGES) => Fetched::Overflow,
            _ if held.completed > 0 && (is_full || !self.runs) => Fetched::More,
            _ => Fetched::All,
        })
    }

    fn store(&mut self, count: usize) -> Result<(), Refusal> {
        let ordinal = self.state.device_id;
        let times: Result<Vec<(u64, u64)>, _> = timed(&mut self.spent.asking_times, || {
            let samples = 0..count;
            samples
                .map(|sample| self.sampling.sample_times(&self.image, sample))
                .collect()
        });
        let times = times.map_err(|failure| refusals::failed(&failure, ordinal))?;
        self.count_gaps(&times);
        let compressed = timed(&mut self.spent.compressing, || self.compressor.compress(&self.image));
        let frame = compressed.map(|compressed| Frame::Image { times, compressed });
        let frame = frame.map_err(|error| self.not_written(&error, count as u64))?;
        let started = Instant::now();
        self.keep(&frame)?;
        self.spent.writing += started.elapsed();
        self.spent.images += 1;
        self.state.samples += count as u64;
        Ok(())
    }

    /// Samples that are missing between two that follow each other.
    fn count_gaps(&mut self, times: &[(u64, u64)]) {
        let interval = self.state.interval_ns;
        let mut missing = 0;
        for (start, end) in times {
            match self.last_end {
                // What an H100 gives once stopped may have times of seconds ago.
                Some(last) if *end <= last => continue,
                Some(last) => missing += (start.saturating_sub(last) + interval / 2) / interval,
                None => {}
            }
            self.last_end = Some(*end);
        }
        // A few are lost where an image ends between the parts of a sample.
        let is_losing = missing > times.len() as u64 / 10 + 2;
        self.losing = if is_losing { self.losing + 1 } else { 0 };
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
        let _ = timed(&mut self.spent.stopping, || self.sampling.stop());
        self.runs = false;
        self.fetch_rest()?;
        let interval = self.state.interval_ns;
        self.state.interval_ns = interval.saturating_mul(2).min(interval.max(MAX_INTERVAL_NS));
        log!(
            "device {ordinal}: samples are lost, one every {} ns from now on",
            self.state.interval_ns
        );
        self.guest.problem(
            "counters_slowed_down",
            format!(
                "samples of device {ordinal} came faster than they could be stored: those that the hardware had no room \
                 for are counted as lost, and the interval was lengthened from {} us (see `counters` of the process in \
                 session.json); sample fewer metrics, or use --counters-interval",
                self.state.asked_interval_ns / 1000
            ),
        );
        let last_ns = self.last_end.map_or(stopped_ns, u64::cast_signed);
        // Configured a second time, an H100 (CUPTI 13.0) went on at the old interval.
        let goes_on = self.take_anew().map_err(|failure| refusals::failed(&failure, ordinal));
        let started = goes_on.and_then(|()| self.start());
        // What came since the buffer was full, as far as it can be told.
        self.lose(u64::try_from(now_ns() - last_ns).unwrap_or(0) / interval);
        started
    }

    /// An H100 (CUPTI 13.0) refused to start what had been started and stopped before, with CUPTI_ERROR_UNKNOWN.
    fn start_anew(&mut self, failure: &Failure) -> Result<(), Failure> {
        log!("device {}: {failure}; it is taken anew", self.state.device_id);
        self.take_anew()?;
        self.sampling.start()
    }

    /// Gives the device back, takes it again, and configures it.
    fn take_anew(&mut self) -> Result<(), Failure> {
        self.sampling.enable_again()?;
        self.sampling
            .configure(&self.config, HARDWARE_BUFFER_BYTES, self.state.interval_ns)?;
        self.sampling.empty(&mut self.image)
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

impl Drop for Device {
    fn drop(&mut self) {
        let state = &self.state;
        log!(
            "device {}: {} samples of {} metrics, {} lost, {} images of {} bytes for {} samples, {} bytes written, {:?}",
            state.device_id,
            state.samples,
            state.metrics.len(),
            state.lost_samples,
            self.spent.images,
            state.image_bytes,
            state.image_samples,
            state.raw_bytes,
            self.spent
        );
    }
}

/// An empty image, and the samples that it holds.
fn image(sampling: &Sampling, names: &Names, interval: Duration) -> Result<(Vec<u8>, u32), Failure> {
    let [few, more] = [64, 128].map(|samples| sampling.image_bytes(names, samples));
    let a_sample = (more?.saturating_sub(few?) / 64).max(1);
    let in_time = usize::try_from(IMAGE_TIME.as_nanos() / interval.as_nanos().max(1)).unwrap_or(usize::MAX);
    let samples = in_time
        .min(IMAGE_BYTES / a_sample)
        .clamp(*IMAGE_SAMPLES.start(), *IMAGE_SAMPLES.end());
    let samples = u32::try_from(samples).unwrap_or(u32::MAX);
    let mut image = vec![0_u8; sampling.image_bytes(names, samples)?];
    sampling.empty(&mut image)?;
    Ok((image, samples))
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
