//! Sessions on disk, made as guests make them: sealing, recovery, compaction, reading, removing.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array as _, RecordBatch};
use colonel::schema::columns::TableBuilder as _;
use colonel::schema::manifest::{Exit, Loss, PROCESSES_DIR, Progress, SESSION_FILE, SessionState};
use colonel::schema::tables::{DevicesBuilder, KernelsBuilder, MemcpysBuilder};
use colonel::session::synthetic::{SyntheticGuest, h100, kernel, memcpy};
use colonel::session::{Life, NewSession, Session, SessionError, SessionWriter, SessionsDir};

struct Fixture {
    _folder: tempfile::TempDir,
    sessions: SessionsDir,
}

impl Fixture {
    fn new() -> Self {
        Self::below(Path::new("sessions"))
    }

    fn below(name: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sessions = SessionsDir::resolve(Some(&folder.path().join(name))).unwrap();
        Self {
            _folder: folder,
            sessions,
        }
    }

    fn writer(&self) -> SessionWriter {
        let new = NewSession {
            command: vec!["python".to_owned()],
            gate: "process".to_owned(),
            ..NewSession::default()
        };
        SessionWriter::create(&self.sessions, new).unwrap()
    }

    /// A session whose launcher was killed: no process has its start time.
    fn abandoned(&self) -> PathBuf {
        let mut writer = self.writer();
        writer.manifest_mut().launcher.as_mut().unwrap().start_ticks = 1;
        writer.write().unwrap();
        writer.path().to_owned()
    }

    fn open(&self, which: &str) -> Result<Session, SessionError> {
        Session::open(&self.sessions, OsStr::new(which))
    }
}

fn seal(writer: &mut SessionWriter) {
    writer
        .seal(
            Some(Exit {
                code: Some(0),
                signal: None,
            }),
            &mut |_, _, _| {},
        )
        .unwrap();
}

fn compact(writer: &mut SessionWriter) {
    writer.compact(&mut |_, _, _| {}).unwrap();
}

/// A segment of kernels `name` with the given starts.
fn seal_kernels(guest: &mut SyntheticGuest, name: &str, starts: impl IntoIterator<Item = i64>) -> PathBuf {
    let mut builder = KernelsBuilder::default();
    for start in starts {
        builder.push(kernel(guest.process.pid, name, start, 10));
    }
    guest.seal(&mut builder).unwrap()
}

fn starts(session: &Session) -> Vec<i64> {
    let batches: Vec<RecordBatch> = session.scan("kernels", &["start_ns"]).unwrap().collect();
    batches
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect()
}

fn codes(session: &Session) -> Vec<&str> {
    session
        .manifest()
        .problems
        .iter()
        .map(|problem| problem.code.as_str())
        .collect()
}

fn loss<'a>(losses: &'a [Loss], reason: &str) -> Vec<(&'a str, Option<u64>)> {
    losses
        .iter()
        .filter(|loss| loss.reason == reason)
        .map(|loss| (loss.kind.as_str(), loss.count))
        .collect()
}

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
        [("kernels", Some(9)), ("memcpys", Some(1))]
    );
    assert_eq!(session.manifest().losses[0].pid, Some(4711));
    assert_eq!(codes(&session), ["process_cut_off"]);
    let message = &session.manifest().problems[0].message;
    assert!(message.contains("process 4711 ended without notice"), "{message}");
    assert!(!unfinished.exists());
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
fn a_session_whose_launcher_was_killed_opens() {
    let fixture = Fixture::new();
    let path = fixture.abandoned();
    let mut guest = SyntheticGuest::new(&path, 4711);
    seal_kernels(&mut guest, "gemm", [1, 2]);
    guest.write_process().unwrap();
    let before = fs::read(path.join(SESSION_FILE)).unwrap();
    let session = fixture.open("latest").unwrap();
    assert_eq!(session.life(), &Life::Recovered);
    assert_eq!(session.rows("kernels"), 2);
    assert_eq!(codes(&session), ["process_cut_off", "not_sealed_by_launcher"]);
    assert_eq!(fs::read(path.join(SESSION_FILE)).unwrap(), before, "a reader wrote");
}

