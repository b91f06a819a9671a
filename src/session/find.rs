//! Sessions of a folder: by id, prefix or `latest`; all of them; and removing one.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::schema::manifest::SessionState;
use crate::session::open::is_session;
use crate::session::{Session, SessionError, SessionsDir, files};

/// The word for the session made last.
pub const LATEST: &str = "latest";

/// A session in a list, also one that does not open.
#[derive(Debug)]
pub struct Listed {
    /// Name of its folder.
    pub id: String,
    /// Its folder.
    pub path: PathBuf,
    /// The session, or why it does not open.
    pub session: Result<Session, SessionError>,
}

impl Session {
    /// Opens by id, unique prefix of one, `latest`, or the path of a session's folder.
    pub fn open(sessions: &SessionsDir, which: &OsStr) -> Result<Self, SessionError> {
        Self::load(&find(sessions, which)?)
    }

    /// All sessions of the folder, oldest first. One that is removed meanwhile is not in it.
    pub fn list(sessions: &SessionsDir) -> Result<Vec<Listed>, SessionError> {
        let mut listed: Vec<_> = folders(sessions)?
            .into_iter()
            .map(|(id, path)| Listed {
                session: Self::load(&path),
                id,
                path,
            })
            .filter(|listed| is_session(&listed.path))
            .collect();
        listed.sort_by_key(|listed| {
            let created = listed.session.as_ref().map(|session| session.manifest().created_ns);
            (created.unwrap_or(i64::MIN), listed.id.clone())
        });
        Ok(listed)
    }

    /// Removes a session by id, prefix or `latest`; a running one only with `force`. Says which it was.
    pub fn remove(sessions: &SessionsDir, which: &OsStr, force: bool) -> Result<String, SessionError> {
        let path = find_id(sessions, which)?;
        let id = name_of(&path);
        if !force {
            refuse_running(&id, &path)?;
        }
        // First out of sight, so that no list shows half a session; a session of that hidden name is a rest of one.
        let doomed = path.with_file_name(format!(".removing-{id}"));
        remove_all(&doomed)?;
        fs::rename(&path, &doomed).map_err(SessionError::io("remove", &path))?;
        remove_all(&doomed)?;
        Ok(id)
    }
}

/// A session that does not open for its format can still be removed.
fn refuse_running(id: &str, path: &Path) -> Result<(), SessionError> {
    let session = match Session::load(path) {
        Ok(session) => session,
        Err(SessionError::TooNew { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let manifest = session.manifest();
    if !session.is_local() && manifest.state == SessionState::Running {
        let who = format!("perhaps, on host `{}`", manifest.host.name);
        return Err(SessionError::Running { id: id.to_owned(), who });
    }
    let live = session.live_processes();
    if live.is_empty() {
        return Ok(());
    }
    let pids: Vec<_> = live.iter().map(|process| process.pid.to_string()).collect();
    Err(SessionError::Running {
        id: id.to_owned(),
        who: format!("pid {}", pids.join(", ")),
    })
}

fn remove_all(path: &Path) -> Result<(), SessionError> {
    // A guest may still make a folder while its neighbours go.
    const ATTEMPTS: u32 = 5;
    for attempt in 1.. {
        match fs::remove_dir_all(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && attempt < ATTEMPTS => {}
            Err(error) => return Err(SessionError::io("remove", path)(error)),
        }
    }
    Ok(())
}

/// Folder of the session that is meant.
fn find(sessions: &SessionsDir, which: &OsStr) -> Result<PathBuf, SessionError> {
    let path = Path::new(which);
    if which.as_bytes().contains(&b'/') || matches!(which.as_bytes(), b"." | b"..") {
        return std::path::absolute(path).map_err(SessionError::io("find", path));
    }
    match find_id(sessions, which) {
        Err(SessionError::NotFound { .. }) if is_session(path) => {
            std::path::absolute(path).map_err(SessionError::io("find", path))
        }
        found => found,
    }
}

fn find_id(sessions: &SessionsDir, which: &OsStr) -> Result<PathBuf, SessionError> {
    let wanted = which.to_string_lossy();
    if wanted == LATEST {
        let listed = Session::list(sessions)?;
        return match listed.into_iter().next_back() {
            Some(listed) => Ok(listed.path),
            None => Err(not_found(sessions, &wanted, &[])),
        };
    }
    let all = folders(sessions)?;
    let prefix = wanted.to_ascii_lowercase();
    let mut matches: Vec<_> = all.iter().filter(|(id, _)| id.starts_with(&prefix)).collect();
    if let Some(exact) = matches.iter().position(|(id, _)| *id == prefix) {
        matches = vec![matches.swap_remove(exact)];
    }
    match matches.as_slice() {
        [(_, path)] if !prefix.is_empty() => Ok(path.clone()),
        [] | [_] => Err(not_found(sessions, &wanted, &all)),
        several => Err(SessionError::Ambiguous {
            id: wanted.into_owned(),
            matches: several.iter().map(|(id, _)| id.clone()).collect(),
        }),
    }
}

/// Ids and folders, by id.
fn folders(sessions: &SessionsDir) -> Result<Vec<(String, PathBuf)>, SessionError> {
    let entries = files::entries(sessions.path()).map_err(SessionError::io("read", sessions.path()))?;
    let mut folders: Vec<_> = entries
        .into_iter()
        .filter(|path| !files::is_hidden(path) && is_session(path))
        .map(|path| (name_of(&path), path))
        .collect();
    folders.sort();
    Ok(folders)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn not_found(sessions: &SessionsDir, wanted: &str, all: &[(String, PathBuf)]) -> SessionError {
    const SHOWN: usize = 8;
    let alike = |id: &str| {
        id.bytes()
            .zip(wanted.to_ascii_lowercase().bytes())
            .take_while(|(a, b)| a == b)
            .count()
    };
    let mut ids: Vec<_> = all.iter().map(|(id, _)| id.as_str()).collect();
    ids.sort_by_key(|id| std::cmp::Reverse(alike(id)));
    let hint = if ids.is_empty() {
        ": there are none yet, `colonel run -- CMD` makes one".to_owned()
    } else if let Some(more) = ids.len().checked_sub(SHOWN).filter(|&more| more > 0) {
        format!(
            " (there are {} and {more} more: `colonel list`)",
            ids[..SHOWN].join(", ")
        )
    } else {
        format!(" (there are {})", ids.join(", "))
    };
    SessionError::NotFound {
        id: wanted.to_owned(),
        dir: sessions.shown().to_owned(),
        hint,
    }
}
