//! Raw counter data on its way from the guest to the evaluator: `samples/PID-START/DEVICE.samples`.
//!
//! A file is a row of frames, each written at once, so that a killed process leaves whole ones and perhaps half a last
//! one. The first describes all that follows. Numbers are little endian.

use std::io::{self, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Folder of the raw data in a session.
pub const SAMPLES_DIR: &str = "samples";
/// What the files are called: device ordinal, dot, this.
pub const EXTENSION: &str = "samples";
/// Before each frame.
const MARK: [u8; 4] = *b"CLNf";
/// Version of the frames.
pub const VERSION: u32 = 1;
/// A longer frame is none of ours.
const MAX_FRAME: u64 = 1 << 30;

/// What the frames of a file are of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`].
    pub version: u32,
    /// The process.
    pub pid: u32,
    /// Its start time in clock ticks since boot.
    pub start_ticks: u64,
    /// CUDA device ordinal in it.
    pub device_id: u32,
    /// The chip, as CUPTI's profiler host knows it.
    pub chip: String,
    /// The libcupti that sampled.
    pub cupti: PathBuf,
    /// Its API version.
    pub cupti_version: u32,
    /// Libraries that it needs loaded before.
    pub helpers: Vec<PathBuf>,
    /// To be added to the samples' times for Unix ns.
    pub clock_offset_ns: i64,
    /// What was sampled.
    pub metrics: Vec<SampledMetric>,
    /// Bytes of a counter data image.
    pub image_bytes: u64,
    /// Samples that it holds.
    pub max_samples: u32,
    /// Bytes of the hardware's buffer.
    pub hardware_buffer_bytes: u64,
}

/// A metric of the samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampledMetric {
    /// `counters.metric`.
    pub name: String,
    /// `counters.unit`.
    pub unit: String,
    /// What NVIDIA calls it on this chip.
    pub source: String,
}

/// What happened between images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// Sampling started, or went on at another interval.
    Started {
        /// Unix ns.
        time_ns: i64,
        /// Between samples.
        interval_ns: u64,
    },
    /// It stopped; all that came is in the file.
    Stopped {
        /// Unix ns.
        time_ns: i64,
    },
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// What the file holds.
    Header(Box<Header>),
    /// What the device can count, as CUPTI gives it.
    Availability(Vec<u8>),
    /// What happened.
    Event(Event),
    /// Samples.
    Image {
        /// Start and end of each, on CUPTI's clock.
        times: Vec<(u64, u64)>,
        /// The counter data image, compressed by zstd.
        compressed: Vec<u8>,
    },
}

const HEADER: u32 = 1;
const AVAILABILITY: u32 = 2;
const EVENT: u32 = 3;
const IMAGE: u32 = 4;

impl Frame {
    /// Its bytes in the file.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let (kind, payload) = match self {
            Frame::Header(header) => (HEADER, serde_json::to_vec(header)?),
            Frame::Availability(image) => (AVAILABILITY, image.clone()),
            Frame::Event(event) => (EVENT, serde_json::to_vec(event)?),
            Frame::Image { times, compressed } => {
                let mut payload = Vec::with_capacity(4 + times.len() * 16 + compressed.len());
                payload.extend(u32::try_from(times.len()).unwrap_or(u32::MAX).to_le_bytes());
                for (start, end) in times {
                    payload.extend(start.to_le_bytes());
                    payload.extend(end.to_le_bytes());
                }
                payload.extend(compressed);
                (IMAGE, payload)
            }
        };
        let mut bytes = Vec::with_capacity(16 + payload.len());
        bytes.extend(MARK);
        bytes.extend(kind.to_le_bytes());
        bytes.extend((payload.len() as u64).to_le_bytes());
        bytes.extend(payload);
        Ok(bytes)
    }

    fn parse(kind: u32, payload: Vec<u8>) -> io::Result<Option<Frame>> {
        Ok(match kind {
            HEADER => Some(Frame::Header(serde_json::from_slice(&payload)?)),
            AVAILABILITY => Some(Frame::Availability(payload)),
            EVENT => Some(Frame::Event(serde_json::from_slice(&payload)?)),
            IMAGE => Some(image(&payload).ok_or(io::ErrorKind::InvalidData)?),
            // Of a newer colonel.
            _ => None,
        })
    }
}

