//! `colonel import`: traces of torch's profiler and nsys's SQLite become sessions, whole or not at all.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow_array::RecordBatch;
use colonel::schema::columns::TableBuilder as _;
use colonel::schema::tables::{
    ApiCallRow, ApiCallsBuilder, DevicesBuilder, KernelsBuilder, MemcpysBuilder, MemsetsBuilder, NvtxRangesBuilder,
    SynchronizationsBuilder,
};
use colonel::session::synthetic::{SyntheticGuest, h100, kernel, memcpy, memset};
use colonel::session::{NewSession, Session, SessionWriter, SessionsDir};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::{Value, json};

const BEGIN_NS: i64 = 1_795_497_123_000_000_000;

/// What Kineto writes of a kernel, a copy, a fill, their launches, waits and annotations; `no_time` ends before it starts.
fn kineto() -> Value {
    let mut trace = json!({
        "schemaVersion": 1,
        "deviceProperties": [{
            "id": 0, "name": "NVIDIA H100 80GB HBM3", "totalGlobalMem": 85017493504_u64, "computeMajor": 9,
            "computeMinor": 0, "maxThreadsPerBlock": 1024, "maxThreadsPerMultiprocessor": 2048, "regsPerBlock": 65536,
            "warpSize": 32, "sharedMemPerBlock": 49152, "numSms": 132, "regsPerMultiprocessor": 65536,
            "sharedMemPerBlockOptin": 232448, "sharedMemPerMultiprocessor": 233472
        }],
        "distributedInfo": {"backend": "nccl", "rank": 0, "world_size": 1},
        "displayTimeUnit": "ms",
        "baseTimeNanoseconds": BEGIN_NS,
        "traceEvents": [
            {"ph": "M", "name": "process_name", "pid": 4711, "tid": 0, "ts": 1.0, "args": {"name": "python"}},
            {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 4711, "tid": 4712, "ts": 1.0, "dur": 20.5,
             "args": {"External id": 7}},
            {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 4711, "tid": 4712, "ts": 3.25,
             "dur": 4.5, "args": {"cbid": 211, "correlation": 19}},
            {"ph": "s", "id": 19, "pid": 4711, "tid": 4712, "ts": 3.25, "cat": "ac2g", "name": "ac2g"},
            {"ph": "X", "cat": "kernel", "name": "void at::native::fill<float>(int)", "pid": 0, "tid": 7, "ts": 10.125,
             "dur": 2.001, "args": {
                "External id": 7, "queued": 0, "device": 0, "context": 1, "stream": 7, "correlation": 19,
                "registers per thread": 32, "shared memory": 1024, "blocks per SM": 0.5, "warps per SM": 4.0,
                "grid": [66, 2, 1], "block": [256, 1, 1], "est. achieved occupancy %": 6, "graph id": 5,
                "graph node id": 21474836481_u64, "priority": -5
            }},
            {"ph": "f", "id": 19, "pid": 0, "tid": 7, "ts": 10.125, "cat": "ac2g", "name": "ac2g", "bp": "e"},
            {"ph": "X", "cat": "gpu_memcpy", "name": "Memcpy HtoD (Pinned -> Device)", "pid": 0, "tid": 7, "ts": 20.0,
             "dur": 1.5, "args": {"device": 0, "context": 1, "stream": 7, "correlation": 21, "bytes": 4096,
                                  "memory bandwidth (GB/s)": 2.7}},
            {"ph": "X", "cat": "gpu_memset", "name": "Memset (Device)", "pid": 0, "tid": 7, "ts": 30.0, "dur": 1.0,
             "args": {"device": 0, "context": 1, "stream": 7, "correlation": 23, "bytes": 64}},
            {"ph": "X", "cat": "kernel", "name": "no_time", "pid": 0, "tid": 7, "ts": 40.0, "dur": -1.0, "args": {}},
            {"ph": "i", "s": "t", "name": "Record Window End", "pid": "Traces", "tid": "Trace OP0", "ts": 50.0}
        ],
        "traceName": "/tmp/trace.json"
    });
    let events = trace["traceEvents"].as_array_mut().unwrap();
    events.extend(annotations().as_array().unwrap().iter().cloned());
    trace
}

