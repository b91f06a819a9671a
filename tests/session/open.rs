//! Opening, listing, removing: by id, running, cut off, broken, of another format.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use colonel::schema::manifest::{FORMAT, SESSION_FILE};
use colonel::session::synthetic::SyntheticGuest;
use colonel::session::{Life, Session, SessionError};

use crate::fixture::{Fixture, codes, compact, seal, seal_kernels, starts};

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
fn a_session_of_another_host_is_read_and_not_removed() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    writer.manifest_mut().host.name = "gpu-17".to_owned();
    writer.write().unwrap();
    let mut guest = SyntheticGuest::new(writer.path(), 4711);
    seal_kernels(&mut guest, "gemm", [1]);
    guest.write_process().unwrap();
    let session = fixture.open("latest").unwrap();
    assert_eq!((session.life(), session.rows("kernels")), (&Life::Recovered, 1));
    assert!(
        session
            .manifest()
            .problems
            .iter()
            .any(|problem| problem.message.contains("on host `gpu-17`"))
    );
    let error = Session::remove(&fixture.sessions, OsStr::new("latest"), false).unwrap_err();
    assert!(error.to_string().contains("gpu-17"), "{error}");
    Session::remove(&fixture.sessions, OsStr::new("latest"), true).unwrap();
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
    let ours = format!("\"minor\": {}", FORMAT.minor);
    fs::write(&file, text.replace(&ours, "\"minor\": 9, \"added\": true")).unwrap();
    assert_eq!(fixture.open(writer.id()).unwrap().manifest().format.minor, 9);
}

#[test]
fn an_older_minor_opens() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    seal(&mut writer);
    let file = writer.path().join(SESSION_FILE);
    let mut older: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    older["format"]["minor"] = 0.into();
    older.as_object_mut().unwrap().remove("software").unwrap();
    fs::write(&file, older.to_string()).unwrap();
    let session = fixture.open(writer.id()).unwrap();
    assert_eq!(session.manifest().format.minor, 0);
    assert!(session.manifest().software.is_empty());
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