fn image(payload: &[u8]) -> Option<Frame> {
    let (count, rest) = payload.split_first_chunk::<4>()?;
    let count = u32::from_le_bytes(*count) as usize;
    let (times, compressed) = rest.split_at_checked(count.checked_mul(16)?)?;
    let (pairs, _) = times.as_chunks::<16>();
    let number = |bytes: &[u8]| bytes.first_chunk().map(|chunk| u64::from_le_bytes(*chunk));
    let times = pairs
        .iter()
        .map(|pair| Some((number(&pair[..8])?, number(&pair[8..])?)));
    Some(Frame::Image {
        times: times.collect::<Option<_>>()?,
        compressed: compressed.to_vec(),
    })
}

/// Reads frames; what the end of the file cuts off is not one.
#[derive(Debug)]
pub struct Frames<R> {
    from: R,
    /// The file ended within a frame.
    pub cut_off: bool,
}

impl<R: Read> Frames<R> {
    /// From the beginning of a file.
    pub fn new(from: R) -> Self {
        Self { from, cut_off: false }
    }

    fn read(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let mut head = [0_u8; 16];
            match read_up_to(&mut self.from, &mut head)? {
                0 => return Ok(None),
                16 => {}
                _ => {
                    self.cut_off = true;
                    return Ok(None);
                }
            }
            let (mark, rest) = head.split_at(4);
            let (kind, length) = rest.split_at(4);
            let kind = kind.first_chunk().map_or(0, |kind| u32::from_le_bytes(*kind));
            let length = length
                .first_chunk()
                .map_or(u64::MAX, |length| u64::from_le_bytes(*length));
            if mark != MARK || length > MAX_FRAME {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "not a frame of samples"));
            }
            let mut payload = Vec::new();
            let got = self.from.by_ref().take(length).read_to_end(&mut payload)?;
            if (got as u64) < length {
                self.cut_off = true;
                return Ok(None);
            }
            if let Some(frame) = Frame::parse(kind, payload)? {
                return Ok(Some(frame));
            }
        }
    }
}

fn read_up_to(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < bytes.len() {
        match from.read(&mut bytes[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

impl<R: Read> Iterator for Frames<R> {
    type Item = io::Result<Frame>;

    fn next(&mut self) -> Option<io::Result<Frame>> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Availability(vec![1, 2, 3]),
            Frame::Event(Event::Started {
                time_ns: 5,
                interval_ns: 20_000,
            }),
            Frame::Image {
                times: vec![(1, 2), (2, 3)],
                compressed: vec![9; 100],
            },
        ]
    }

    fn bytes() -> Vec<u8> {
        frames().iter().flat_map(|frame| frame.to_bytes().unwrap()).collect()
    }

    #[test]
    fn frames_are_read_as_they_were_written() {
        let bytes = bytes();
        let read: Vec<Frame> = Frames::new(&*bytes).map(Result::unwrap).collect();
        assert_eq!(read, frames());
    }

    #[test]
    fn a_file_cut_off_anywhere_gives_the_whole_frames_before() {
        let bytes = bytes();
        for cut in 0..bytes.len() {
            let mut reader = Frames::new(&bytes[..cut]);
            let read: Vec<Frame> = reader.by_ref().map(Result::unwrap).collect();
            assert_eq!(read, frames()[..read.len()]);
            let whole: usize = read.iter().map(|frame| frame.to_bytes().unwrap().len()).sum();
            assert_eq!(reader.cut_off, cut > whole);
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        assert!(Frames::new(&[7_u8; 64][..]).next().unwrap().is_err());
        let mut wrong = Frame::Image {
            times: vec![(1, 2)],
            compressed: Vec::new(),
        }
        .to_bytes()
        .unwrap();
        wrong[16] = 200;
        assert!(Frames::new(&*wrong).next().unwrap().is_err());
    }
}