/// Ranges of two threads, the inner one first, and two waits.
fn annotations() -> Value {
    json!([
        {"ph": "X", "cat": "user_annotation", "name": "inner", "pid": 4711, "tid": 4712, "ts": 3.0, "dur": 6.0,
         "args": {"External id": 9}},
        {"ph": "X", "cat": "user_annotation", "name": "ProfilerStep#3", "pid": 4711, "tid": 4712, "ts": 2.0,
         "dur": 40.0, "args": {"External id": 8}},
        {"ph": "X", "cat": "user_annotation", "name": "elsewhere", "pid": 4711, "tid": 4800, "ts": 0.0, "dur": 90.0},
        {"ph": "X", "cat": "gpu_user_annotation", "name": "ProfilerStep#3", "pid": 0, "tid": 7, "ts": 10.125,
         "dur": 2.0},
        {"ph": "X", "cat": "cuda_sync", "name": "Stream Wait Event", "pid": 0, "tid": 7, "ts": 32.0, "dur": 0.0,
         "args": {"cuda_sync_kind": "Stream Wait Event", "wait_on_stream": 20,
            "wait_on_cuda_event_record_corr_id": 17, "wait_on_cuda_event_id": 3, "stream": 7, "correlation": 25,
            "device": 0, "context": 1}},
        {"ph": "X", "cat": "cuda_sync", "name": "Context Sync", "pid": 0, "tid": -1, "ts": 33.0, "dur": 5.0,
         "args": {"cuda_sync_kind": "Context Sync", "stream": -1, "correlation": 27, "device": 0, "context": 1}}
    ])
}

fn colonel(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_colonel"))
        .args(args)
        .env("COLONEL_SESSIONS_DIR", folder.join("sessions"))
        .current_dir(folder)
        .output()
        .unwrap()
}

