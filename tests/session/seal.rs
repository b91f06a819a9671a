//! Sealing: counts, losses, damage.

use std::fs;

use colonel::schema::columns::TableBuilder as _;
use colonel::schema::manifest::{Exit, Loss, PROCESSES_DIR, Progress, SessionState};
use colonel::schema::tables::MemcpysBuilder;
use colonel::session::Life;
use colonel::session::synthetic::{SyntheticGuest, memcpy};

use crate::fixture::{Fixture, codes, compact, loss, seal, seal_kernels, starts};

#[test]
fn sealing_counts_rows_and_merges_processes() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    for pid in [4711, 4712] {
        let mut guest = SyntheticGuest::new(writer.path(), pid);
        seal_kernels(&mut guest, "gemm", [10, 20]);
        seal_kernels(&mut guest, "gemm", [30]);
        let mut copies = MemcpysBuilder::default();
        copies.push(memcpy(pid, "HtoD", 4096, 5, 3));
        guest.seal(&mut copies).unwrap();
        guest.end(100).unwrap();
    }
    let mut calls = Vec::new();
    writer
        .seal(
            Some(Exit {
                code: Some(3),
                signal: None,
            }),
            &mut |_, done, total| calls.push((done, total)),
        )
        .unwrap();
    assert_eq!(calls, (1..=6).map(|done| (done, 6)).collect::<Vec<_>>());

    let session = fixture.open(writer.id()).unwrap();
    assert_eq!(session.life(), &Life::Ended);
    assert_eq!(session.manifest().state, SessionState::Sealed);
    assert_eq!(
        session.manifest().exit,
        Some(Exit {
            code: Some(3),
            signal: None
        })
    );
    assert_eq!(
        (
            session.rows("kernels"),
            session.rows("memcpys"),
            session.rows("memsets")
        ),
        (6, 2, 0)
    );
    assert_eq!(session.manifest().processes.len(), 2);
    assert!(session.manifest().losses.is_empty() && session.manifest().problems.is_empty());
}

#[test]
fn a_killed_process_loses_what_was_not_sealed_and_it_is_counted() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    let segment = seal_kernels(&mut guest, "gemm", [10, 20, 30]);
    let unfinished = segment.with_file_name(".000002.parquet.tmp");
    fs::write(&unfinished, b"PAR1 half a segment").unwrap();
    // The last segment got its name, but the guest died before it could say so: 3 rows sealed, 2 said.
    guest.process.rows = [("kernels".to_owned(), 2)].into();
    guest.write_process().unwrap();
    let received = [("kernels".to_owned(), 12), ("memcpys".to_owned(), 1)].into();
    let sealed = [("kernels".to_owned(), 2), ("memcpys".to_owned(), 0)].into();
    guest.write_progress(&Progress { received, sealed }).unwrap();
    seal(&mut writer);

    let session = fixture.open("latest").unwrap();
    assert_eq!(session.rows("kernels"), 3);
    assert_eq!(
        loss(&session.manifest().losses, "not_sealed"),
        // Its window was open: what CUPTI still had nobody can count.
        [("records", None), ("kernels", Some(9)), ("memcpys", Some(1))]
    );
    assert_eq!(session.manifest().losses[0].pid, Some(4711));
    assert_eq!(codes(&session), ["process_cut_off"]);
    let message = &session.manifest().problems[0].message;
    assert!(message.contains("process 4711 ended without notice"), "{message}");
    assert!(!unfinished.exists());
}

#[test]
fn what_a_killed_process_could_not_write_is_counted_once() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    seal_kernels(&mut guest, "gemm", [10, 20, 30]);
    let lost = |kind: &str, reason: &str, count| Loss {
        pid: None,
        kind: kind.to_owned(),
        reason: reason.to_owned(),
        count: Some(count),
        first_ns: 1,
        last_ns: 2,
    };
    guest.process.losses = vec![
        lost("kernels", "write_failed", 5),
        // These never counted as received.
        lost("kernels", "invalid_timestamp", 2),
        lost("memcpys", "write_failed", 4),
    ];
    guest.write_process().unwrap();
    let received = [("kernels".to_owned(), 12), ("memcpys".to_owned(), 4)].into();
    let sealed = [("kernels".to_owned(), 3)].into();
    guest.write_progress(&Progress { received, sealed }).unwrap();
    seal(&mut writer);

    let losses = &writer.manifest().losses;
    assert_eq!(
        loss(losses, "not_sealed"),
        [("records", None), ("kernels", Some(12 - 3 - 5))]
    );
    assert_eq!(
        loss(losses, "write_failed"),
        [("kernels", Some(5)), ("memcpys", Some(4))],
        "as the process said"
    );
}