#[test]
fn a_session_without_its_file_or_with_half_of_it_opens() {
    for text in [None, Some(&b"{\"format\":{\"maj"[..]), Some(b"")] {
        let fixture = Fixture::new();
        let path = fixture.abandoned();
        let mut guest = SyntheticGuest::new(&path, 4711);
        seal_kernels(&mut guest, "gemm", [1, 2]);
        guest.end(3).unwrap();
        match text {
            Some(text) => fs::write(path.join(SESSION_FILE), text).unwrap(),
            None => fs::remove_file(path.join(SESSION_FILE)).unwrap(),
        }
        let session = fixture.open("latest").unwrap();
        assert_eq!(session.rows("kernels"), 2);
        assert_eq!(codes(&session), ["session_file_broken", "not_sealed_by_launcher"]);
        assert_eq!(session.manifest().id, path.file_name().unwrap().to_str().unwrap());
    }
}

#[test]
fn a_running_session_is_read_and_not_removed() {
    let fixture = Fixture::new();
    let writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    seal_kernels(&mut guest, "gemm", [1]);
    guest.write_process().unwrap();
    let session = fixture.open(writer.id()).unwrap();
    assert!(
        matches!(session.life(), Life::Running(processes) if processes.len() == 1),
        "{:?}",
        session.life()
    );
    assert_eq!(session.rows("kernels"), 1);
    let error = Session::remove(&fixture.sessions, OsStr::new("latest"), false).unwrap_err();
    assert!(matches!(&error, SessionError::Running { .. }));
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    assert!(writer.path().exists());
    assert_eq!(
        Session::remove(&fixture.sessions, OsStr::new("latest"), true).unwrap(),
        writer.id()
    );
    assert_eq!(fs::read_dir(fixture.sessions.path()).unwrap().count(), 0);
    assert!(matches!(writer.write(), Err(SessionError::Gone(_))));
}

#[test]
fn ids_prefixes_and_latest() {
    let fixture = Fixture::new();
    assert!(Session::list(&fixture.sessions).unwrap().is_empty());
    let error = fixture.open("latest").unwrap_err().to_string();
    assert!(error.contains("`colonel run -- CMD` makes one"), "{error}");
    for (created, id) in [(3, "aa11bb22"), (9, "aa22cc33"), (5, "deadbeef")] {
        let mut writer = fixture.writer();
        writer.manifest_mut().created_ns = created;
        writer.manifest_mut().id = id.to_owned();
        seal(&mut writer);
        fs::rename(writer.path(), fixture.sessions.path().join(id)).unwrap();
    }
    fs::create_dir(fixture.sessions.path().join("deadnotes")).unwrap();
    let id = |which| fixture.open(which).unwrap().manifest().id.clone();
    assert_eq!(id("latest"), "aa22cc33");
    assert_eq!(id("d"), "deadbeef");
    assert_eq!(id("AA1"), "aa11bb22");
    assert_eq!(id("aa22cc33"), "aa22cc33");
    let error = fixture.open("aa").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`aa` fits 2 sessions (aa11bb22, aa22cc33); give more digits"
    );
    let error = fixture.open("deadbeee").unwrap_err();
    assert!(matches!(&error, SessionError::NotFound { .. }));
    assert!(
        error.to_string().ends_with("(there are deadbeef, aa11bb22, aa22cc33)"),
        "{error}"
    );
    assert!(matches!(fixture.open(""), Err(SessionError::Ambiguous { .. })));
    let listed: Vec<_> = Session::list(&fixture.sessions)
        .unwrap()
        .into_iter()
        .map(|listed| listed.id)
        .collect();
    assert_eq!(listed, ["aa11bb22", "deadbeef", "aa22cc33"]);
    let path = fixture.sessions.path().join("deadbeef");
    assert_eq!(
        Session::open(&fixture.sessions, path.as_os_str())
            .unwrap()
            .manifest()
            .id,
        "deadbeef"
    );
    let error = Session::open(&fixture.sessions, fixture.sessions.path().join("deadnotes").as_os_str()).unwrap_err();
    assert!(matches!(error, SessionError::NotASession(_)));
}

