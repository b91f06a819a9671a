//! Chrome's trace JSON with the fields that Kineto, torch's profiler, gives: HolisticTraceAnalysis and others read those.
//! Times are microseconds since `baseTimeNanoseconds`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::source::Gpu;
use super::{ExportError, Source, Target};
use crate::schema::tables::{
    ApiCallRow, ApiCallsBuilder, KernelRow, KernelsBuilder, MemcpyRow, MemcpysBuilder, MemsetRow, MemsetsBuilder,
    NvtxRangeRow, NvtxRangesBuilder, SynchronizationRow, SynchronizationsBuilder,
};

/// Writes the trace, compressed where the name ends with `.gz`.
pub fn chrome(source: &mut Source<'_>, target: &Target) -> Result<(), ExportError> {
    let file = BufWriter::new(File::create(target.temporary())?);
    if target.path().extension().is_some_and(|extension| extension == "gz") {
        let out = write(source, BufWriter::new(GzEncoder::new(file, Compression::default())))?;
        let gzip = out.into_inner().map_err(|error| error.into_error())?;
        gzip.finish()?.flush()?;
    } else {
        write(source, file)?;
    }
    Ok(())
}

fn write<W: Write>(source: &mut Source<'_>, out: W) -> Result<W, ExportError> {
    let mut trace = Trace::new(out, source)?;
    source.each::<KernelsBuilder>(|row| trace.kernel(&row))?;
    source.each::<MemcpysBuilder>(|row| trace.memcpy(&row))?;
    source.each::<MemsetsBuilder>(|row| trace.memset(&row))?;
    source.each::<SynchronizationsBuilder>(|row| trace.synchronization(&row))?;
    source.each::<ApiCallsBuilder>(|row| trace.api_call(&row))?;
    source.each::<NvtxRangesBuilder>(|row| trace.range(&row))?;
    source.refuse_empty()?;
    trace.finish(source)
}

/// An event, in the order of Kineto's fields.
#[derive(Serialize)]
struct Event<'a> {
    ph: &'a str,
    cat: &'a str,
    name: &'a str,
    pid: u32,
    tid: u32,
    ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    args: Map<String, Value>,
}

/// The launch (`s`) and its work (`f`), joined by an arrow.
#[derive(Serialize)]
struct Flow {
    ph: &'static str,
    id: u64,
    pid: u32,
    tid: u32,
    ts: f64,
    cat: &'static str,
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bp: Option<&'static str>,
}

struct Trace<W> {
    out: W,
    base_ns: i64,
    gpus: Vec<Gpu>,
    /// Pids of processes, in the order of their appearance.
    processes: Vec<u32>,
    /// Rows of the viewer: GPU and stream.
    streams: BTreeSet<(u32, u32)>,
    one_process: bool,
    /// Arrows begin at calls.
    has_calls: bool,
    /// Which process and ordinal each GPU of the trace is, where they are counted.
    tracks: Vec<(u32, u32)>,
    has_events: bool,
}

/// Where a piece of the GPU's work ran.
struct Place {
    pid: u32,
    device_id: u32,
    context_id: u32,
    stream_id: u32,
    correlation_id: u32,
    start_ns: i64,
    end_ns: i64,
}

macro_rules! place {
    ($row:expr) => {
        Place {
            pid: $row.pid,
            device_id: $row.device_id,
            context_id: $row.context_id,
            stream_id: $row.stream_id,
            correlation_id: $row.correlation_id,
            start_ns: $row.start_ns,
            end_ns: $row.end_ns,
        }
    };
}

