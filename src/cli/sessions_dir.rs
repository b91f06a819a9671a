//! The option `--sessions-dir`, the same on every command.

use std::ffi::OsString;
use std::path::Path;

use crate::schema::env;
use crate::session::{SessionError, SessionsDir};

/// Where sessions are.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SessionsDirArgs {
    /// Folder of the sessions, relative to the current folder [default: .colonel/sessions]
    // OsString, for clap refuses an empty path and an empty variable must count as none.
    #[arg(long, value_name = "DIR", env = env::SESSIONS_DIR, hide_env_values = true)]
    pub sessions_dir: Option<OsString>,
}

impl SessionsDirArgs {
    /// The folder, made absolute.
    pub fn resolve(&self) -> Result<SessionsDir, SessionError> {
        SessionsDir::resolve(self.sessions_dir.as_deref().map(Path::new))
    }

    /// What another command must be given to find the same folder: nothing where the variable or the default does.
    pub fn option(&self) -> String {
        match &self.sessions_dir {
            Some(dir) if !dir.is_empty() && std::env::var_os(env::SESSIONS_DIR).as_ref() != Some(dir) => {
                format!(" --sessions-dir {}", dir.display())
            }
            _ => String::new(),
        }
    }
}
