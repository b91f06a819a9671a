//! A folder of sessions, and what tests look at.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use colonel::schema::columns::TableBuilder as _;
use colonel::schema::manifest::{Exit, Loss};
use colonel::schema::tables::KernelsBuilder;
use colonel::session::synthetic::{SyntheticGuest, kernel};
use colonel::session::{NewSession, Session, SessionError, SessionWriter, SessionsDir};

pub(crate) struct Fixture {
    _folder: tempfile::TempDir,
    pub(crate) sessions: SessionsDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::below(Path::new("sessions"))
    }

    pub(crate) fn below(name: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sessions = SessionsDir::resolve(Some(&folder.path().join(name))).unwrap();
        Self {
            _folder: folder,
            sessions,
        }
    }

    pub(crate) fn writer(&self) -> SessionWriter {
        let new = NewSession {
            command: vec!["python".to_owned()],
            gate: "process".to_owned(),
            ..NewSession::default()
        };
        SessionWriter::create(&self.sessions, new).unwrap()
    }

    /// A session whose launcher was killed: no process has its start time.
    pub(crate) fn abandoned(&self) -> PathBuf {
        let mut writer = self.writer();
        writer.manifest_mut().launcher.as_mut().unwrap().start_ticks = 1;
        writer.write().unwrap();
        writer.path().to_owned()
    }

    pub(crate) fn open(&self, which: &str) -> Result<Session, SessionError> {
        Session::open(&self.sessions, OsStr::new(which))
    }
}

pub(crate) fn seal(writer: &mut SessionWriter) {
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

pub(crate) fn compact(writer: &mut SessionWriter) {
    writer.compact(&mut |_, _, _| {}).unwrap();
}

/// A segment of kernels `name` with the given starts.
pub(crate) fn seal_kernels(guest: &mut SyntheticGuest, name: &str, starts: impl IntoIterator<Item = i64>) -> PathBuf {
    let mut builder = KernelsBuilder::default();
    for start in starts {
        builder.push(kernel(guest.process.pid, name, start, 10));
    }
    guest.seal(&mut builder).unwrap()
}

pub(crate) fn starts(session: &Session) -> Vec<i64> {
    let batches: Vec<RecordBatch> = session.scan("kernels", &["start_ns"]).unwrap().collect();
    batches
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect()
}

pub(crate) fn codes(session: &Session) -> Vec<&str> {
    session
        .manifest()
        .problems
        .iter()
        .map(|problem| problem.code.as_str())
        .collect()
}

pub(crate) fn loss<'a>(losses: &'a [Loss], reason: &str) -> Vec<(&'a str, Option<u64>)> {
    losses
        .iter()
        .filter(|loss| loss.reason == reason)
        .map(|loss| (loss.kind.as_str(), loss.count))
        .collect()
}
