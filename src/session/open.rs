//! A session as a reader sees it: sealed, still running, or cut off and put together from what the guests left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::Deserialize;

use crate::schema::manifest::{
    FORMAT, Format, PROCESSES_DIR, Problem, ProcessId, SESSION_FILE, Session as Manifest, SessionState,
};
use crate::session::gather::{Gathered, gather};
use crate::session::writer::{now_ns, this_host};
use crate::session::{SessionError, files, is_alive};

/// A session opened for reading.
#[derive(Debug, Clone)]
pub struct Session {
    path: PathBuf,
    manifest: Manifest,
    life: Life,
}

/// Where a session's life is, as seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// Its launcher or one of its guests still runs: the figures grow.
    Running(Vec<ProcessId>),
    /// Sealed by its launcher.
    Ended,
    /// Its launcher was killed before it could seal; what the guests left was put together, in memory only.
    Recovered,
}

impl Session {
    /// Opens a session's folder.
    pub fn load(path: &Path) -> Result<Self, SessionError> {
        if !is_session(path) {
            return Err(SessionError::NotASession(path.to_owned()));
        }
        let mut session = match read_manifest(path) {
            Ok(manifest) => Self {
                path: path.to_owned(),
                life: Life::Ended,
                manifest,
            },
            Err(error @ SessionError::TooNew { .. }) => return Err(error),
            Err(error) => Self {
                path: path.to_owned(),
                life: Life::Ended,
                manifest: stand_in(path, &error),
            },
        };
        if session.manifest.state == SessionState::Running {
            session.gather()?;
        }
        Ok(session)
    }

    /// The session's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `session.json` says; for a session that was not sealed, what its folder holds now.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where its life is.
    pub fn life(&self) -> &Life {
        &self.life
    }

    /// Rows of a table.
    pub fn rows(&self, table: &str) -> u64 {
        self.manifest.rows.get(table).copied().unwrap_or(0)
    }

    /// Bytes of the whole folder.
    pub fn disk_bytes(&self) -> u64 {
        files::disk_bytes(&self.path)
    }

    /// Whether its processes can be asked after here.
    pub(crate) fn is_local(&self) -> bool {
        self.manifest.host.name.is_empty() || self.manifest.host.name == this_host().name
    }

    /// Processes that may still write into the folder, whatever its state.
    pub(crate) fn live_processes(&self) -> Vec<ProcessId> {
        if !self.is_local() {
            return Vec::new();
        }
        let guests = self
            .manifest
            .processes
            .iter()
            .filter(|process| process.ended_ns.is_none());
        let guests = guests.map(|process| ProcessId {
            pid: process.pid,
            start_ticks: process.start_ticks,
        });
        self.manifest
            .launcher
            .into_iter()
            .chain(guests)
            .filter(|id| is_alive(id.pid, id.start_ticks))
            .collect()
    }

    fn gather(&mut self) -> Result<(), SessionError> {
        let gathered: Gathered = gather(&self.path, self.is_local(), &mut |_, _, _| {})?;
        gathered.write_into(&mut self.manifest);
        let live = self.live_processes();
        if !live.is_empty() {
            self.life = Life::Running(live);
            return Ok(());
        }
        self.life = Life::Recovered;
        let message = if self.is_local() {
            "colonel's launcher ended before it could seal this session (killed?): put together from what its processes \
             left"
                .to_owned()
        } else {
            let host = &self.manifest.host.name;
            format!("the session runs on host `{host}` or was cut off there: put together from what is on disk")
        };
        let code = "not_sealed_by_launcher".to_owned();
        self.manifest.problems.push(Problem {
            code,
            message,
            time_ns: now_ns(),
        });
        Ok(())
    }
}

/// Whether a folder is a session, were it a broken one.
pub(crate) fn is_session(path: &Path) -> bool {
    path.join(SESSION_FILE).is_file() || path.join(PROCESSES_DIR).is_dir()
}

/// The fields that every major keeps.
#[derive(Deserialize)]
struct Head {
    format: Format,
    #[serde(default)]
    id: String,
    #[serde(default)]
    colonel: String,
}

fn read_manifest(path: &Path) -> Result<Manifest, SessionError> {
    let file = path.join(SESSION_FILE);
    let text = fs::read(&file).map_err(SessionError::io("read", &file))?;
    let json = |source| SessionError::Json {
        path: file.clone(),
        source,
    };
    let head: Head = serde_json::from_slice(&text).map_err(json)?;
    if head.format.major > FORMAT.major {
        let Format { major, minor } = head.format;
        return Err(SessionError::TooNew {
            id: head.id,
            major,
            minor,
            colonel: head.colonel,
        });
    }
    serde_json::from_slice(&text).map_err(json)
}

/// For a folder whose `session.json` is gone or broken: enough to read the tables.
fn stand_in(path: &Path, error: &SessionError) -> Manifest {
    let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let unknown = || "unknown".to_owned();
    Manifest {
        format: FORMAT,
        id,
        name: None,
        colonel: unknown(),
        commit: String::new(),
        state: SessionState::Running,
        created_ns: created_ns(path),
        ended_ns: None,
        command: Vec::new(),
        cwd: String::new(),
        evaluator: unknown(),
        flavor: unknown(),
        gate: unknown(),
        trace: Vec::new(),
        simulated: false,
        profiler: None,
        software: Default::default(),
        host: Default::default(),
        launcher: None,
        exit: None,
        processes: Vec::new(),
        rows: Default::default(),
        losses: Vec::new(),
        evaluation: None,
        problems: vec![Problem {
            code: "session_file_broken".to_owned(),
            message: format!("{error}; what ran and how it ended is unknown, the tables are read as they are"),
            time_ns: now_ns(),
        }],
    }
}

/// The folder's own age: the `processes` folder is made with it and keeps the time of the last guest's start at most.
fn created_ns(path: &Path) -> i64 {
    let modified = fs::metadata(path.join(PROCESSES_DIR))
        .or_else(|_| fs::metadata(path))
        .and_then(|m| m.modified());
    let since = modified
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
