//! Every error of an export, worded once.

use crate::export::TargetError;
use crate::session::SessionError;

/// Why a session could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The session can't be read.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The file can't be written.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Writing failed part way.
    #[error("the export can't be written: {0}")]
    Io(#[from] std::io::Error),
    /// A batch can't be read or written.
    #[error("a table can't be converted: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// SQLite refused.
    #[error("the SQLite file can't be written: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A value does not become JSON.
    #[error("the trace can't be written: {0}")]
    Json(#[from] serde_json::Error),
    /// The launcher compacted meanwhile.
    #[error("session `{0}` was compacted while it was read; export it again")]
    Changed(String),
    /// There is nothing to export.
    #[error("{0}")]
    Empty(String),
    /// A process that is not there.
    #[error("session `{id}` has no process {pid}; it has {known}")]
    NoProcess {
        /// Session.
        id: String,
        /// What was asked for.
        pid: u32,
        /// Which there are.
        known: String,
    },
}
