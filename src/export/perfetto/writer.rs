//! Packets one behind the other. What was said once, tracks and texts, is remembered and named by number.

use std::collections::HashMap;
use std::io::Write;

use prost::Message as _;

use super::super::lanes::Lanes;
use super::super::{ExportError, Source};
use super::messages::{
    AnnotationValue, Clock, ClockSnapshot, DebugAnnotation, EventType, InternedData, InternedText, ProcessDescriptor,
    ThreadDescriptor, Trace, TracePacket, TrackDescriptor, TrackEvent,
};

/// All packets are of one sequence, whose texts are never forgotten.
const SEQUENCE: u32 = 1;
const STATE_CLEARED: u32 = 1;
const NEEDS_STATE: u32 = 2;
/// Perfetto's clocks. Times are Unix ns, so the clock that it shows is set to the wall's.
const REALTIME: u32 = 1;
const BOOTTIME: u32 = 6;

/// What a slice lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Track {
    Process {
        pid: u32,
    },
    Thread {
        pid: u32,
        thread_id: u32,
    },
    Calls {
        pid: u32,
        thread_id: u32,
    },
    Ranges {
        pid: u32,
        thread_id: u32,
    },
    Synchronizations {
        pid: u32,
    },
    Windows {
        pid: u32,
    },
    Gpu {
        pid: u32,
        device_id: u32,
    },
    /// Tables are written one after the other, so each has lanes of its own. Perfetto shows tracks of one name as one.
    Stream {
        pid: u32,
        device_id: u32,
        stream_id: u32,
        table: &'static str,
    },
}

/// A stretch of time on a track.
#[derive(Debug)]
pub(super) struct Slice<'a> {
    track: Track,
    category: &'a str,
    name: &'a str,
    start_ns: i64,
    /// `None`: it was open at the end.
    end_ns: Option<i64>,
    pub(super) is_instant: bool,
    /// It begins the arrow of this correlation id.
    pub(super) launches: Option<u32>,
    /// It ends that arrow.
    pub(super) launched_by: Option<u32>,
}

impl<'a> Slice<'a> {
    pub(super) fn new(track: Track, category: &'a str, name: &'a str, start_ns: i64, end_ns: Option<i64>) -> Self {
        Self {
            track,
            category,
            name,
            start_ns,
            end_ns,
            is_instant: false,
            launches: None,
            launched_by: None,
        }
    }
}

pub(super) struct Writer<W> {
    out: W,
    buffer: Vec<u8>,
    commands: HashMap<u32, String>,
    gpus: HashMap<(u32, u32), String>,
    /// Number of each track's each lane.
    tracks: HashMap<(Track, usize), u64>,
    lanes: HashMap<Track, Lanes>,
    texts: Texts,
}

/// Texts by kind, and those that no packet has had yet.
#[derive(Default)]
struct Texts {
    categories: HashMap<String, u64>,
    names: HashMap<String, u64>,
    annotation_names: HashMap<&'static str, u64>,
    values: HashMap<String, u64>,
    new: InternedData,
}

