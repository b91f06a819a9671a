//! colonel's own files, and the folder that sessions go to.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use serde::Serialize;

use super::super::guest::{find_guest, program_folder};
use super::super::sim;
use crate::session::SessionsDir;

/// Where things are, or why they are not.
#[derive(Debug, Clone, Serialize)]
pub struct Places {
    /// The guest library.
    pub guest: Result<PathBuf, String>,
    /// gpu-sim's libraries.
    pub sim: Result<Vec<PathBuf>, String>,
    /// Folder of the sessions.
    pub sessions: PathBuf,
    /// Why it can't be written; `None` if it can.
    pub sessions_refused: Option<String>,
    /// Bytes free there.
    pub free_bytes: Option<u64>,
}

/// Looks around.
pub(super) fn gather(sessions: &SessionsDir) -> Places {
    let existing = nearest_existing(sessions.path());
    let refused = access(&existing, AccessFlags::W_OK | AccessFlags::X_OK).err();
    Places {
        guest: find_guest().map_err(|error| error.to_string()),
        sim: program_folder()
            .and_then(|folder| sim::find_all(&folder))
            .map_err(|error| error.to_string()),
        sessions: sessions.shown().to_owned(),
        sessions_refused: if existing.is_dir() {
            refused.map(|error| format!("`{}`: {}", existing.display(), error.desc()))
        } else {
            Some(format!("`{}` is not a folder", existing.display()))
        },
        free_bytes: statvfs(&existing)
            .ok()
            .map(|stat| stat.blocks_available() * stat.fragment_size()),
    }
}

/// The folder itself, or the one above that it would be made in.
fn nearest_existing(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("/"))
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_is_judged_by_the_one_above() {
        let temp = tempfile::tempdir().unwrap();
        let below = |name: &str| SessionsDir::resolve(Some(&temp.path().join(name))).unwrap();
        let places = gather(&below("a/b/c"));
        assert_eq!(places.sessions_refused, None);
        assert!(places.free_bytes.is_some());
        assert!(!temp.path().join("a").exists(), "looking makes nothing");

        std::fs::write(temp.path().join("file"), "").unwrap();
        let refused = gather(&below("file/sessions")).sessions_refused.unwrap();
        assert!(refused.contains("file` is not a folder"), "{refused}");
    }
}
