//! The launcher's hold on a session: makes the folder, writes `session.json`, seals, compacts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::schema::manifest::{
    Exit, FORMAT, Host, PROCESSES_DIR, Problem, SESSION_FILE, Session as Manifest, SessionState,
};
use crate::session::{ProgressSink, Session, SessionError, SessionsDir, own_id};

/// What the launcher knows before the command starts.
#[derive(Debug, Clone, Default)]
pub struct NewSession {
    /// `--name`.
    pub name: Option<String>,
    /// The command, non-UTF-8 replaced.
    pub command: Vec<String>,
    /// Working directory of the command.
    pub cwd: String,
    /// `cupti`, `nsys` or `ncu`.
    pub evaluator: String,
    /// `generic` or `vllm`.
    pub flavor: String,
    /// Gate of the guests.
    pub gate: String,
    /// Extra record kinds.
    pub trace: Vec<String>,
    /// Runs under gpu-sim.
    pub simulated: bool,
    /// Versions of what the command's python will import, and its own.
    pub software: BTreeMap<String, String>,
}

/// A session that this process makes. Dropping it leaves the folder as it is.
#[derive(Debug)]
pub struct SessionWriter {
    path: PathBuf,
    manifest: Manifest,
}

impl SessionWriter {
    /// Makes a folder with a new id, its `processes` folder, and the first `session.json`, on disk for good.
    pub fn create(sessions: &SessionsDir, new: NewSession) -> Result<Self, SessionError> {
        fs::create_dir_all(sessions.path()).map_err(SessionError::io("create", sessions.path()))?;
        let (id, path) = create_folder(sessions.path())?;
        let processes = path.join(PROCESSES_DIR);
        fs::create_dir(&processes).map_err(SessionError::io("create", &processes))?;
        let writer = Self {
            path,
            manifest: first_manifest(id, new),
        };
        writer.write()?;
        Ok(writer)
    }

    /// The session's folder, absolute: the value of `COLONEL_SESSION`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Eight hex digits.
    pub fn id(&self) -> &str {
        &self.manifest.id
    }

    /// What `session.json` says, or will say at the next [`Self::write`].
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// For the launcher's own fields; [`Self::write`] puts them on disk.
    pub fn manifest_mut(&mut self) -> &mut Manifest {
        &mut self.manifest
    }

    /// Notes what could not be had; the next write or the sealing puts it on disk.
    pub fn add_problem(&mut self, code: &str, message: impl Into<String>) {
        self.manifest.problems.push(Problem {
            code: code.to_owned(),
            message: message.into(),
            time_ns: now_ns(),
        });
    }

    /// Replaces `session.json` in one step, so that a reader sees the old or the new one whole.
    pub fn write(&self) -> Result<(), SessionError> {
        write_json(&self.path, SESSION_FILE, &self.manifest)
    }

    /// Ends the session: merges the guests' files, finds processes that were cut off and what they lost, counts rows
    /// and says so in `session.json`. Nothing that holds data is deleted.
    pub fn seal(&mut self, exit: Option<Exit>, progress: ProgressSink<'_>) -> Result<(), SessionError> {
        self.manifest.exit = exit;
        // Where reading a report took its time, the caller has noted the end.
        self.manifest.ended_ns.get_or_insert_with(now_ns);
        self.manifest.launcher = None;
        crate::session::seal::seal(&self.path, &mut self.manifest, progress)?;
        self.write()
    }

    /// Sorts and merges the tables of a sealed session, table by table. A table that can't be compacted stays as it
    /// is, and the session says why; only a failure to write `session.json` is an error.
    pub fn compact(&mut self, progress: ProgressSink<'_>) -> Result<(), SessionError> {
        crate::session::compact::compact(&self.path, &mut self.manifest, None, progress)?;
        self.write()
    }

    /// Takes up a session that nobody writes any more, whose table `name` has got rows since: `change` may say more of
    /// it. One that was never sealed is left as it is; its readers count for themselves.
    pub fn amend(
        session: &Session,
        name: &str,
        change: impl FnOnce(&mut Manifest),
        progress: ProgressSink<'_>,
    ) -> Result<(), SessionError> {
        if session.manifest().state == SessionState::Running {
            return Ok(());
        }
        let mut writer = Self {
            path: session.path().to_owned(),
            manifest: session.manifest().clone(),
        };
        let rows = crate::session::files::table_rows(&writer.path, name)?;
        writer.manifest.rows.insert(name.to_owned(), rows);
        change(&mut writer.manifest);
        if writer.manifest.state == SessionState::Compacted {
            crate::session::compact::compact(&writer.path, &mut writer.manifest, Some(name), progress)?;
        }
        writer.write()
    }
}