impl<W: Write> Trace<W> {
    fn new(mut out: W, source: &mut Source<'_>) -> Result<Self, ExportError> {
        let (gpus, base_ns) = (source.devices()?, source.base_ns()?);
        let properties: Vec<_> = gpus.iter().map(device_properties).collect();
        let properties = serde_json::to_string(&properties)?;
        // With a space behind `"rank":`, where HolisticTraceAnalysis wants one.
        write!(
            out,
            "{{\n\"schemaVersion\": 1,\n\"deviceProperties\": {properties},\n\"distributedInfo\": {{\"rank\": 0, \
             \"world_size\": 1}},\n\"displayTimeUnit\": \"ms\",\n\"baseTimeNanoseconds\": {base_ns},\n\"traceEvents\": ["
        )?;
        Ok(Self {
            out,
            base_ns,
            gpus,
            processes: Vec::new(),
            streams: BTreeSet::new(),
            one_process: source.is_one_process(),
            has_calls: source.has("api_calls")?,
            tracks: Vec::new(),
            has_events: false,
        })
    }

    fn kernel(&mut self, row: &KernelRow<'_>) -> Result<(), ExportError> {
        let mut args = self.work_args(&place!(row), (row.graph_id, row.graph_node_id));
        let blocks = [row.grid_x, row.grid_y, row.grid_z];
        let threads = [row.block_x, row.block_y, row.block_z];
        args.insert("registers per thread".into(), row.registers_per_thread.into());
        let shared = u64::from(row.static_shared_bytes) + u64::from(row.dynamic_shared_bytes);
        args.insert("shared memory".into(), shared.into());
        if let Some(gpu) = self
            .gpus
            .iter()
            .find(|gpu| (gpu.pid, gpu.device_id) == (row.pid, row.device_id))
        {
            let product = |of: [i32; 3]| of.iter().map(|&axis| f64::from(axis)).product::<f64>();
            let blocks_per_sm = product(blocks) / f64::from(gpu.sm_count.max(1));
            let warps = (product(threads) / f64::from(gpu.warp_size.max(1))).ceil();
            args.insert("blocks per SM".into(), rounded(blocks_per_sm).into());
            args.insert("warps per SM".into(), rounded(blocks_per_sm * warps).into());
        }
        args.insert("grid".into(), json!(blocks));
        args.insert("block".into(), json!(threads));
        if let Some(occupancy) = row.theoretical_occupancy_pct {
            args.insert("theoretical occupancy %".into(), rounded(occupancy).into());
        }
        let more = [("layer", row.layer), ("nvtx_path", row.nvtx_path)];
        for (name, text) in more.into_iter().filter_map(|(name, text)| Some((name, text?))) {
            args.insert(name.into(), text.into());
        }
        if let Some(priority) = row.priority {
            args.insert("priority".into(), priority.into());
        }
        self.work("kernel", row.name, &place!(row), args)
    }

    fn memcpy(&mut self, row: &MemcpyRow<'_>) -> Result<(), ExportError> {
        let name = format!(
            "Memcpy {} ({} -> {})",
            row.copy_kind,
            capital(row.src_kind),
            capital(row.dst_kind)
        );
        let place = place!(row);
        let mut args = self.work_args(&place, (row.graph_id, row.graph_node_id));
        bandwidth(&mut args, row.bytes, &place);
        self.work("gpu_memcpy", &name, &place, args)
    }

    fn memset(&mut self, row: &MemsetRow<'_>) -> Result<(), ExportError> {
        let place = place!(row);
        let mut args = self.work_args(&place, (row.graph_id, row.graph_node_id));
        bandwidth(&mut args, row.bytes, &place);
        self.work(
            "gpu_memset",
            &format!("Memset ({})", capital(row.memory_kind)),
            &place,
            args,
        )
    }

    /// On the row of its process, since CUPTI does not tell the thread. Without the argument `stream`: HolisticTraceAnalysis
    /// takes what has it for work of the GPU.
    fn synchronization(&mut self, row: &SynchronizationRow<'_>) -> Result<(), ExportError> {
        let (name, kind) = match row.sync_kind {
            "event" => ("Event Sync", "Event Synchronize"),
            "stream_wait_event" => ("Stream Wait Event", "Stream Wait Event"),
            "stream" => ("Stream Sync", "Stream Synchronize"),
            "context" => ("Context Sync", "Context Synchronize"),
            other => (other, other),
        };
        let args = json!({
            "cuda_sync_kind": kind, "context": row.context_id, "sync stream": row.stream_id,
            "correlation": row.correlation_id,
        });
        let process = self.process(row.pid);
        self.event(&Event {
            ph: "X",
            cat: "cuda_sync",
            name,
            pid: process,
            tid: row.pid,
            ts: self.us(row.start_ns),
            dur: Some(us(row.end_ns - row.start_ns)),
            args: object(args),
        })
    }

