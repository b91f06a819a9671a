//! Databases that `nsys export --type sqlite` writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use colonel::ingest::IngestError;
use colonel::session::Session;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use rusqlite::types::Value;

use crate::support::{Fixture, nsys_database, text};

fn ingested(fault: &str) -> (Fixture, Session) {
    let fixture = Fixture::new();
    let database = nsys_database(fixture.folder.path(), fault);
    fixture
        .fill("profiler", |ingest| ingest.nsys_sqlite(&database))
        .unwrap()
}

fn refused(change: impl FnOnce(&rusqlite::Connection)) -> String {
    let fixture = Fixture::new();
    let database = nsys_database(fixture.folder.path(), "");
    change(&rusqlite::Connection::open(&database).unwrap());
    let error = fixture.fill("process", |ingest| ingest.nsys_sqlite(&database));
    let folder = database.parent().unwrap().display().to_string();
    error.err().unwrap().to_string().replace(&folder, "")
}

#[test]
fn kernels_have_our_names_times_graphs_and_ranges() {
    let (_fixture, session) = ingested("");
    let columns = [
        "pid",
        "start_ns",
        "short_name",
        "correlation_id",
        "graph_id",
        "graph_node_id",
        "window",
        "nvtx_path",
    ];
    insta::assert_snapshot!(text(&session, "kernels", &columns), @r"
    4711 1700000000001310000 vectorized_elementwise_kernel 101 - - 1 step/layer0
    4711 1700000000001330000 nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT 102 - - 1 -
    4711 1700000000002130000 rms_norm_kernel 103 6 25769803776 1 step
    4711 1700000000002134000 nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT 103 6 25769803777 1 step
    4711 1700000000003130000 rms_norm_kernel 104 6 25769803776 1 step
    4711 1700000000003134000 nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT 104 6 25769803777 1 step
    ");
    let columns = [
        "mangled_name",
        "name",
        "grid_x",
        "block_x",
        "dynamic_shared_bytes",
        "theoretical_occupancy_pct",
    ];
    let first = text(&session, "kernels", &columns).lines().next().unwrap().to_owned();
    insta::assert_snapshot!(first, @"_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_11FillFunctorIfEEEEviT0_ void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float> >(int, at::native::FillFunctor<float>) 128 256 1024 100.000");
}

#[test]
fn the_other_tables_are_filled_too() {
    let (_fixture, session) = ingested("");
    let columns = [
        "start_ns",
        "copy_kind",
        "src_kind",
        "dst_kind",
        "bytes",
        "src_device_id",
    ];
    insta::assert_snapshot!(text(&session, "memcpys", &columns), @r"
    1700000000006000000 HtoD pinned device 4096 -
    1700000000006100000 DtoH device pageable 1024 -
    ");
    insta::assert_snapshot!(text(&session, "memsets", &["start_ns", "value", "bytes", "memory_kind"]), @"1700000000006200000 0 512 device");
    insta::assert_snapshot!(text(&session, "synchronizations", &["start_ns", "sync_kind", "stream_id", "event_id"]), @"1700000000006300000 stream 7 -");
    insta::assert_snapshot!(text(&session, "api_calls", &["pid", "thread_id", "start_ns", "api", "name", "return_value"]), @r"
    4700 4700 1700000000001500000 runtime cudaGetDeviceCount_v3020 0
    4711 4711 1700000000001300000 runtime cudaLaunchKernel_v7000 0
    4711 4712 1700000000001320000 driver cuLaunchKernelEx 0
    4711 4711 1700000000002100000 runtime cudaGraphLaunch_v10000 0
    4711 4711 1700000000003100000 runtime cudaGraphLaunch_v10000 0
    4711 4711 1700000000005990000 runtime cudaMemcpyAsync_v3020 0
    4711 4711 1700000000006090000 runtime cudaMemcpy_v3020 0
    4711 4711 1700000000006190000 runtime cudaMemsetAsync_v3020 0
    4711 4711 1700000000006300000 runtime cudaStreamSynchronize_v3020 0
    ");
    let columns = [
        "thread_id",
        "domain",
        "name",
        "payload",
        "kind",
        "depth",
        "path",
        "start_ns",
        "end_ns",
    ];
    insta::assert_snapshot!(text(&session, "nvtx_ranges", &columns), @r"
    4711 - step - push_pop 0 step 1700000000001000000 1700000000004000000
    4711 vllm layer0 17 push_pop 1 step/layer0 1700000000001100000 1700000000002000000
    4711 - here - mark 2 step/layer0/here 1700000000001200000 1700000000001200000
    ");
    insta::assert_snapshot!(text(&session, "devices", &["pid", "device_id", "name", "uuid", "sm_count", "clock_khz"]), @"4711 0 NVIDIA H100 80GB HBM3 GPU-12345678-1234-1234-1234-123456789abc 132 1980000");
}

#[test]
fn processes_that_used_cuda_have_a_window_and_their_losses() {
    let (_fixture, session) = ingested("");
    let manifest = session.manifest();
    let names: Vec<_> = manifest
        .processes
        .iter()
        .map(|p| (p.pid, p.command[0].as_str()))
        .collect();
    // nsys lists it as the shell that started it.
    assert_eq!(names, [(4700, "python3.11"), (4711, "VLLM::EngineCore")]);
    let engine = &manifest.processes[1];
    let window = &engine.windows[0];
    let zero = 1_700_000_000_000_000_000;
    assert_eq!(
        (window.start_ns - zero, window.end_ns),
        (1_000_000, Some(zero + 10_000_000))
    );
    assert_eq!((window.number, window.trigger.as_str()), (1, "profiler"));
    assert_eq!((engine.rows["kernels"], manifest.rows["kernels"]), (6, 6));
    let lost: Vec<_> = manifest
        .losses
        .iter()
        .map(|l| (l.kind.as_str(), l.reason.as_str(), l.count))
        .collect();
    assert_eq!(lost, [("kernels", "invalid_timestamp", Some(1))]);
    assert!(manifest.problems.is_empty(), "{:?}", manifest.problems);
}

#[test]
fn calls_and_ranges_that_end_before_they_start_are_lost() {
    let fixture = Fixture::new();
    let database = nsys_database(fixture.folder.path(), "");
    let connection = rusqlite::Connection::open(&database).unwrap();
    for table in ["CUPTI_ACTIVITY_KIND_RUNTIME", "NVTX_EVENTS"] {
        let first = format!("SELECT min(rowid) FROM {table} WHERE \"end\" > start");
        let sql = format!("UPDATE {table} SET \"end\" = start - 1 WHERE rowid = ({first})");
        assert_eq!(connection.execute(&sql, []).unwrap(), 1);
    }
    let (_whole_fixture, whole) = ingested("");
    let (_fixture, session) = fixture.fill("process", |ingest| ingest.nsys_sqlite(&database)).unwrap();
    for table in ["api_calls", "nvtx_ranges"] {
        assert_eq!(session.rows(table), whole.rows(table) - 1, "{table}");
        let losses = session.manifest().losses.iter();
        let lost: Vec<_> = losses
            .filter(|loss| loss.kind == table)
            .map(|loss| loss.count)
            .collect();
        assert_eq!(lost, [Some(1)], "{table}");
    }
}

#[test]
fn each_report_is_a_window() {
    let fixture = Fixture::new();
    let database = nsys_database(fixture.folder.path(), "");
    let (_fixture, session) = fixture
        .fill("profiler", |ingest| {
            ingest.nsys_sqlite(&database)?;
            ingest.nsys_sqlite(&database)
        })
        .unwrap();
    let windows = text(&session, "kernels", &["window"]);
    assert_eq!((windows.matches('1').count(), windows.matches('2').count()), (6, 6));
    assert_eq!(session.manifest().processes[1].windows.len(), 2);
    assert_eq!(
        text(&session, "devices", &["pid"]).lines().count(),
        1,
        "a GPU is listed once a process"
    );
}

#[test]
fn a_gpu_that_only_a_later_report_has_is_listed_too() {
    let fixture = Fixture::new();
    let database = nsys_database(fixture.folder.path(), "");
    let later = fixture.folder.path().join("later.sqlite");
    std::fs::copy(&database, &later).unwrap();
    let connection = rusqlite::Connection::open(&later).unwrap();
    let another = "INSERT INTO TARGET_INFO_GPU SELECT * FROM TARGET_INFO_GPU; \
                   UPDATE TARGET_INFO_GPU SET id = 4, name = 'another' WHERE rowid = 2; \
                   INSERT INTO TARGET_INFO_CUDA_DEVICE (gpuId, cudaId, pid) VALUES (4, 1, 4711)";
    connection.execute_batch(another).unwrap();
    let (_fixture, session) = fixture
        .fill("profiler", |ingest| {
            ingest.nsys_sqlite(&database)?;
            ingest.nsys_sqlite(&later)
        })
        .unwrap();
    insta::assert_snapshot!(text(&session, "devices", &["pid", "device_id", "name"]), @r"
    4711 0 NVIDIA H100 80GB HBM3
    4711 1 another
    ");
}

#[test]
fn an_empty_report_is_a_session_without_rows() {
    let (_fixture, session) = ingested("empty");
    assert!(session.manifest().processes.is_empty());
    assert_eq!(session.rows("kernels"), 0);
}

#[test]
fn graphs_that_were_recorded_whole_are_told() {
    let (_fixture, session) = ingested("graphs");
    assert_eq!(session.rows("kernels"), 2);
    insta::assert_snapshot!(session.manifest().problems[0].message, @"2 launches of CUDA graphs were recorded whole, and their kernels are not in the tables; `--nsys-cuda-graph-trace node` records each kernel");
}

#[test]
fn warnings_of_nsys_are_passed_on_once() {
    let (_fixture, session) = ingested("warns");
    let problems = &session.manifest().problems;
    assert_eq!(problems.len(), 1);
    insta::assert_snapshot!(problems[0].message, @"nsys: Not all CUDA events might have been collected.");
}

/// nsys 2024.6, schema 3.16: no clusters, no graph ids; and before that, no mangled names.
#[test]
fn older_schemas_have_fewer_columns() {
    let fixture = Fixture::new();
    let database = nsys_database(fixture.folder.path(), "");
    let connection = rusqlite::Connection::open(&database).unwrap();
    for column in ["graphId", "clusterX", "clusterY", "clusterZ", "mangledName"] {
        connection
            .execute(
                &format!("ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL DROP COLUMN {column}"),
                [],
            )
            .unwrap();
    }
    let (_fixture, session) = fixture.fill("process", |ingest| ingest.nsys_sqlite(&database)).unwrap();
    let names = text(&session, "kernels", &["name", "graph_id"]);
    assert!(names.starts_with("demangled by nsys: "), "{names}");
    assert_eq!(names.lines().filter(|line| line.ends_with(" 6")).count(), 4, "{names}");
}

#[test]
fn what_is_no_export_is_refused() {
    let fixture = Fixture::new();
    let missing = fixture.folder.path().join("missing.sqlite");
    let error = fixture
        .fill("process", |ingest| ingest.nsys_sqlite(&missing))
        .err()
        .unwrap();
    assert!(matches!(error, IngestError::NotNsys { .. }), "{error}");

    let fixture = Fixture::new();
    let path = fixture.folder.path().join("text.sqlite");
    std::fs::write(
        &path,
        "no database at all, but some text that is long enough to be looked at as if it were one",
    )
    .unwrap();
    let error = fixture
        .fill("process", |ingest| ingest.nsys_sqlite(&path))
        .err()
        .unwrap()
        .to_string();
    insta::assert_snapshot!(error.replace(&path.display().to_string(), "text.sqlite"), @"`text.sqlite` is no export of nsys: file is not a database; make one with `nsys export --type sqlite REPORT.nsys-rep`");

    let of_others = refused(|database| {
        database
            .execute_batch("DROP TABLE StringIds; DROP TABLE META_DATA_EXPORT")
            .unwrap()
    });
    insta::assert_snapshot!(of_others, @"`/report.sqlite` is no export of nsys: it has neither a table `META_DATA_EXPORT` nor `StringIds`; make one with `nsys export --type sqlite REPORT.nsys-rep`");
    let renamed = refused(|database| {
        let rename = "ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL RENAME COLUMN gridX TO gridDimX";
        database.execute_batch(rename).unwrap();
    });
    insta::assert_snapshot!(renamed, @"`/report.sqlite` has schema 3.28.1, whose table `CUPTI_ACTIVITY_KIND_KERNEL` lacks the column `gridX`; colonel knows 3.11 to 3.28");
}

/// As the columns of nsys's export: integers, a text, a float.
fn parquetdir(database: &Path, compression: Compression) -> PathBuf {
    let folder = database.with_extension("parquetdir");
    fs::create_dir(&folder).unwrap();
    let database = rusqlite::Connection::open(database).unwrap();
    let mut tables = database
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table'")
        .unwrap();
    let tables: Vec<String> = tables
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for table in tables {
        let mut about = database
            .prepare("SELECT name, type FROM pragma_table_info(?1)")
            .unwrap();
        let columns = about.query_map([&table], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let columns: Vec<(String, String)> = columns.map(Result::unwrap).collect();
        let mut rows = database.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
        let mut cells: Vec<Vec<Value>> = vec![Vec::new(); columns.len()];
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for (place, column) in cells.iter_mut().enumerate() {
                column.push(row.get(place).unwrap());
            }
        }
        let columns = columns.iter().zip(cells).map(|((name, kind), cells)| {
            let column: ArrayRef = match kind.as_str() {
                "TEXT" => Arc::new(cells.iter().map(text_of).collect::<DictionaryArray<Int32Type>>()),
                "REAL" => Arc::new(cells.into_iter().map(real_of).collect::<Float64Array>()),
                _ => Arc::new(cells.into_iter().map(integer_of).collect::<Int64Array>()),
            };
            (name.as_str(), column, true)
        });
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let file = fs::File::create(folder.join(format!("{table}.parquet"))).unwrap();
        let settings = WriterProperties::builder().set_compression(compression).build();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(settings)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }
    folder
}

fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        Value::Null => None,
        other => panic!("{other:?} is no text"),
    }
}

fn integer_of(value: Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(number),
        Value::Null => None,
        other => panic!("{other:?} is no integer"),
    }
}

fn real_of(value: Value) -> Option<f64> {
    match value {
        Value::Real(number) => Some(number),
        Value::Null => None,
        other => panic!("{other:?} is no float"),
    }
}

#[test]
fn a_folder_of_parquet_files_is_the_same_report() {
    for (fault, compression) in [("", Compression::SNAPPY), ("warns", Compression::UNCOMPRESSED)] {
        let fixture = Fixture::new();
        let database = nsys_database(fixture.folder.path(), fault);
        let folder = parquetdir(&database, compression);
        let (_of_sqlite, expected) = fixture.fill("process", |ingest| ingest.nsys_sqlite(&database)).unwrap();
        let (_of_folder, found) = Fixture::new()
            .fill("process", |ingest| ingest.nsys_parquetdir(&folder))
            .unwrap();
        assert!(expected.rows("kernels") > 0 && expected.rows("nvtx_ranges") > 0);
        for table in colonel::schema::tables::all() {
            let columns: Vec<_> = table.columns.iter().map(|column| column.name).collect();
            assert_eq!(
                text(&found, table.name, &columns),
                text(&expected, table.name, &columns),
                "{}",
                table.name
            );
        }
        let told = |session: &Session| -> Vec<_> {
            let problems = session.manifest().problems.iter();
            problems.map(|problem| problem.message.clone()).collect()
        };
        assert_eq!(told(&found), told(&expected));
        let programs = |session: &Session| -> Vec<_> {
            let processes = session.manifest().processes.iter();
            processes.map(|process| process.command.clone()).collect()
        };
        assert_eq!(programs(&found), programs(&expected));
    }
}

/// The names of a file's columns are its own.
#[test]
fn a_column_of_any_name_is_one() {
    let fixture = Fixture::new();
    let folder = parquetdir(&nsys_database(fixture.folder.path(), ""), Compression::UNCOMPRESSED);
    let quoted = Field::new("a\" int, \"b", DataType::Int64, true);
    let schema = Arc::new(Schema::new(vec![quoted]));
    let file = fs::File::create(folder.join("TARGET_INFO_CUDA_DEVICE.parquet")).unwrap();
    ArrowWriter::try_new(file, schema, None).unwrap().close().unwrap();
    let error = fixture
        .fill("process", |ingest| ingest.nsys_parquetdir(&folder))
        .err()
        .unwrap();
    assert!(error.to_string().contains("lacks the column `gpuId`"), "{error}");
}

#[test]
fn a_folder_that_is_no_export_is_refused() {
    let refused = |change: fn(&Path)| {
        let fixture = Fixture::new();
        let database = nsys_database(fixture.folder.path(), "");
        let folder = parquetdir(&database, Compression::UNCOMPRESSED);
        change(&folder);
        let error = fixture
            .fill("process", |ingest| ingest.nsys_parquetdir(&folder))
            .err()
            .unwrap();
        error.to_string().replace(&folder.display().to_string(), "FOLDER")
    };
    let emptied = refused(|folder| {
        fs::remove_dir_all(folder).unwrap();
        fs::create_dir(folder).unwrap();
    });
    insta::assert_snapshot!(emptied, @"`FOLDER` is no export of nsys: the folder has none of its tables, such as `StringIds.parquet`; make one with `nsys export --type sqlite REPORT.nsys-rep`");
    let damaged = refused(|folder| fs::write(folder.join("NVTX_EVENTS.parquet"), "PAR1 and no more").unwrap());
    assert!(
        damaged.starts_with("`FOLDER` is no export of nsys: `NVTX_EVENTS.parquet` can't be read: "),
        "{damaged}"
    );
    let others = refused(|folder| {
        for table in ["StringIds", "META_DATA_EXPORT"] {
            fs::remove_file(folder.join(format!("{table}.parquet"))).unwrap();
        }
    });
    assert!(
        others.contains("it has neither a table `META_DATA_EXPORT` nor `StringIds`"),
        "{others}"
    );
}

/// What nsys 2025.3.1 exported on an H100.
#[test]
fn an_export_of_a_real_nsys_is_read() {
    let fixture = Fixture::new();
    let database = fixture.folder.path().join("recorded.sqlite");
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection
        .execute_batch(include_str!("../nsight/recorded/matmul_nsys.sql"))
        .unwrap();
    const SUM: &str = "SELECT sum(end - start) FROM CUPTI_ACTIVITY_KIND_KERNEL";
    let total: i64 = connection.query_row(SUM, [], |row| row.get(0)).unwrap();
    drop(connection);
    let (_fixture, session) = fixture.fill("process", |ingest| ingest.nsys_sqlite(&database)).unwrap();
    let kernels = text(&session, "kernels", &["start_ns", "end_ns"]);
    let durations = kernels.lines().map(|line| {
        let (start, end) = line.split_once(' ').unwrap();
        end.parse::<i64>().unwrap() - start.parse::<i64>().unwrap()
    });
    assert_eq!((kernels.lines().count(), durations.sum::<i64>()), (21, total));
    let columns = [
        "short_name",
        "grid_x",
        "block_x",
        "dynamic_shared_bytes",
        "registers_per_thread",
    ];
    let kernels = text(&session, "kernels", &columns);
    insta::assert_snapshot!(kernels.lines().take(2).collect::<Vec<_>>().join("\n"), @r"
    distribution_elementwise_grid_stride_kernel 1056 256 0 44
    nvjet_sm90_hsh_256x128_64x4_1x2_h_bz_coopA_NNT 2 384 213188 168
    ");
    assert_eq!(session.manifest().processes[0].command, ["python3"]);
    // Of its warnings none concerns what is read.
    assert_eq!(
        session.manifest().problems.len(),
        0,
        "{:?}",
        session.manifest().problems
    );
}