#[test]
fn a_torn_progress_file_is_an_unknown_loss_not_none() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let guest = SyntheticGuest::new(writer.path(), 4711);
    guest.write_process().unwrap();
    let path = writer
        .path()
        .join(PROCESSES_DIR)
        .join(format!("{}.progress", guest.name()));
    fs::write(path, r#"{"received":{"kern"#).unwrap();
    seal(&mut writer);
    assert_eq!(loss(&writer.manifest().losses, "not_sealed"), [("records", None)]);
}

#[test]
fn a_process_that_still_runs_is_left_alone() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), std::process::id());
    guest.process.start_ticks = colonel::session::start_ticks(std::process::id()).unwrap();
    let segment = seal_kernels(&mut guest, "gemm", [30, 10, 20]);
    let unfinished = segment.with_file_name(".000002.parquet.tmp");
    fs::write(&unfinished, b"being written").unwrap();
    guest.write_process().unwrap();
    seal(&mut writer);
    compact(&mut writer);
    assert!(unfinished.exists(), "a living guest's segment was removed");
    assert_eq!(writer.manifest().state, SessionState::Sealed);
    let session = fixture.open(writer.id()).unwrap();
    assert_eq!(codes(&session), ["process_still_running", "not_compacted"]);
    assert_eq!(starts(&session), [30, 10, 20], "the table was touched");
}

#[test]
fn a_truncated_file_is_named_counted_and_kept() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    let broken = seal_kernels(&mut guest, "gemm", 0..100);
    seal_kernels(&mut guest, "gemm", [1000, 1001]);
    guest.end(2000).unwrap();
    let bytes = fs::read(&broken).unwrap();
    fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    seal(&mut writer);
    compact(&mut writer);

    let session = fixture.open("latest").unwrap();
    assert_eq!(session.rows("kernels"), 2);
    assert_eq!(
        loss(&session.manifest().losses, "file_unreadable"),
        [("kernels", Some(100))]
    );
    assert_eq!(codes(&session), ["table_file_broken", "not_compacted"]);
    assert!(session.manifest().problems[0].message.contains("000001.parquet"));
    assert_eq!(starts(&session), [1000, 1001]);
    assert_eq!(fs::read(&broken).unwrap().len(), bytes.len() / 2, "data was deleted");
    let mut scan = session.scan("kernels", &["start_ns"]).unwrap();
    scan.by_ref().for_each(drop);
    assert_eq!(scan.problems().len(), 1);
}

#[test]
fn damage_inside_a_file_keeps_its_other_row_groups() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    let broken = seal_kernels(&mut guest, "gemm", 0..1000);
    seal_kernels(&mut guest, "gemm", [5000]);
    guest.end(6000).unwrap();
    let mut bytes = fs::read(&broken).unwrap();
    bytes[4..2000].fill(0xff);
    fs::write(&broken, bytes).unwrap();
    seal(&mut writer);
    let session = fixture.open("latest").unwrap();
    let mut scan = session.scan("kernels", &["start_ns"]).unwrap();
    let rows: usize = scan.by_ref().map(|batch| batch.num_rows()).sum();
    assert_eq!((rows, scan.problems().len()), (1, 1));
}

#[test]
fn a_file_that_is_gone_is_counted() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    let gone = seal_kernels(&mut guest, "gemm", 0..100);
    seal_kernels(&mut guest, "gemm", [1000]);
    guest.end(2000).unwrap();
    fs::remove_file(gone).unwrap();
    seal(&mut writer);
    assert_eq!(
        loss(&writer.manifest().losses, "file_unreadable"),
        [("kernels", Some(100))]
    );
    assert_eq!(codes(&fixture.open("latest").unwrap()), ["table_file_missing"]);
}

#[test]
fn rows_without_a_process_file_and_a_broken_process_file_are_told() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    seal_kernels(&mut guest, "gemm", [1, 2]);
    let file = writer.path().join(PROCESSES_DIR).join(format!("{}.json", guest.name()));
    fs::write(&file, "{").unwrap();
    seal(&mut writer);
    assert_eq!(codes(&fixture.open("latest").unwrap()), ["process_file_broken"]);
    fs::remove_file(file).unwrap();
    seal(&mut writer);
    let session = fixture.open("latest").unwrap();
    assert!(codes(&session).contains(&"process_file_missing"));
    assert_eq!((session.rows("kernels"), starts(&session)), (2, vec![1, 2]));
}

#[test]
fn sealing_a_folder_that_was_removed_says_so() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    fs::remove_dir_all(writer.path()).unwrap();
    let error = writer.seal(None, &mut |_, _, _| {}).unwrap_err();
    assert!(
        error.to_string().contains("was removed while the session ran"),
        "{error}"
    );
    assert!(!writer.path().exists());
}
