//! Sealing: from what the guests left, to what `session.json` says for good.

use std::fs;
use std::path::Path;

use crate::schema::manifest::{PROCESSES_DIR, Process, Session as Manifest, SessionState};
use crate::session::{Phase, ProgressSink, SessionError};

/// Brings the manifest up to what is on disk.
pub(crate) fn seal(path: &Path, manifest: &mut Manifest, progress: ProgressSink<'_>) -> Result<(), SessionError> {
    let processes = path.join(PROCESSES_DIR);
    let entries = fs::read_dir(&processes).map_err(SessionError::io("read", &processes))?;
    manifest.processes = entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
        .filter_map(|entry| serde_json::from_slice::<Process>(&fs::read(entry.path()).ok()?).ok())
        .collect();
    progress(Phase::Sealing, 1, 1);
    manifest.state = SessionState::Sealed;
    Ok(())
}