    fn api_call(&mut self, row: &ApiCallRow<'_>) -> Result<(), ExportError> {
        let cat = if row.api == "driver" {
            "cuda_driver"
        } else {
            "cuda_runtime"
        };
        let pid = self.process(row.pid);
        let args = json!({"cbid": row.cbid, "correlation": row.correlation_id});
        let (ts, tid) = (self.us(row.start_ns), row.thread_id);
        self.event(&Event {
            ph: "X",
            cat,
            name: without_version(row.api, row.name),
            pid,
            tid,
            ts,
            dur: Some(us(row.end_ns - row.start_ns)),
            args: object(args),
        })?;
        let puts_work = ["Launch", "Memcpy", "Memset"]
            .iter()
            .any(|word| row.name.contains(word));
        if puts_work {
            let id = self.flow_id(row.pid, row.correlation_id);
            self.flow("s", id, pid, tid, ts)?;
        }
        Ok(())
    }

    fn range(&mut self, row: &NvtxRangeRow<'_>) -> Result<(), ExportError> {
        let pid = self.process(row.pid);
        let end = row.end_ns.map(|end| us(end - row.start_ns));
        let mut args = Map::new();
        let more = [
            ("domain", row.domain),
            ("category", row.category),
            ("payload", row.payload),
        ];
        for (name, text) in more.into_iter().filter_map(|(name, text)| Some((name, text?))) {
            args.insert(name.into(), text.into());
        }
        self.event(&Event {
            // One that has no end as far as anybody knows is an instant, not a guess.
            ph: if end.is_some() { "X" } else { "i" },
            cat: "user_annotation",
            name: row.name,
            pid,
            tid: row.thread_id,
            ts: self.us(row.start_ns),
            dur: end,
            args,
        })
    }

    /// The fields that all work of a GPU has.
    fn work_args(&mut self, place: &Place, (graph, node): (Option<u32>, Option<u64>)) -> Map<String, Value> {
        let mut args = object(json!({
            "device": self.track(place), "context": place.context_id,
            "stream": place.stream_id, "correlation": place.correlation_id,
        }));
        if let (Some(graph), Some(node)) = (graph, node) {
            args.insert("graph id".into(), graph.into());
            args.insert("graph node id".into(), node.into());
        }
        args
    }

    fn work(&mut self, cat: &str, name: &str, place: &Place, args: Map<String, Value>) -> Result<(), ExportError> {
        let (track, ts) = (self.track(place), self.us(place.start_ns));
        self.streams.insert((track, place.stream_id));
        self.event(&Event {
            ph: "X",
            cat,
            name,
            pid: track,
            tid: place.stream_id,
            ts,
            dur: Some(us(place.end_ns - place.start_ns)),
            args,
        })?;
        if !self.has_calls {
            return Ok(());
        }
        let id = self.flow_id(place.pid, place.correlation_id);
        self.flow("f", id, track, place.stream_id, ts)
    }

    fn flow(&mut self, ph: &'static str, id: u64, pid: u32, tid: u32, ts: f64) -> Result<(), ExportError> {
        self.event(&Flow {
            ph,
            id,
            pid,
            tid,
            ts,
            cat: "ac2g",
            name: "ac2g",
            bp: (ph == "f").then_some("e"),
        })
    }

    fn event(&mut self, event: &impl Serialize) -> Result<(), ExportError> {
        self.out.write_all(if self.has_events { b",\n" } else { b"\n" })?;
        self.has_events = true;
        Ok(serde_json::to_writer(&mut self.out, event)?)
    }