/// Imports a file and opens the session.
fn import(folder: &Path, file: &str) -> Session {
    let output = colonel(folder, &["import", file]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let id = String::from_utf8(output.stdout).unwrap();
    Session::load(&folder.join("sessions").join(id.trim())).unwrap()
}

#[test]
fn what_has_no_time_is_counted_and_widens_no_window() {
    let mut trace = kineto();
    let events = trace["traceEvents"].as_array_mut().unwrap();
    events.extend([
        json!({"ph": "X", "cat": "kernel", "name": "endless", "pid": 0, "tid": 7, "ts": 41.0, "dur": 1e300, "args": {}}),
        json!({"ph": "X", "cat": "kernel", "name": "no_time", "pid": 0, "tid": 7, "ts": 2e6, "dur": -1.0, "args": {}}),
        json!({"ph": "X", "cat": "user_annotation", "name": "reversed", "pid": 4711, "tid": 4712, "ts": 2.0, "dur": -1.0}),
    ]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("trace.json"), trace.to_string()).unwrap();
    let output = colonel(folder.path(), &["import", "trace.json"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("4 records had no times that can be and made no rows"),
        "{told}"
    );
    let session = import(folder.path(), "trace.json");
    let losses = session.manifest().losses.iter();
    let lost: Vec<_> = losses.map(|loss| (loss.kind.as_str(), loss.count)).collect();
    assert_eq!(lost, [("kernels", Some(3)), ("nvtx_ranges", Some(1))]);
    assert_eq!((session.rows("kernels"), session.rows("nvtx_ranges")), (1, 3));
    let window = &session.manifest().processes[0].windows[0];
    assert_eq!(window.end_ns, Some(BEGIN_NS + 38_000));
}

/// All rows of a table in one batch an element.
fn batches<B: colonel::schema::columns::TableBuilder>(session: &Session) -> Vec<RecordBatch> {
    let table = B::table();
    let columns: Vec<_> = table.columns.iter().map(|column| column.name).collect();
    session.scan(table.name, &columns).unwrap().collect()
}

/// A kernel, as far as all formats know it: whose, what, when, the ids of where, the shape, the node.
type Kernel = (u32, String, [i64; 2], [u32; 4], [i32; 6], Option<u64>);

fn kernels(session: &Session) -> Vec<Kernel> {
    let mut kernels = Vec::new();
    for batch in batches::<KernelsBuilder>(session) {
        for index in 0..batch.num_rows() {
            let row = KernelsBuilder::row(&batch, index);
            let ids = [row.device_id, row.context_id, row.stream_id, row.correlation_id];
            let shape = [
                row.grid_x,
                row.grid_y,
                row.grid_z,
                row.block_x,
                row.block_y,
                row.block_z,
            ];
            kernels.push((
                row.pid,
                row.name.to_owned(),
                [row.start_ns, row.end_ns],
                ids,
                shape,
                row.graph_node_id,
            ));
        }
    }
    kernels.sort();
    kernels
}

#[test]
fn a_kineto_trace_becomes_a_session() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("trace.json"), kineto().to_string()).unwrap();
    let session = import(folder.path(), "trace.json");
    assert_eq!(session.manifest().evaluator, "kineto");
    assert_eq!(session.manifest().name.as_deref(), Some("trace.json"));
    let batch = &batches::<KernelsBuilder>(&session)[0];
    assert_eq!(batch.num_rows(), 1);
    let row = KernelsBuilder::row(batch, 0);
    assert_eq!(
        (row.pid, row.name, row.short_name),
        (4711, "void at::native::fill<float>(int)", "fill")
    );
    assert_eq!((row.start_ns, row.end_ns), (BEGIN_NS + 10_125, BEGIN_NS + 12_126));
    assert_eq!(
        (row.graph_id, row.graph_node_id, row.priority),
        (Some(5), Some(21474836481), Some(-5))
    );
    assert_eq!(
        (row.grid_x, row.grid_y, row.block_x, row.dynamic_shared_bytes),
        (66, 2, 256, 1024)
    );
    let batch = &batches::<MemcpysBuilder>(&session)[0];
    let row = MemcpysBuilder::row(batch, 0);
    assert_eq!(
        (row.copy_kind, row.src_kind, row.dst_kind, row.bytes),
        ("HtoD", "pinned", "device", 4096)
    );
    let batch = &batches::<MemsetsBuilder>(&session)[0];
    assert_eq!(MemsetsBuilder::row(batch, 0).memory_kind, "device");
    let batch = &batches::<ApiCallsBuilder>(&session)[0];
    let row = ApiCallsBuilder::row(batch, 0);
    assert_eq!(
        (row.name, row.thread_id, row.correlation_id),
        ("cudaLaunchKernel", 4712, 19)
    );
    let lost = &session.manifest().losses[0];
    assert_eq!(
        (lost.kind.as_str(), lost.reason.as_str(), lost.count),
        ("kernels", "invalid_timestamp", Some(1))
    );

    assert_eq!(
        kernel_path(&session).as_deref(),
        Some("ProfilerStep#3/inner"),
        "of the thread that launched"
    );

    let shown = colonel(folder.path(), &["show", "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(
        (&shown["kernel_count"], &shown["kernels_ns"]),
        (&1.into(), &2001.into())
    );
}

/// The path of the only kernel.
fn kernel_path(session: &Session) -> Option<String> {
    let batch = &batches::<KernelsBuilder>(session)[0];
    KernelsBuilder::row(batch, 0).nvtx_path.map(str::to_owned)
}

#[test]
fn annotations_become_ranges_and_waits_become_synchronizations() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("trace.json"), kineto().to_string()).unwrap();
    let session = import(folder.path(), "trace.json");
    let batch = &batches::<NvtxRangesBuilder>(&session)[0];
    let ranges: Vec<_> = (0..batch.num_rows())
        .map(|index| NvtxRangesBuilder::row(batch, index))
        .map(|row| {
            (
                row.thread_id,
                row.depth,
                row.path,
                row.start_ns - BEGIN_NS,
                row.end_ns.map(|end| end - BEGIN_NS),
            )
        })
        .collect();
    assert_eq!(
        ranges,
        [
            (4800, 0, "elsewhere", 0, Some(90_000)),
            (4712, 0, "ProfilerStep#3", 2_000, Some(42_000)),
            (4712, 1, "ProfilerStep#3/inner", 3_000, Some(9_000)),
        ]
    );
    let batch = &batches::<SynchronizationsBuilder>(&session)[0];
    let waits: Vec<_> = (0..batch.num_rows())
        .map(|index| SynchronizationsBuilder::row(batch, index))
        .map(|row| {
            (
                row.sync_kind,
                row.stream_id,
                row.event_id,
                row.correlation_id,
                row.end_ns - row.start_ns,
            )
        })
        .collect();
    assert_eq!(
        waits,
        [
            ("stream_wait_event", Some(7), Some(3), 25, 0),
            ("context", None, None, 27, 5_000)
        ]
    );
    let shown = colonel(folder.path(), &["show", "--by", "nvtx", "--json"]).stdout;
    let shown: Value = serde_json::from_slice(&shown).unwrap();
    assert_eq!(shown["ranges"][1]["nvtx_path"], "ProfilerStep#3/inner");
}

#[test]
fn a_compressed_trace_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(kineto().to_string().as_bytes()).unwrap();
    fs::write(folder.path().join("trace.json.gz"), gzip.finish().unwrap()).unwrap();
    fs::write(folder.path().join("trace.json"), kineto().to_string()).unwrap();
    let (one, other) = (
        import(folder.path(), "trace.json.gz"),
        import(folder.path(), "trace.json"),
    );
    assert_eq!(kernels(&one), kernels(&other));
}

