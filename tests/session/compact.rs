//! Compaction, and tables of other versions.

use std::fs;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array as _, Int32Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use colonel::analysis::SessionSummary;
use colonel::schema::columns::TableBuilder as _;
use colonel::schema::manifest::SessionState;
use colonel::schema::tables::DevicesBuilder;
use colonel::session::synthetic::{SyntheticGuest, h100};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::fixture::{Fixture, codes, compact, seal, seal_kernels, starts};

#[test]
fn compaction_sorts_and_keeps_every_row() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    let mut devices = DevicesBuilder::default();
    devices.push(h100(4711));
    guest.seal(&mut devices).unwrap();
    // Segments that overlap, one that is older than all before it, and one in order.
    let segments: [Vec<i64>; 4] = [
        (0..5000).rev().collect(),
        (4000..9000).collect(),
        vec![8500, 3, 8400],
        (9000..9100).collect(),
    ];
    let mut expected: Vec<i64> = segments.iter().flatten().copied().collect();
    expected.sort_unstable();
    for (index, segment) in segments.into_iter().enumerate() {
        seal_kernels(&mut guest, ["gemm", "softmax", "copy<float>", "gemm"][index], segment);
    }
    guest.end(10_000).unwrap();
    seal(&mut writer);
    compact(&mut writer);

    assert_eq!(writer.manifest().state, SessionState::Compacted);
    let folder = writer.path().join("kernels").join(guest.name());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    assert!(!writer.path().join(".compacting").exists());
    let session = fixture.open("latest").unwrap();
    assert_eq!(starts(&session), expected);
    let columns = ["name", "start_ns", "waves", "theoretical_occupancy_pct", "layer"];
    let batches: Vec<RecordBatch> = session.scan("kernels", &columns).unwrap().collect();
    for batch in &batches {
        let names = batch.column(0).as_dictionary::<arrow_array::types::Int32Type>();
        let names = names.downcast_dict::<arrow_array::StringArray>().unwrap();
        for (row, name) in names.into_iter().enumerate() {
            let start = batch.column(1).as_primitive::<Int64Type>().value(row);
            match name.unwrap() {
                "gemm" => assert!(!(5000..9000).contains(&start)),
                "softmax" => assert!((4000..9000).contains(&start)),
                "copy<float>" => assert!([8500, 3, 8400].contains(&start)),
                other => panic!("{other}"),
            }
        }
        // 128 blocks of 256 threads on 132 SMs that hold 8 of them each.
        assert_eq!(
            batch.column(2).as_primitive::<Float64Type>().value(0),
            128.0 / (8.0 * 132.0)
        );
        assert_eq!(batch.column(3).as_primitive::<Float64Type>().value(0), 100.0);
        assert_eq!(batch.column(4).null_count(), batch.num_rows());
    }
}

/// Readers leave such columns out: Parquet takes as long to read nulls as texts that are all different.
#[test]
fn a_compacted_file_says_which_texts_it_has_not() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    seal_kernels(&mut guest, "gemm", [1, 2, 3]);
    guest.end(10).unwrap();
    seal(&mut writer);
    compact(&mut writer);
    let path = writer.path().join("kernels").join(guest.name()).join("000001.parquet");
    let file = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap();
    let group = file.metadata().row_group(0);
    let nulls = |name: &str| {
        let column = group.column(file.schema().index_of(name).unwrap());
        column.statistics().and_then(|statistics| statistics.null_count_opt())
    };
    assert_eq!(
        (nulls("name"), nulls("nvtx_path"), nulls("layer")),
        (Some(0), Some(3), Some(3))
    );
}

#[test]
fn compaction_twice_and_after_a_kill_is_harmless() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    seal_kernels(&mut guest, "gemm", [3, 1]);
    seal_kernels(&mut guest, "gemm", [2]);
    guest.end(20).unwrap();
    seal(&mut writer);
    let rest = writer.path().join(".compacting/kernels").join(guest.name());
    fs::create_dir_all(&rest).unwrap();
    fs::write(rest.join("000001.parquet"), b"half").unwrap();
    compact(&mut writer);
    compact(&mut writer);
    let session = fixture.open("latest").unwrap();
    assert_eq!(starts(&session), [1, 2, 3]);
    assert!(codes(&session).is_empty());
    let bare: Vec<_> = session.scan("kernels", &["waves"]).unwrap().collect();
    assert_eq!(
        bare[0].column(0).null_count(),
        3,
        "no device is known, so waves are null"
    );
}

