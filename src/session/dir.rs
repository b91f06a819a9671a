//! Where sessions are: `--sessions-dir`, `COLONEL_SESSIONS_DIR`, else `.colonel/sessions`, relative to the folder that
//! colonel was called in.

use std::path::{Path, PathBuf};

use crate::session::SessionError;

/// Folder of the sessions without option or variable.
pub const DEFAULT_SESSIONS_DIR: &str = ".colonel/sessions";

/// The folder that holds sessions. It need not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionsDir {
    /// As the user wrote it, for messages and hints.
    shown: PathBuf,
    absolute: PathBuf,
}

impl SessionsDir {
    /// The folder for an option's value (clap has already looked at `COLONEL_SESSIONS_DIR`), made absolute now, so
    /// that a later change of directory does not move it. An empty value counts as none.
    pub fn resolve(option: Option<&Path>) -> Result<Self, SessionError> {
        let shown = option
            .filter(|path| !path.as_os_str().is_empty())
            .unwrap_or(Path::new(DEFAULT_SESSIONS_DIR));
        let absolute = std::path::absolute(shown).map_err(SessionError::io("find", shown))?;
        Ok(Self {
            shown: shown.to_owned(),
            absolute,
        })
    }

    /// Absolute path.
    pub fn path(&self) -> &Path {
        &self.absolute
    }

    /// The path as the user gave it: shorter, for messages.
    pub fn shown(&self) -> &Path {
        &self.shown
    }
}