#[test]
fn what_is_no_recording_is_told_and_leaves_no_session() {
    let folder = tempfile::tempdir().unwrap();
    let whole = kineto().to_string();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(whole.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut no_kernels = kineto();
    no_kernels["traceEvents"] = json!([]);
    let no_kernels = no_kernels.to_string();
    let cases: [(&str, &[u8], &str); 9] = [
        (
            "cut.json",
            &whole.as_bytes()[..whole.len() / 2],
            "is no trace of Kineto, torch's profiler: EOF while parsing",
        ),
        ("cut.json.gz", &gzip[..gzip.len() / 2], "is no trace of Kineto"),
        ("other.json", b"{\"a\": 1}", "missing field `traceEvents`"),
        ("wrong.json", b"{\"traceEvents\": 3}", "expected an array of events"),
        ("idle.json", no_kernels.as_bytes(), "it has no kernel, copy or fill"),
        ("array.json", b"[]", "is neither SQLite"),
        ("empty", b"", "is empty"),
        ("cut.sqlite", b"SQLite format 3\0", "cut.sqlite`"),
        ("report.nsys-rep", b"QDSTRM", "nsys export --type sqlite"),
    ];
    for (name, content, expected) in cases {
        fs::write(folder.path().join(name), content).unwrap();
        let output = colonel(folder.path(), &["import", name]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {stderr}");
        assert!(stderr.contains(expected), "{name}: {stderr}");
        let left = fs::read_dir(folder.path().join("sessions")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{name} left a session");
    }
    let output = colonel(folder.path(), &["import", "nowhere.json"]);
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("`nowhere.json` can't be read")
    );
    let output = colonel(folder.path(), &["import", "."]);
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("the folder has none of its tables")
    );
}

/// A kernel: start, length, name, stream, node.
type Given = (i64, i64, usize, u32, Option<u32>);

fn session(folder: &Path, given: &[Given]) -> PathBuf {
    let dir = SessionsDir::resolve(Some(&folder.join("sessions"))).unwrap();
    let mut writer = SessionWriter::create(&dir, NewSession::default()).unwrap();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    let (mut rows, mut calls) = (KernelsBuilder::default(), ApiCallsBuilder::default());
    let (mut copies, mut fills, mut devices) = (
        MemcpysBuilder::default(),
        MemsetsBuilder::default(),
        DevicesBuilder::default(),
    );
    for (index, &(start, length, name, stream, node)) in given.iter().enumerate() {
        let names = ["void gemm<float>(int)", "plain", "odd \"name\" \\ with é"];
        let mut row = kernel(4711, names[name % 3], BEGIN_NS + start, length);
        row.stream_id = stream;
        row.correlation_id = u32::try_from(index).unwrap() + 1;
        row.graph_id = node.map(|_| 5);
        row.graph_node_id = node.map(|node| 5 << 32 | u64::from(node));
        calls.push(ApiCallRow {
            pid: 4711,
            thread_id: 4712,
            start_ns: row.start_ns - 100,
            end_ns: row.start_ns - 50,
            api: "runtime",
            name: "cudaLaunchKernel",
            cbid: 211,
            correlation_id: row.correlation_id,
            return_value: 0,
            window: 1,
        });
        rows.push(row);
    }
    devices.push(h100(4711));
    copies.push(memcpy(4711, "DtoH", 4096, BEGIN_NS + 100, 1_000));
    fills.push(memset(4711, 64, BEGIN_NS + 200, 10));
    guest.seal(&mut rows).unwrap();
    guest.seal(&mut calls).unwrap();
    guest.seal(&mut copies).unwrap();
    guest.seal(&mut fills).unwrap();
    guest.seal(&mut devices).unwrap();
    guest.end(BEGIN_NS + 10_000_000).unwrap();
    writer.seal(None, &mut |_, _, _| {}).unwrap();
    writer.compact(&mut |_, _, _| {}).unwrap();
    writer.path().to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn kernels_come_back_through_other_tools_formats(
        given in prop::collection::vec((0_i64..9_000_000, 0_i64..50_000, 0_usize..3, 1_u32..20, prop::option::of(0_u32..9)), 1..60)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = session(folder.path(), &given);
        let before = Session::load(&path).unwrap();
        for (format, file) in [("nsys-sqlite", "report.sqlite"), ("chrome", "trace.json.gz")] {
            let output = colonel(folder.path(), &["export", path.to_str().unwrap(), "--format", format, "-o", file]);
            prop_assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let after = import(folder.path(), file);
            prop_assert_eq!(kernels(&after), kernels(&before), "through {}", format);
            for table in ["memcpys", "memsets", "api_calls", "devices"] {
                prop_assert_eq!(after.rows(table), before.rows(table), "{} through {}", table, format);
            }
        }
    }
}