    /// Kineto's number of a GPU is its ordinal. Where the ordinals of several processes would mix, they are counted.
    fn track(&mut self, place: &Place) -> u32 {
        if self.one_process {
            return place.device_id;
        }
        let key = (place.pid, place.device_id);
        let index = self.tracks.iter().position(|&track| track == key);
        let index = index.unwrap_or_else(|| {
            self.tracks.push(key);
            self.tracks.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    fn process(&mut self, pid: u32) -> u32 {
        if !self.processes.contains(&pid) {
            self.processes.push(pid);
        }
        pid
    }

    /// Correlation ids are a process's own.
    fn flow_id(&mut self, pid: u32, correlation_id: u32) -> u64 {
        self.process(pid);
        let index = self.processes.iter().position(|&known| known == pid).unwrap_or(0);
        (index as u64) << 32 | u64::from(correlation_id)
    }

    fn us(&self, time_ns: i64) -> f64 {
        us(time_ns - self.base_ns)
    }

    /// The names of the viewer's rows, and the end.
    fn finish(mut self, source: &Source<'_>) -> Result<W, ExportError> {
        let meta = |name: &str, pid: u32, tid: u32, args: Value| json!({"ph": "M", "name": name, "pid": pid, "tid": tid, "ts": 0.0, "args": args});
        let mut names = Vec::new();
        for &pid in &self.processes {
            names.push(meta("process_name", pid, 0, json!({"name": source.command(pid)})));
            names.push(meta("process_labels", pid, 0, json!({"labels": "CPU"})));
        }
        let mut labelled = None;
        for &(track, stream) in &self.streams {
            if labelled.replace(track) != Some(track) {
                let of = self.tracks.get(track as usize);
                let of = of.map(|&(pid, device)| format!(" (GPU {device} of pid {pid})"));
                let label = format!("GPU {track}{}", of.unwrap_or_default());
                names.push(meta("process_labels", track, 0, json!({"labels": label})));
            }
            names.push(meta(
                "thread_name",
                track,
                stream,
                json!({"name": format!("stream {stream} {stream}")}),
            ));
        }
        names.iter().try_for_each(|name| self.event(name))?;
        let id = &source.session().manifest().id;
        write!(
            self.out,
            "\n],\n\"traceName\": {}\n}}\n",
            json!(format!("colonel session {id}"))
        )?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn device_properties(gpu: &Gpu) -> Value {
    json!({
        "id": gpu.device_id, "name": gpu.name, "totalGlobalMem": gpu.memory_bytes,
        "computeMajor": gpu.compute.0, "computeMinor": gpu.compute.1,
        "maxThreadsPerMultiprocessor": gpu.max_threads_per_sm, "regsPerMultiprocessor": gpu.registers_per_sm,
        "warpSize": gpu.warp_size, "sharedMemPerMultiprocessor": gpu.shared_bytes_per_sm, "numSms": gpu.sm_count,
    })
}

/// `cudaLaunchKernel_v7000` is `cudaLaunchKernel` to Kineto's readers. `_v2` of the driver is another function.
fn without_version<'a>(api: &str, name: &'a str) -> &'a str {
    match name.rsplit_once("_v") {
        Some((function, version)) if api == "runtime" && version.bytes().all(|byte| byte.is_ascii_digit()) => function,
        _ => name,
    }
}

fn bandwidth(args: &mut Map<String, Value>, bytes: u64, place: &Place) {
    args.insert("bytes".into(), bytes.into());
    let duration = place.end_ns - place.start_ns;
    if duration > 0 {
        args.insert(
            "memory bandwidth (GB/s)".into(),
            rounded(bytes as f64 / duration as f64).into(),
        );
    }
}

/// `Pinned`, as Kineto writes it.
fn capital(kind: &str) -> String {
    let mut letters = kind.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Nanoseconds as microseconds: exact to the nanosecond for spans up to two months.
fn us(ns: i64) -> f64 {
    ns as f64 / 1000.0
}

fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
