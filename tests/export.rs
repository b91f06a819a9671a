//! `colonel export`: every format holds the rows of the session, and nothing of the user's is overwritten.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use colonel::schema::columns::TableBuilder as _;
use colonel::schema::tables::{
    ApiCallRow, ApiCallsBuilder, DevicesBuilder, KernelsBuilder, MemcpysBuilder, MemsetsBuilder, NvtxRangeRow,
    NvtxRangesBuilder, SynchronizationRow, SynchronizationsBuilder,
};
use colonel::session::synthetic::{SyntheticGuest, h100, kernel, memcpy, memset};
use colonel::session::{NewSession, SessionWriter, SessionsDir};
use rusqlite::Connection;
use serde_json::Value;

const BEGIN_NS: i64 = 1_795_497_123_000_000_000;
const KERNELS: i64 = 300;
/// Of each of the two processes.
const KERNELS_NS: i64 = KERNELS * 700;

/// Two processes with a bit of everything; each third kernel overlaps the one before it. Not compacted.
fn session(folder: &Path, id: &str) -> PathBuf {
    let dir = SessionsDir::resolve(Some(folder)).unwrap();
    let mut writer = SessionWriter::create(&dir, NewSession::default()).unwrap();
    for pid in [7, 8] {
        write_guest(writer.path(), pid);
    }
    writer.seal(None, &mut |_, _, _| {}).unwrap();
    writer.manifest_mut().id = id.to_owned();
    writer.write().unwrap();
    let path = folder.join(id);
    fs::rename(writer.path(), &path).unwrap();
    path
}

fn write_guest(session: &Path, pid: u32) {
    let mut guest = SyntheticGuest::new(session, pid);
    let (mut kernels, mut calls) = (KernelsBuilder::default(), ApiCallsBuilder::default());
    let mut ranges = NvtxRangesBuilder::default();
    for index in 0..KERNELS {
        let correlation_id = u32::try_from(index).unwrap() + 1;
        let start_ns = BEGIN_NS + 1_000 * index - if index % 3 == 2 { 400 } else { 0 };
        let mut row = kernel(
            pid,
            if index % 2 == 0 {
                "void gemm<float>(int)"
            } else {
                "copy \"it\""
            },
            start_ns,
            700,
        );
        row.correlation_id = correlation_id;
        kernels.push(row);
        calls.push(ApiCallRow {
            pid,
            thread_id: 70,
            start_ns: start_ns - 300,
            end_ns: start_ns - 200,
            api: "runtime",
            name: "cudaLaunchKernel_v7000",
            cbid: 211,
            correlation_id,
            return_value: 0,
            window: 1,
        });
    }
    for (name, kind, start, end) in [
        ("step", "push_pop", 0, Some(9_000)),
        ("inner", "push_pop", 10, Some(900)),
        ("open", "start_end", 20, None),
        ("here", "mark", 30, Some(30)),
    ] {
        ranges.push(NvtxRangeRow {
            pid,
            thread_id: 70,
            domain: (name == "inner").then_some("torch"),
            name,
            category: None,
            payload: None,
            kind,
            depth: 0,
            path: name,
            start_ns: BEGIN_NS + start,
            end_ns: end.map(|end: i64| BEGIN_NS + end),
            start_correlation_id: None,
            end_correlation_id: None,
            window: 1,
        });
    }
    let (mut copies, mut fills) = (MemcpysBuilder::default(), MemsetsBuilder::default());
    copies.push(memcpy(pid, "HtoD", 4096, BEGIN_NS + 100, 1_024));
    fills.push(memset(pid, 64, BEGIN_NS + 200, 32));
    let (mut waits, mut devices) = (SynchronizationsBuilder::default(), DevicesBuilder::default());
    let mut gpu = h100(pid);
    if pid == 8 {
        // Both see one GPU, not the same.
        gpu.uuid = Some("GPU-00000000-0000-0000-0000-000000000008");
    }
    devices.push(gpu);
    waits.push(SynchronizationRow {
        pid,
        start_ns: BEGIN_NS + 300,
        end_ns: BEGIN_NS + 400,
        sync_kind: "stream",
        context_id: 1,
        stream_id: Some(7),
        event_id: None,
        correlation_id: 2,
        window: 1,
    });
    guest.seal(&mut kernels).unwrap();
    guest.seal(&mut calls).unwrap();
    guest.seal(&mut ranges).unwrap();
    guest.seal(&mut copies).unwrap();
    guest.seal(&mut fills).unwrap();
    guest.seal(&mut waits).unwrap();
    guest.seal(&mut devices).unwrap();
    guest.end(BEGIN_NS + 1_000_000).unwrap();
}