/// Collects what is noted of a slice.
pub(super) struct Annotations<'a> {
    texts: &'a mut Texts,
    of_slice: Vec<DebugAnnotation>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W, source: &mut Source<'_>) -> Result<Self, ExportError> {
        let processes = source.session().manifest().processes.iter();
        let commands = processes
            .map(|process| (process.pid, process.command.join(" ")))
            .collect();
        let gpus = source.devices()?.into_iter();
        let gpus = gpus.map(|gpu| ((gpu.pid, gpu.device_id), gpu.name)).collect();
        let base = unsigned(source.base_ns()?);
        let mut writer = Self {
            out,
            buffer: Vec::new(),
            commands,
            gpus,
            tracks: HashMap::new(),
            lanes: HashMap::new(),
            texts: Texts::default(),
        };
        let clocks = [REALTIME, BOOTTIME].map(|clock_id| Clock {
            clock_id,
            timestamp: base,
        });
        let snapshot = ClockSnapshot {
            clocks: clocks.to_vec(),
        };
        writer.packet(TracePacket {
            timestamp: Some(base),
            sequence_flags: Some(STATE_CLEARED),
            clock_snapshot: Some(snapshot),
            ..TracePacket::default()
        })?;
        Ok(writer)
    }

    /// Writes a slice and what `annotate` notes of it.
    pub(super) fn slice(
        &mut self,
        slice: &Slice<'_>,
        annotate: impl FnOnce(&mut Annotations<'_>),
    ) -> Result<(), ExportError> {
        let track_uuid = self.lane_of(slice)?;
        let name = intern(&mut self.texts.names, &mut self.texts.new.event_names, slice.name);
        let categories = &mut self.texts.categories;
        let category = intern(categories, &mut self.texts.new.event_categories, slice.category);
        let mut annotations = Annotations {
            texts: &mut self.texts,
            of_slice: Vec::new(),
        };
        annotate(&mut annotations);
        let flow = |id: Option<u32>| id.map(|id| u64::from(slice.track.pid()) << 32 | u64::from(id));
        let event = TrackEvent {
            r#type: if slice.is_instant {
                EventType::Instant
            } else {
                EventType::SliceBegin
            }
            .into(),
            track_uuid,
            category_iids: vec![category],
            name_iid: Some(name),
            debug_annotations: annotations.of_slice,
            flow_ids: flow(slice.launches).into_iter().collect(),
            terminating_flow_ids: flow(slice.launched_by).into_iter().collect(),
        };
        self.event(slice.start_ns, event)?;
        match slice.end_ns {
            Some(end_ns) if !slice.is_instant => {
                let event = TrackEvent {
                    r#type: EventType::SliceEnd.into(),
                    track_uuid,
                    ..TrackEvent::default()
                };
                self.event(end_ns, event)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn finish(self) -> Result<W, ExportError> {
        Ok(self.out)
    }

    fn event(&mut self, time_ns: i64, event: TrackEvent) -> Result<(), ExportError> {
        let new = std::mem::take(&mut self.texts.new);
        self.packet(TracePacket {
            timestamp: Some(unsigned(time_ns)),
            sequence_flags: Some(NEEDS_STATE),
            track_event: Some(event),
            interned_data: (new != InternedData::default()).then_some(new),
            ..TracePacket::default()
        })
    }

    fn packet(&mut self, packet: TracePacket) -> Result<(), ExportError> {
        let trace = Trace {
            packet: vec![TracePacket {
                trusted_packet_sequence_id: SEQUENCE,
                ..packet
            }],
        };
        self.buffer.clear();
        trace.encode(&mut self.buffer).map_err(std::io::Error::other)?;
        Ok(self.out.write_all(&self.buffer)?)
    }

    /// The track, or the lane of it, that has room for the slice.
    fn lane_of(&mut self, slice: &Slice<'_>) -> Result<u64, ExportError> {
        if slice.is_instant {
            return self.uuid(slice.track, 0);
        }
        // What has no end takes its lane for good: the end of another would close it.
        let end_ns = slice.end_ns.unwrap_or(i64::MAX);
        let mut place = |track: Track| {
            let lanes = self.lanes.entry(track).or_default();
            lanes.place(slice.start_ns, end_ns, track.nests())
        };
        match (slice.track, place(slice.track)) {
            // A thread has one track, which is found by its ids.
            (Track::Thread { pid, thread_id }, 1..) => {
                let beside = Track::Ranges { pid, thread_id };
                let lane = place(beside);
                self.uuid(beside, lane)
            }
            (track, lane) => self.uuid(track, lane),
        }
    }

    fn uuid(&mut self, track: Track, lane: usize) -> Result<u64, ExportError> {
        if let Some(&uuid) = self.tracks.get(&(track, lane)) {
            return Ok(uuid);
        }
        let parent_uuid = track.parent().map(|parent| self.uuid(parent, 0)).transpose()?;
        let uuid = self.tracks.len() as u64 + 1;
        self.tracks.insert((track, lane), uuid);
        let mut descriptor = TrackDescriptor {
            uuid,
            parent_uuid,
            ..TrackDescriptor::default()
        };
        let signed = |id: u32| i32::try_from(id).unwrap_or(i32::MAX);
        match track {
            Track::Process { pid } => {
                descriptor.process = Some(ProcessDescriptor {
                    pid: signed(pid),
                    process_name: self.commands.get(&pid).cloned().unwrap_or_default(),
                });
            }
            Track::Thread { pid, thread_id } => {
                descriptor.thread = Some(ThreadDescriptor {
                    pid: signed(pid),
                    tid: thread_id.into(),
                });
            }
            Track::Gpu { pid, device_id } => {
                let name = self.gpus.get(&(pid, device_id));
                let name = name.map_or_else(String::new, |name| format!(" {name}"));
                descriptor.name = Some(format!("GPU {device_id}{name}"));
            }
            Track::Stream { stream_id, .. } => descriptor.name = Some(format!("stream {stream_id}")),
            Track::Calls { .. } => descriptor.name = Some("CUDA calls".to_owned()),
            Track::Ranges { .. } => descriptor.name = Some("NVTX ranges that overlap".to_owned()),
            Track::Synchronizations { .. } => descriptor.name = Some("synchronizations".to_owned()),
            Track::Windows { .. } => descriptor.name = Some("windows".to_owned()),
        }
        self.packet(TracePacket {
            track_descriptor: Some(descriptor),
            ..TracePacket::default()
        })?;
        Ok(uuid)
    }
}

impl Track {
    fn pid(self) -> u32 {
        match self {
            Self::Process { pid }
            | Self::Thread { pid, .. }
            | Self::Calls { pid, .. }
            | Self::Ranges { pid, .. }
            | Self::Synchronizations { pid }
            | Self::Windows { pid }
            | Self::Gpu { pid, .. }
            | Self::Stream { pid, .. } => pid,
        }
    }

    fn parent(self) -> Option<Self> {
        let pid = self.pid();
        match self {
            Self::Process { .. } => None,
            // A thread's track is found by its ids.
            Self::Thread { .. } => None,
            Self::Calls { thread_id, .. } | Self::Ranges { thread_id, .. } => Some(Self::Thread { pid, thread_id }),
            Self::Synchronizations { .. } | Self::Windows { .. } | Self::Gpu { .. } => Some(Self::Process { pid }),
            Self::Stream { device_id, .. } => Some(Self::Gpu { pid, device_id }),
        }
    }

    /// Whether its slices lie in one another or beside one another, as a thread's do.
    fn nests(self) -> bool {
        matches!(self, Self::Thread { .. } | Self::Calls { .. })
    }
}

impl Annotations<'_> {
    pub(super) fn number(&mut self, name: &'static str, value: impl Into<u64>) {
        self.add(name, AnnotationValue::Uint(value.into()));
    }

    pub(super) fn some(&mut self, name: &'static str, value: Option<impl Into<u64>>) {
        if let Some(value) = value {
            self.number(name, value);
        }
    }

    pub(super) fn real(&mut self, name: &'static str, value: Option<f64>) {
        if let Some(value) = value {
            self.add(name, AnnotationValue::Double(value));
        }
    }

    pub(super) fn text(&mut self, name: &'static str, text: &str) {
        let new = &mut self.texts.new.debug_annotation_string_values;
        let iid = intern(&mut self.texts.values, new, text);
        self.add(name, AnnotationValue::StringIid(iid));
    }

    fn add(&mut self, name: &'static str, value: AnnotationValue) {
        let next = self.texts.annotation_names.len() as u64 + 1;
        let name_iid = *self.texts.annotation_names.entry(name).or_insert_with(|| {
            self.texts.new.debug_annotation_names.push(InternedText {
                iid: next,
                text: name.to_owned(),
            });
            next
        });
        self.of_slice.push(DebugAnnotation {
            name_iid,
            value: Some(value),
        });
    }
}

/// Number of a text; a new one goes into the next packet.
fn intern(known: &mut HashMap<String, u64>, new: &mut Vec<InternedText>, text: &str) -> u64 {
    if let Some(&iid) = known.get(text) {
        return iid;
    }
    let iid = known.len() as u64 + 1;
    known.insert(text.to_owned(), iid);
    new.push(InternedText {
        iid,
        text: text.to_owned(),
    });
    iid
}

fn unsigned(time_ns: i64) -> u64 {
    u64::try_from(time_ns).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn writer() -> Writer<Vec<u8>> {
        Writer {
            out: Vec::new(),
            buffer: Vec::new(),
            commands: HashMap::from([(7, "python".to_owned())]),
            gpus: HashMap::from([((7, 0), "H100".to_owned())]),
            tracks: HashMap::new(),
            lanes: HashMap::new(),
            texts: Texts::default(),
        }
    }

    const STREAM: Track = Track::Stream {
        pid: 7,
        device_id: 0,
        stream_id: 13,
        table: "kernels",
    };

    /// Slices as Perfetto reads them: sorted by time, an end closes what began last on its track.
    fn read(bytes: &[u8]) -> Vec<(u64, String, u64, u64)> {
        let mut packets = Trace::decode(bytes).unwrap().packet;
        let mut names = HashMap::new();
        for packet in &packets {
            for text in packet.interned_data.iter().flat_map(|data| &data.event_names) {
                assert!(
                    names.insert(text.iid, text.text.clone()).is_none(),
                    "a text is told once"
                );
            }
        }
        packets.sort_by_key(|packet| packet.timestamp);
        let (mut open, mut slices) = (BTreeMap::<u64, Vec<(String, u64)>>::new(), Vec::new());
        for packet in packets {
            let (Some(event), Some(time)) = (packet.track_event, packet.timestamp) else {
                continue;
            };
            let stack = open.entry(event.track_uuid).or_default();
            match event.name_iid {
                Some(name) => stack.push((names[&name].clone(), time)),
                None => {
                    let (name, start) = stack.pop().unwrap();
                    slices.push((event.track_uuid, name, start, time));
                }
            }
        }
        slices
    }

    proptest! {
        #[test]
        fn slices_come_back_as_they_were(mut given in prop::collection::vec((0_i64..500, 1_i64..50), 1..100)) {
            given.sort_unstable();
            let mut writer = writer();
            for (index, &(start, length)) in given.iter().enumerate() {
                let name = format!("kernel {}", index % 7);
                let slice = Slice::new(STREAM, "kernel", &name, start, Some(start + length));
                writer.slice(&slice, |slice| slice.text("name", &name)).unwrap();
            }
            let mut expected: Vec<_> = given.iter().enumerate().map(|(index, &(start, length))| {
                (format!("kernel {}", index % 7), start as u64, (start + length) as u64)
            }).collect();
            let mut found: Vec<_> = read(&writer.out).into_iter().map(|(_, name, start, end)| (name, start, end)).collect();
            expected.sort();
            found.sort();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_does_not_nest_closes_nothing_else() {
        let (pid, thread_id) = (7, 70);
        for track in [
            Track::Thread { pid, thread_id },
            Track::Ranges { pid, thread_id },
            Track::Calls { pid, thread_id },
        ] {
            let mut writer = writer();
            // Of two domains, and one that was never popped.
            let given = [
                ("a", 0, Some(10)),
                ("b", 5, Some(15)),
                ("open", 6, None),
                ("c", 12, Some(14)),
            ];
            for (name, start, end) in given {
                writer
                    .slice(&Slice::new(track, "nvtx", name, start, end), |_| {})
                    .unwrap();
            }
            let mut found: Vec<_> = read(&writer.out)
                .into_iter()
                .map(|(_, name, start, end)| (name, start, end))
                .collect();
            found.sort();
            let expected = [("a", 0, 10), ("b", 5, 15), ("c", 12, 14)];
            assert_eq!(found, expected.map(|(name, start, end)| (name.to_owned(), start, end)));
        }
    }

    #[test]
    fn a_stream_lies_in_its_gpu_and_that_in_its_process() {
        let mut writer = writer();
        let slice = Slice::new(STREAM, "kernel", "gemm", 5, Some(6));
        writer.slice(&slice, |_| {}).unwrap();
        let trace = Trace::decode(&writer.out[..]).unwrap();
        let tracks: Vec<_> = trace
            .packet
            .iter()
            .filter_map(|packet| packet.track_descriptor.clone())
            .collect();
        let parents: Vec<_> = tracks.iter().map(|track| (track.uuid, track.parent_uuid)).collect();
        assert_eq!(parents, [(1, None), (2, Some(1)), (3, Some(2))]);
        assert_eq!(tracks[0].process.as_ref().unwrap().process_name, "python");
        assert_eq!(tracks[1].name.as_deref(), Some("GPU 0 H100"));
        assert_eq!(tracks[2].name.as_deref(), Some("stream 13"));
    }
}
