//! Every error of a session, worded once.

use std::path::PathBuf;

use crate::schema::manifest::FORMAT;

/// Why a session could not be made, opened, sealed or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A file or folder could not be read or written.
    #[error("{action} `{path}`: {source}")]
    Io {
        /// What was tried: "read", "write", …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The session folder went away while it was in use.
    #[error("session folder `{0}` was removed while the session ran; what it held is lost")]
    Gone(PathBuf),
    /// A JSON file of a session does not parse.
    #[error("`{path}` is not a session's file: {source}")]
    Json {
        /// File.
        path: PathBuf,
        /// What serde said.
        source: serde_json::Error,
    },
    /// No session has this id.
    #[error("no session `{id}` in `{dir}`{hint}")]
    NotFound {
        /// What was asked for.
        id: String,
        /// Where.
        dir: PathBuf,
        /// What there is instead, ready to print.
        hint: String,
    },
    /// The session has no window of this number or name.
    #[error("session `{id}` has no window `{asked}`; {known}")]
    NoSuchWindow {
        /// Session.
        id: String,
        /// What was asked for.
        asked: String,
        /// Which there are, in words.
        known: String,
    },
    /// Several sessions begin so.
    #[error("`{id}` fits {} sessions ({}); give more digits", matches.len(), matches.join(", "))]
    Ambiguous {
        /// What was asked for.
        id: String,
        /// All that fit.
        matches: Vec<String>,
    },
    /// Written by a later colonel.
    #[error(
        "session `{id}` has format {major}.{minor}, written by colonel {colonel}; this colonel {} reads formats up to \
         {}.x: open it with colonel {colonel} or later",
        crate::VERSION, FORMAT.major
    )]
    TooNew {
        /// Session.
        id: String,
        /// Its format.
        major: u32,
        /// Its format.
        minor: u32,
        /// What wrote it.
        colonel: String,
    },
    /// A path that holds no session.
    #[error("`{0}` is not a session folder: it has neither `session.json` nor `processes`")]
    NotASession(PathBuf),
    /// A running session was to be removed.
    #[error("session `{id}` is still running ({who}); stop it first, or remove it with `--force`")]
    Running {
        /// Session.
        id: String,
        /// Which processes live.
        who: String,
    },
    /// A Parquet file could not be written or read.
    #[error("table file `{path}`: {source}")]
    Parquet {
        /// File.
        path: PathBuf,
        /// What parquet said.
        source: parquet::errors::ParquetError,
    },
    /// A table that was not compacted.
    #[error("`{path}`: {reason}")]
    Kept {
        /// Table folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Compaction would have changed the number of rows; the table was left as it was.
    #[error("compacting `{path}` gave {got} rows of {expected}; the table was left as it was")]
    RowsDiffer {
        /// Table folder.
        path: PathBuf,
        /// Rows of the segments.
        expected: u64,
        /// Rows written.
        got: u64,
    },
}

impl SessionError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn parquet<E: Into<parquet::errors::ParquetError>>(path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Parquet {
            path,
            source: source.into(),
        }
    }
}
