//! Sealing: from what the guests left, to what `session.json` says for good.

use std::fs;
use std::path::Path;

use crate::schema::manifest::{ProcessId, Session as Manifest, SessionState};
use crate::schema::tables;
use crate::session::gather::gather;
use crate::session::writer::now_ns;
use crate::session::{ProgressSink, SessionError, files};

/// Brings the manifest up to what is on disk.
pub(crate) fn seal(path: &Path, manifest: &mut Manifest, progress: ProgressSink<'_>) -> Result<(), SessionError> {
    if !path.exists() {
        return Err(SessionError::Gone(path.to_owned()));
    }
    let mut gathered = gather(path, true, progress)?;
    for &process in &gathered.running {
        gathered.problems.push(crate::schema::manifest::Problem {
            code: "process_still_running".to_owned(),
            message: format!(
                "process {} outlived the command and still runs: what it records from now on is read, but not in these \
                 totals",
                process.pid
            ),
            time_ns: now_ns(),
        });
    }
    remove_unfinished(path, &gathered.running)?;
    gathered.write_into(manifest);
    manifest.state = SessionState::Sealed;
    Ok(())
}

/// Segments that a dead process had not finished hold no footer, so nothing that can be read.
fn remove_unfinished(session: &Path, running: &[ProcessId]) -> Result<(), SessionError> {
    for table in tables::all() {
        let read = SessionError::io("read", session.join(table.name));
        for folder in files::process_folders(session, table.name).map_err(read)? {
            if folder.process.is_none_or(|process| running.contains(&process)) {
                continue;
            }
            for path in files::unfinished(&folder.path).map_err(SessionError::io("read", &folder.path))? {
                fs::remove_file(&path).map_err(SessionError::io("remove", &path))?;
            }
        }
    }
    Ok(())
}