#[test]
fn a_column_that_an_older_colonel_did_not_write_is_null() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    let path = seal_kernels(&mut guest, "gemm", [5, 6]);
    rewrite(&path, |batch| batch.project(&[2, 1]).unwrap());
    guest.end(20).unwrap();
    seal(&mut writer);
    let session = fixture.open("latest").unwrap();
    let batches: Vec<_> = session
        .scan("kernels", &["layer", "start_ns", "pid"])
        .unwrap()
        .collect();
    assert_eq!(batches[0].column(1).as_primitive::<Int64Type>().values(), &[5, 6]);
    assert_eq!(
        (batches[0].column(0).null_count(), batches[0].column(2).null_count()),
        (2, 2)
    );
}

#[test]
fn a_session_without_rows_opens() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    seal(&mut writer);
    compact(&mut writer);
    let session = fixture.open("latest").unwrap();
    assert_eq!(session.manifest().state, SessionState::Compacted);
    assert!(starts(&session).is_empty() && session.manifest().rows.is_empty());
}

/// A file's rows, all in one batch.
fn rewrite(path: &std::path::Path, change: impl FnOnce(RecordBatch) -> RecordBatch) {
    let file = fs::File::open(path).unwrap();
    let batch = ParquetRecordBatchReader::try_new(file, 1000)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let batch = change(batch);
    let mut file = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    file.write(&batch).unwrap();
    file.close().unwrap();
}

#[test]
fn a_column_that_a_later_guest_added_is_not_dropped() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    let path = seal_kernels(&mut guest, "gemm", [6, 5]);
    rewrite(&path, |batch| {
        let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new("added_later", DataType::Int32, true)));
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(Int32Array::from(vec![1, 2])));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    });
    guest.end(20).unwrap();
    seal(&mut writer);
    let before = fs::read(&path).unwrap();
    compact(&mut writer);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(writer.manifest().state, SessionState::Sealed);
    let session = fixture.open("latest").unwrap();
    assert_eq!(codes(&session), ["not_compacted"]);
    assert!(session.manifest().problems[0].message.contains("`added_later`"));
    assert_eq!(starts(&session), [6, 5]);
}

#[test]
fn a_column_of_another_type_is_a_problem_that_names_it() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    let path = seal_kernels(&mut guest, "gemm", [6, 5]);
    rewrite(&path, |_| {
        let schema = Schema::new(vec![Field::new("start_ns", DataType::Int32, false)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int32Array::from(vec![6, 5]))]).unwrap()
    });
    guest.end(20).unwrap();
    seal(&mut writer);
    let session = fixture.open("latest").unwrap();
    let mut scan = session.scan("kernels", &["start_ns"]).unwrap();
    assert!(scan.next().is_none());
    assert!(
        scan.problems()[0]
            .message
            .contains("column `start_ns` is Int32, not Int64"),
        "{:?}",
        scan.problems()
    );
}

/// Numbers that look random and are the same each time.
fn next(seed: &mut u64) -> usize {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*seed >> 33).unwrap()
}

#[test]
fn no_damage_to_a_file_brings_the_reader_down() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    let path = seal_kernels(&mut guest, "gemm", 0..2000);
    guest.end(20).unwrap();
    seal(&mut writer);
    let whole = fs::read(&path).unwrap();
    let session = fixture.open("latest").unwrap();
    let mut seed = 7;
    for _ in 0..500 {
        let mut damaged = whole.clone();
        for _ in 0..1 + next(&mut seed) % 4 {
            let at = next(&mut seed) % damaged.len();
            damaged[at] = u8::try_from(next(&mut seed) % 256).unwrap();
        }
        damaged.truncate(
            damaged.len()
                - if next(&mut seed).is_multiple_of(8) {
                    next(&mut seed) % 100
                } else {
                    0
                },
        );
        fs::write(&path, damaged).unwrap();
        let summary = SessionSummary::of(&session).unwrap();
        assert!(summary.kernel_count <= 2000 || !summary.problems.is_empty());
    }
}

#[test]
fn progress_counts_the_rows_of_all_tables() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    for pid in [4711, 4712] {
        let mut guest = SyntheticGuest::new(writer.path(), pid);
        seal_kernels(&mut guest, "gemm", [3, 4]);
        seal_kernels(&mut guest, "gemm", [1, 2]);
        guest.end(20).unwrap();
    }
    seal(&mut writer);
    let mut calls = Vec::new();
    writer
        .compact(&mut |phase, done, total| calls.push((phase.verb(), done, total)))
        .unwrap();
    assert_eq!(calls.last(), Some(&("compacting", 8, 8)));
    assert!(calls.is_sorted());
}
