//! Every libcupti on this machine, and the one that a program would get if it brings none of its own.

use std::path::{Path, PathBuf};

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

/// Majors whose records are known, newest first.
const MAJORS: [u32; 2] = [13, 12];

/// Finds them, best first. `preferred` is what `COLONEL_CUPTI` names, `driver_major` the driver's CUDA major.
pub(super) fn find(preferred: Option<&Path>, driver_major: Option<u32>) -> Vec<CuptiFile> {
    let search = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let toolkit = PathBuf::from("/usr/local/cuda/extras/CUPTI/lib64");
    let folders = std::env::split_paths(&search)
        .map(|folder| ("linker path", folder))
        .chain([("toolkit", toolkit)]);
    let files =
        folders.flat_map(|(origin, folder)| MAJORS.map(|major| (origin, folder.join(format!("libcupti.so.{major}")))));
    let preferred = preferred.map(|path| (crate::schema::env::CUPTI, path.to_owned()));
    let files = preferred.into_iter().chain(files).filter(|(_, file)| file.is_file());
    let mut found: Vec<CuptiFile> = files
        .filter_map(|(origin, path)| examine(origin, path, driver_major))
        .collect();
    if let Some(first) = found.iter_mut().find(|file| file.refused.is_none()) {
        first.chosen = true;
    }
    found
}

fn examine(origin: &'static str, path: PathBuf, driver_major: Option<u32>) -> Option<CuptiFile> {
    let major: u32 = path
        .file_name()?
        .to_str()?
        .strip_prefix("libcupti.so.")?
        .split('.')
        .next()?
        .parse()
        .ok()?;
    let refused = driver_major
        .filter(|driver| *driver < major)
        .map(|_| "newer than the driver");
    Some(CuptiFile {
        path,
        major,
        release: None,
        origin,
        refused,
        chosen: false,
    })
}