fn colonel(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_colonel"))
        .args(args)
        .env("COLONEL_SESSIONS_DIR", folder)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn words(folder: &Path, args: &[&str]) -> String {
    let output = colonel(folder, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.stdout.is_empty());
    format!("exit {}\n{stderr}", output.status.code().unwrap()).replace(folder.to_str().unwrap(), "SESSIONS")
}

/// Exports into the folder and returns the file.
fn export(folder: &Path, format: &str, more: &[&str]) -> PathBuf {
    session(folder, "0000aaaa");
    let out = folder.join(format!("out.{format}"));
    let told = words(
        folder,
        &[&["export", "--format", format, "-o", out.to_str().unwrap()], more].concat(),
    );
    assert!(told.starts_with("exit 0\n"), "{told}");
    out
}

fn one<T: rusqlite::types::FromSql>(database: &Connection, sql: &str) -> T {
    database
        .query_row(sql, [], |row| row.get(0))
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
}

#[test]
fn nsys_sqlite_has_every_row_under_nsys_names() {
    let folder = tempfile::tempdir().unwrap();
    let database = Connection::open(export(folder.path(), "nsys-sqlite", &[])).unwrap();
    let kernels = "FROM CUPTI_ACTIVITY_KIND_KERNEL";
    assert_eq!(
        one::<i64>(&database, &format!("SELECT count(*) {kernels}")),
        2 * KERNELS
    );
    let total = one::<i64>(&database, &format!("SELECT sum(end - start) {kernels}"));
    assert_eq!(total, 2 * KERNELS_NS);
    let pids = format!("SELECT group_concat(DISTINCT globalPid / 0x1000000 % 0x1000000) {kernels}");
    assert_eq!(one::<String>(&database, &pids), "7,8");
    // The first thing recorded is a call 300 ns before the first kernel.
    assert_eq!(one::<i64>(&database, &format!("SELECT min(start) {kernels}")), 300);
    let epoch = "SELECT utcEpochNs FROM TARGET_INFO_SESSION_START_TIME";
    assert_eq!(one::<i64>(&database, epoch), BEGIN_NS - 300);
    let names = format!(
        "SELECT group_concat(value, '|') FROM (SELECT DISTINCT value {kernels} JOIN StringIds ON id = demangledName \
         ORDER BY value)"
    );
    assert_eq!(one::<String>(&database, &names), "copy \"it\"|void gemm<float>(int)");
    // As NVIDIA's cuda_gpu_trace selects copies, and nvtx_gpu_proj_sum finds the kernels of a range.
    let copies = "SELECT oper.label || ' ' || gpu.name || ' ' || mem.label FROM CUPTI_ACTIVITY_KIND_MEMCPY AS copy \
                  JOIN ENUM_CUDA_MEMCPY_OPER AS oper ON oper.id = copy.copyKind \
                  JOIN ENUM_CUDA_MEM_KIND AS mem ON mem.id = copy.srcKind \
                  JOIN TARGET_INFO_GPU AS gpu ON gpu.id = copy.deviceId WHERE bytes = 4096";
    assert_eq!(
        one::<String>(&database, copies),
        "Host-to-Device NVIDIA H100 80GB HBM3 Pinned"
    );
    let uuids = "SELECT group_concat(substr(gpu.uuid, -1) || substr(cuda.uuid, -1)) FROM TARGET_INFO_CUDA_DEVICE AS cuda \
                 JOIN TARGET_INFO_GPU AS gpu ON gpu.id = cuda.gpuId";
    assert_eq!(one::<String>(&database, uuids), "00,88");
    let projected = "SELECT count(*) FROM NVTX_EVENTS AS nvtx JOIN StringIds AS ids ON ids.id = nvtx.textId \
                     JOIN CUPTI_ACTIVITY_KIND_RUNTIME AS call ON call.globalTid = nvtx.globalTid \
                     AND call.start >= nvtx.start AND call.end <= nvtx.end \
                     JOIN CUPTI_ACTIVITY_KIND_KERNEL AS kernel ON kernel.correlationId = call.correlationId \
                     AND kernel.globalPid = call.globalTid & ~0xffffff \
                     WHERE ids.value = 'step' AND nvtx.eventType = 59";
    // Of 300 kernels a us apart, those launched within the 9 us of the range.
    assert_eq!(one::<i64>(&database, projected), 2 * 9);
    let open = "SELECT count(*) FROM NVTX_EVENTS WHERE eventType = 60 AND end IS NULL";
    assert_eq!(one::<i64>(&database, open), 2);
    let domain = "SELECT value FROM NVTX_EVENTS JOIN StringIds ON id = textId WHERE eventType = 75 AND domainId = 1";
    assert_eq!(one::<String>(&database, domain), "torch");
    let version = "SELECT value FROM META_DATA_EXPORT WHERE name = 'EXPORT_SCHEMA_VERSION'";
    assert_eq!(one::<String>(&database, version), "3.28.1");
}

#[test]
fn chrome_has_the_fields_of_kineto() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(export(folder.path(), "chrome", &["--pid", "7"])).unwrap();
    assert!(text.contains("\"rank\": 0"), "HolisticTraceAnalysis wants the space");
    let trace: Value = serde_json::from_str(&text).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |key: &str, value: &str| events.iter().filter(|event| event[key] == value).collect::<Vec<_>>();
    let kernels = of("cat", "kernel");
    assert_eq!(kernels.len() as i64, KERNELS);
    let total: f64 = kernels.iter().map(|event| event["dur"].as_f64().unwrap()).sum();
    assert_eq!((total * 1_000.0).round() as i64, KERNELS_NS);
    let first = kernels[0];
    let args = &first["args"];
    assert_eq!(
        (&first["ph"], &first["pid"], &first["tid"]),
        (&"X".into(), &0.into(), &7.into())
    );
    assert_eq!(first["ts"], 0.3);
    assert_eq!(
        (&args["stream"], &args["correlation"], &args["device"]),
        (&7.into(), &1.into(), &0.into())
    );
    assert_eq!(args["grid"], serde_json::json!([128, 1, 1]));
    assert_eq!(args["warps per SM"], 7.757576);
    assert_eq!(of("cat", "gpu_memcpy")[0]["name"], "Memcpy HtoD (Pinned -> Device)");
    assert_eq!(of("cat", "gpu_memcpy")[0]["args"]["memory bandwidth (GB/s)"], 4.0);
    let calls = of("cat", "cuda_runtime");
    assert_eq!(calls.len() as i64, KERNELS);
    assert!(calls.iter().all(|call| call["name"] == "cudaLaunchKernel"));
    // Each arrow that begins ends once; the copy and the fill have no call here.
    assert_eq!(
        (of("ph", "s").len() as i64, of("ph", "f").len() as i64),
        (KERNELS, KERNELS + 2)
    );
    assert_eq!(trace["deviceProperties"][0]["numSms"], 132);
    assert_eq!(of("name", "open")[0]["ph"], "i", "a range without end is no span");
}

