//! Every libcupti on this machine, and the one that a program would get if it brings none of its own.

use std::path::{Path, PathBuf};

use cupti_sys::candidates::{Candidate, Origin, candidates};
use serde::Serialize;

/// A libcupti.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CuptiFile {
    /// Its file.
    pub path: PathBuf,
    /// CUDA major.
    pub major: u32,
    /// Version, where a wheel or the file name tells.
    pub release: Option<String>,
    /// `COLONEL_CUPTI`, `python`, `linker path` or `toolkit`.
    pub origin: &'static str,
    /// Why it can't be used.
    pub refused: Option<&'static str>,
    /// Whether it would be used.
    pub chosen: bool,
}

impl CuptiFile {
    /// Whether it lies among the packages of the `python3` on the PATH, where only that Python's programs find it.
    pub(super) fn is_of_python(&self) -> bool {
        self.origin == origin_name(Origin::Python)
    }
}

impl From<Candidate> for CuptiFile {
    fn from(candidate: Candidate) -> Self {
        Self {
            path: candidate.path,
            major: candidate.major,
            release: candidate.release,
            origin: origin_name(candidate.origin),
            refused: candidate.refused,
            chosen: candidate.chosen,
        }
    }
}

fn origin_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Preferred => crate::schema::env::CUPTI,
        Origin::Python => "python",
        Origin::LinkerPath => "linker path",
        Origin::Toolkit => "toolkit",
    }
}

/// Finds them, best first. `preferred` is what `COLONEL_CUPTI` names, `driver_major` the driver's CUDA major.
pub(super) fn find(preferred: Option<&Path>, driver_major: Option<u32>) -> Vec<CuptiFile> {
    let found = candidates(preferred, driver_major);
    found.into_iter().map(CuptiFile::from).collect()
}