/// Unix time in ns.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The folder's name is the id, so making the folder is what makes the id unique.
fn create_folder(sessions: &Path) -> Result<(String, PathBuf), SessionError> {
    const ATTEMPTS: u32 = 64;
    let mut last = ErrorKind::AlreadyExists.into();
    for _ in 0..ATTEMPTS {
        let id = random_id()?;
        let path = sessions.join(&id);
        match fs::create_dir(&path) {
            Ok(()) => return Ok((id, path)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(SessionError::io("create", path)(error)),
        }
    }
    Err(SessionError::io("create a session in", sessions)(last))
}

fn random_id() -> Result<String, SessionError> {
    const SOURCE: &str = "/dev/urandom";
    let mut bytes = [0; 4];
    File::open(SOURCE)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(SessionError::io("read", SOURCE))?;
    Ok(format!("{:08x}", u32::from_ne_bytes(bytes)))
}

fn first_manifest(id: String, new: NewSession) -> Manifest {
    Manifest {
        format: FORMAT,
        id,
        name: new.name,
        colonel: crate::VERSION.to_owned(),
        commit: crate::COMMIT.to_owned(),
        state: SessionState::Running,
        created_ns: now_ns(),
        ended_ns: None,
        command: new.command,
        cwd: new.cwd,
        evaluator: new.evaluator,
        flavor: new.flavor,
        gate: new.gate,
        trace: new.trace,
        simulated: new.simulated,
        profiler: None,
        software: new.software,
        host: this_host(),
        launcher: own_id(),
        exit: None,
        processes: Vec::new(),
        rows: Default::default(),
        losses: Vec::new(),
        evaluation: None,
        problems: Vec::new(),
    }
}

/// The machine that this process runs on.
pub(crate) fn this_host() -> Host {
    let read = |path: &str| {
        fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    let cpus = std::thread::available_parallelism().map_or(0, |count| u32::try_from(count.get()).unwrap_or(u32::MAX));
    Host {
        name: read("/proc/sys/kernel/hostname"),
        kernel: read("/proc/sys/kernel/osrelease"),
        cpus,
    }
}

/// Writes `folder/name` as JSON under a dot name, on disk, then renames it.
pub(crate) fn write_json<T: Serialize>(folder: &Path, name: &str, value: &T) -> Result<(), SessionError> {
    let path = folder.join(name);
    let temporary = folder.join(format!(".{name}.tmp"));
    let mut text = serde_json::to_vec_pretty(value).map_err(|source| SessionError::Json {
        path: path.clone(),
        source,
    })?;
    text.push(b'\n');
    let written = File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, &path))
        .and_then(|()| File::open(folder)?.sync_all());
    written.map_err(|error| {
        if error.kind() == ErrorKind::NotFound && !folder.exists() {
            return SessionError::Gone(folder.to_owned());
        }
        let _ = fs::remove_file(&temporary);
        SessionError::io("write", path)(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions() -> (tempfile::TempDir, SessionsDir) {
        let folder = tempfile::tempdir().unwrap();
        let sessions = SessionsDir::resolve(Some(&folder.path().join("deep/sessions"))).unwrap();
        (folder, sessions)
    }

    #[test]
    fn a_new_session_has_its_folder_and_file_at_once() {
        let (_folder, sessions) = sessions();
        let new = NewSession {
            command: vec!["./a.out".to_owned()],
            ..NewSession::default()
        };
        let writer = SessionWriter::create(&sessions, new).unwrap();
        assert_eq!(writer.id().len(), 8);
        assert!(
            writer
                .id()
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
        );
        assert_eq!(writer.path(), sessions.path().join(writer.id()));
        assert!(writer.path().join(PROCESSES_DIR).is_dir());
        let text = fs::read(writer.path().join(SESSION_FILE)).unwrap();
        let manifest: Manifest = serde_json::from_slice(&text).unwrap();
        assert_eq!(&manifest, writer.manifest());
        assert_eq!(manifest.state, SessionState::Running);
        assert_eq!(manifest.launcher, own_id());
        assert!(manifest.host.cpus > 0);
    }

    #[test]
    fn writing_leaves_no_temporary_file() {
        let (_folder, sessions) = sessions();
        let mut writer = SessionWriter::create(&sessions, NewSession::default()).unwrap();
        writer.add_problem("no_gpu", "no GPU");
        writer.write().unwrap();
        let mut names: Vec<_> = fs::read_dir(writer.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, [PROCESSES_DIR, SESSION_FILE]);
    }

    #[test]
    fn a_folder_removed_meanwhile_is_named() {
        let (_folder, sessions) = sessions();
        let writer = SessionWriter::create(&sessions, NewSession::default()).unwrap();
        fs::remove_dir_all(writer.path()).unwrap();
        assert!(matches!(writer.write(), Err(SessionError::Gone(path)) if path == writer.path()));
    }

    #[test]
    fn a_folder_that_can_not_be_made_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let sessions = SessionsDir::resolve(Some(&file.join("sessions"))).unwrap();
        let error = SessionWriter::create(&sessions, NewSession::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("create `") && error.contains("file/sessions`"),
            "{error}"
        );
    }
}