#[test]
fn chrome_of_several_processes_keeps_their_gpus_apart() {
    let folder = tempfile::tempdir().unwrap();
    session(folder.path(), "0000aaaa");
    let told = words(folder.path(), &["export", "0000", "--format", "chrome"]);
    assert!(told.contains("wrote `colonel-0000aaaa.trace.json.gz`"), "{told}");
    let file = fs::File::open(folder.path().join("colonel-0000aaaa.trace.json.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let trace: Value = serde_json::from_str(&text).unwrap();
    let kernels = trace["traceEvents"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["cat"] == "kernel");
    let mut of_gpu = [0, 0];
    kernels.for_each(|kernel| of_gpu[usize::try_from(kernel["pid"].as_u64().unwrap()).unwrap()] += 1);
    assert_eq!(of_gpu, [KERNELS, KERNELS]);
}

#[test]
fn csv_and_arrow_have_a_file_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let out = export(folder.path(), "csv", &[]);
    let kernels = fs::read_to_string(out.join("kernels.csv")).unwrap();
    assert!(kernels.starts_with("pid,start_ns,end_ns,name,"), "{kernels}");
    assert_eq!(kernels.lines().count() as i64, 1 + 2 * KERNELS);
    assert!(
        kernels.contains(",\"copy \"\"it\"\"\","),
        "{}",
        kernels.lines().nth(2).unwrap()
    );

    let told = words(folder.path(), &["export", "--format", "arrow", "-o", "arrow"]);
    assert!(told.starts_with("exit 0\n"), "{told}");
    let file = fs::File::open(folder.path().join("arrow/kernels.arrow")).unwrap();
    let batches = arrow_ipc::reader::FileReader::try_new(file, None).unwrap();
    let rows: usize = batches.map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(rows as i64, 2 * KERNELS);
    assert!(
        !folder.path().join("arrow/losses.arrow").exists(),
        "a table without rows has no file"
    );
}

#[test]
fn what_is_there_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    session(folder.path(), "0000aaaa");
    for (format, file) in [("chrome", "x"), ("csv", "x-csv/kernels.csv"), ("perfetto", "x-trace")] {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine").unwrap();
        let out = file.split('/').next().unwrap();
        let told = words(folder.path(), &["export", "--format", format, "-o", out]);
        assert!(told.starts_with("exit 1\n"), "{told}");
        assert!(
            told.contains(&format!("`{file}` is there already; `--force` overwrites it")),
            "{told}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let told = words(folder.path(), &["export", "--format", format, "-o", out, "--force"]);
        assert!(told.starts_with("exit 0\n"), "{told}");
        assert!(fs::metadata(&path).unwrap().len() > 100);
    }
    assert_eq!(
        fs::read_dir(folder.path().join("x-csv")).unwrap().count(),
        7,
        "no file is left behind"
    );
}

#[test]
fn bad_words_are_told() {
    let folder = tempfile::tempdir().unwrap();
    session(folder.path(), "0000aaaa");
    let newer = session(folder.path(), "0000bbbb").join("session.json");
    let text = fs::read_to_string(&newer)
        .unwrap()
        .replacen("\"major\": 1", "\"major\": 2", 1);
    fs::write(&newer, text).unwrap();
    let dir = SessionsDir::resolve(Some(folder.path())).unwrap();
    let mut empty = SessionWriter::create(&dir, NewSession::default()).unwrap();
    empty.seal(None, &mut |_, _, _| {}).unwrap();
    let nothing = empty.id().to_owned();
    for (args, code, expected) in [
        (&["export", "0000a"][..], 2, "--format"),
        (
            &["export", "0000a", "--format", "pdf"],
            2,
            "perfetto, chrome, nsys-sqlite, csv, arrow",
        ),
        (&["export", "ffff", "--format", "csv"], 1, "no session `ffff`"),
        (&["export", "0000b", "--format", "csv"], 1, "has format 2."),
        (
            &["export", "0000a", "--format", "csv", "--pid", "9"],
            1,
            "has no process 9; it has 7, 8",
        ),
        (&["export", "0000a", "--format", "chrome", "-o", "."], 1, "folder"),
        (&["export", &nothing, "--format", "chrome"], 1, "has no rows to export"),
        (&["export", &nothing, "--format", "csv"], 1, "has no rows to export"),
        (
            &["export", &nothing, "--format", "nsys-sqlite"],
            1,
            "has no rows to export",
        ),
    ] {
        let told = words(folder.path(), args);
        assert!(told.starts_with(&format!("exit {code}\n")), "{args:?}: {told}");
        assert!(told.contains(expected), "{args:?}: {told}");
    }
    let left = fs::read_dir(folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().is_file());
    assert_eq!(left.count(), 0, "a failed export leaves nothing");
}

#[test]
fn a_damaged_file_is_named_and_the_rest_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = session(folder.path(), "0000aaaa").join("kernels/8-1/000001.parquet");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let told = words(folder.path(), &["export", "0000a", "--format", "csv", "-o", "out"]);
    assert!(
        told.starts_with("exit 0\n") && told.contains("kernels/8-1/000001.parquet"),
        "{told}"
    );
    let kernels = fs::read_to_string(folder.path().join("out/kernels.csv")).unwrap();
    assert_eq!(kernels.lines().count() as i64, 1 + KERNELS);
}
