//! Why a report could not be read.

use std::path::{Path, PathBuf};

use crate::session::SessionError;

/// Why a report could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// It is not what it should be.
    #[error("`{}` is no export of nsys: {reason}; make one with `nsys export --type sqlite REPORT.nsys-rep`", .path.display())]
    NotNsys {
        /// File.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It has a table that we can't make sense of.
    #[error(
        "`{}` has schema {version}, whose table `{table}` lacks the column `{column}`; colonel knows 3.11 to 3.28",
        .path.display()
    )]
    UnknownSchema {
        /// File.
        path: PathBuf,
        /// Its version.
        version: String,
        /// Table.
        table: &'static str,
        /// What it lacks.
        column: &'static str,
    },
    /// SQLite could not read on.
    #[error("`{}` can't be read: {source}; export the report again", .path.display())]
    Sqlite {
        /// File.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// It is not ncu's raw page.
    #[error("{what} is no raw page of ncu: {reason}; make one with `ncu --import REPORT.ncu-rep --csv --page raw`")]
    NotNcu {
        /// What was read.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is not a trace of Kineto.
    #[error(
        "`{}` is no trace of Kineto, torch's profiler: {reason}; `torch.profiler` writes one with `export_chrome_trace`",
        .path.display()
    )]
    NotKineto {
        /// File.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The session could not be written.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl From<rusqlite::Error> for IngestError {
    /// [`Self::in_file`] says later in which file.
    fn from(source: rusqlite::Error) -> Self {
        let path = PathBuf::new();
        Self::Sqlite { path, source }
    }
}

impl IngestError {
    pub(super) fn in_file(self, file: &Path) -> Self {
        match self {
            Self::Sqlite { source, .. } => Self::Sqlite {
                path: file.to_owned(),
                source,
            },
            other => other,
        }
    }
}