#[test]
fn only_sessions_are_removed() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.sessions.path().join("01234567/photos")).unwrap();
    for which in ["01234567", "../sessions", ".", "/"] {
        let result = Session::remove(&fixture.sessions, OsStr::new(which), true);
        assert!(
            matches!(result, Err(SessionError::NotFound { .. })),
            "{which}: {result:?}"
        );
    }
    assert!(fixture.sessions.path().join("01234567/photos").exists());
}

#[test]
fn a_newer_format_is_refused_and_names_who_reads_it() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    seal(&mut writer);
    let file = writer.path().join(SESSION_FILE);
    let text = fs::read_to_string(&file).unwrap();
    let text = text
        .replace("\"major\": 1", "\"major\": 7")
        .replace(colonel::VERSION, "12.3.4");
    // A later major may have changed anything else.
    fs::write(&file, text.replace("\"state\": \"sealed\"", "\"state\": {\"new\": 1}")).unwrap();
    let error = fixture.open(writer.id()).unwrap_err();
    assert!(matches!(&error, SessionError::TooNew { major: 7, .. }));
    assert!(
        error.to_string().contains("open it with colonel 12.3.4 or later"),
        "{error}"
    );
    assert!(Session::list(&fixture.sessions).unwrap()[0].session.is_err());
    Session::remove(&fixture.sessions, OsStr::new(writer.id()), false).unwrap();
}

#[test]
fn a_newer_minor_opens() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    seal(&mut writer);
    let file = writer.path().join(SESSION_FILE);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"minor\": 0", "\"minor\": 9, \"added\": true")).unwrap();
    assert_eq!(fixture.open(writer.id()).unwrap().manifest().format.minor, 9);
}

#[test]
fn a_path_that_is_not_utf8_works() {
    let fixture = Fixture::below(Path::new(&OsString::from_vec(b"caf\xe9/sessions".to_vec())));
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    seal_kernels(&mut guest, "gemm", [2, 1]);
    guest.end(20).unwrap();
    seal(&mut writer);
    compact(&mut writer);
    assert_eq!(starts(&fixture.open("latest").unwrap()), [1, 2]);
}

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
    use parquet::arrow::ArrowWriter;
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    let path = seal_kernels(&mut guest, "gemm", [5, 6]);
    let whole: Vec<_> = {
        let file = fs::File::open(&path).unwrap();
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 100).unwrap();
        reader.map(|batch| batch.unwrap()).collect()
    };
    let old = whole[0].project(&[2, 1]).unwrap();
    let mut file = ArrowWriter::try_new(fs::File::create(&path).unwrap(), old.schema(), None).unwrap();
    file.write(&old).unwrap();
    file.close().unwrap();
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

#[test]
fn sessions_removed_while_they_are_listed_are_not_in_the_list() {
    let fixture = Fixture::new();
    for _ in 0..40 {
        let mut writer = fixture.writer();
        let mut guest = SyntheticGuest::new(writer.path(), 4711);
        seal_kernels(&mut guest, "gemm", [1]);
        guest.end(2).unwrap();
        seal(&mut writer);
    }
    std::thread::scope(|scope| {
        let remover = scope.spawn(|| while Session::remove(&fixture.sessions, OsStr::new("latest"), true).is_ok() {});
        while !remover.is_finished() {
            for listed in Session::list(&fixture.sessions).unwrap() {
                let broken = listed
                    .session
                    .as_ref()
                    .map(|session| session.manifest().problems.clone());
                assert!(broken.is_ok_and(|problems| problems.is_empty()), "{listed:?}");
            }
        }
    });
    assert!(Session::list(&fixture.sessions).unwrap().is_empty());
}
