//! Finds the libcupti that belongs to this process, and no other: two copies are two CUPTIs in one driver, of which
//! the second fails. So a copy that is mapped already comes first, then the one that the CUDA libraries in the process
//! would load themselves.
//!
//! A library once opened stays: what CUPTI started in the driver can't be taken back.

use crate::constants::{API_VERSION_12_4, API_VERSION_14_0, SUCCESS, result_name};
use crate::functions::Functions;
use crate::mapped;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::path::{Path, PathBuf};

pub use crate::candidates::{Candidate, Origin, candidates};

/// Majors of libcupti whose records are known, newest first.
pub(crate) const MAJORS: [u32; 2] = [13, 12];

/// A libcupti in this process.
#[derive(Debug, Clone)]
pub struct Cupti {
    /// Its functions.
    pub functions: Functions,
    /// The file that it was loaded from.
    pub path: PathBuf,
    /// How it was found.
    pub found: Found,
    /// Its API version, as `cuptiGetVersion` gives it.
    pub version: u32,
}

/// How a libcupti was found, in the order in which the ways are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It was in the process before us.
    Mapped,
    /// At the path that the user gave.
    Preferred,
    /// In a folder that goes with the CUDA runtime or the framework in the process.
    BesideCuda,
    /// By its name, where the dynamic linker searches.
    LinkerPath,
    /// In a CUDA toolkit: `$CUDA_HOME`, `$CUDA_PATH` or /usr/local/cuda.
    Toolkit,
}

/// Why there is no CUPTI.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// CUPTI works only beside the driver; without it, 13.2 even crashes.
    #[error("no CUDA driver in this process: expected `libcuda.so.1` to be loaded before CUPTI; attach after cuInit")]
    NoDriver,
    /// The driver serves none of the majors that we know.
    #[error("the driver serves CUDA {driver}, expected 12 or newer: upgrade the driver")]
    DriverTooOld {
        /// Its CUDA major.
        driver: u32,
    },
    /// No file of a fitting name in any place.
    #[error(
        "no libcupti found: looked for {} in {}; `pip install {}` into the program's environment or name the file in `COLONEL_CUPTI`",
        sonames(.majors), folders(.searched), package(.majors)
    )]
    NotFound {
        /// Majors that fit the driver, best first.
        majors: Vec<u32>,
        /// Folders looked into.
        searched: Vec<PathBuf>,
    },
    /// The dynamic linker would not take it.
    #[error("failed to load `{}`: {reason}; expected a libcupti of CUDA 12.4 to 13.x for this machine", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// In the dynamic linker's words.
        reason: String,
    },
    /// It is something else.
    #[error("`{}` is not a libcupti: it has no function `cuptiGetVersion`; name another file in `COLONEL_CUPTI`", path.display())]
    NotCupti {
        /// The file.
        path: PathBuf,
    },
    /// It would not even say its version.
    #[error(
        "`{}` does not work here: cuptiGetVersion failed with {} ({code}); use a libcupti whose major fits the driver",
        path.display(), result_name(*code)
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// What `cuptiGetVersion` returned.
        code: u32,
    },
    /// From before CUDA 12.4.
    #[error(
        "`{}` is too old: CUPTI API version {version}, expected 22 (CUDA 12.4) or newer; upgrade `nvidia-cuda-cupti-cu12`",
        path.display()
    )]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its API version.
        version: u32,
    },
    /// Of a major whose records may look different.
    #[error(
        "`{}` is too new: CUPTI API version {version}, expected one of CUDA 12.4 to 13.x; use a libcupti of CUDA 13 or a newer colonel",
        path.display()
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its API version.
        version: u32,
    },
}

fn sonames(majors: &[u32]) -> String {
    let names: Vec<_> = majors.iter().map(|major| format!("`libcupti.so.{major}`")).collect();
    names.join(" and ")
}

fn folders(searched: &[PathBuf]) -> String {
    if searched.is_empty() {
        return "the dynamic linker's path".into();
    }
    let names: Vec<_> = searched
        .iter()
        .map(|folder| format!("`{}`", folder.display()))
        .collect();
    format!("{} and the dynamic linker's path", names.join(", "))
}

fn package(majors: &[u32]) -> &'static str {
    if majors.first() == Some(&12) {
        "nvidia-cuda-cupti-cu12"
    } else {
        "nvidia-cuda-cupti"
    }
}

/// Finds this process's libcupti, loading it if it isn't there: one already mapped, else `preferred`, else the one of
/// the CUDA libraries in the process, else by name, else from a toolkit.
///
/// A mapped or preferred one that can't be used is an error; another copy would not work beside it, or isn't wanted.
pub fn load(preferred: Option<&Path>) -> Result<Cupti, LoadError> {
    let driver = mapped::open("libcuda.so.1").ok_or(LoadError::NoDriver)?;
    let libraries = mapped::paths();
    let driver = mapped::driver_major(&driver);
    let majors = fitting_majors(mapped::cuda_runtime_major(&libraries), driver);

    if let Some(result) = already_mapped(&majors, &libraries) {
        return result;
    }
    if let Some(path) = preferred {
        return open(path, Found::Preferred);
    }
    match driver {
        Some(driver) if majors.is_empty() => Err(LoadError::DriverTooOld { driver }),
        _ => search(majors, &libraries),
    }
}

/// Opens the libcupti of this path, for the calls that need no GPU (the profiler host). With a driver on the machine it
/// is loaded first, since 13.2 crashes without; an older library does not need it.
pub fn open_without_gpu(path: &Path) -> Result<Cupti, LoadError> {
    // SAFETY: initializers of the driver's library are what every CUDA program runs; it stays loaded.
    if let Ok(driver) = unsafe { Library::open(Some("libcuda.so.1"), RTLD_NOW | RTLD_LOCAL) } {
        std::mem::forget(driver);
    }
    open(path, Found::Preferred)
}

/// Majors to look for, best first: the runtime's, since the two are one toolkit, then what the driver can serve.
pub(crate) fn fitting_majors(runtime: Option<u32>, driver: Option<u32>) -> Vec<u32> {
    let served = MAJORS
        .into_iter()
        .filter(|major| driver.is_none_or(|driver| *major <= driver));
    let mut majors: Vec<u32> = served.collect();
    majors.sort_by_key(|major| Some(*major) != runtime);
    majors
}

fn already_mapped(majors: &[u32], libraries: &[PathBuf]) -> Option<Result<Cupti, LoadError>> {
    // Any major may be mapped, also one that doesn't fit: then it is the one to work with or to complain about.
    let mut names: Vec<PathBuf> = majors
        .iter()
        .chain(&MAJORS)
        .map(|major| soname(*major).into())
        .collect();
    names.extend(
        libraries
            .iter()
            .filter(|path| mapped::file_name_starts(path, "libcupti.so"))
            .cloned(),
    );
    let mut refused = None;
    for name in names {
        let Some(library) = mapped::open(&name) else { continue };
        match accept(library, &name, Found::Mapped) {
            Ok(cupti) => return Some(Ok(cupti)),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    refused.map(Err)
}

fn search(majors: Vec<u32>, libraries: &[PathBuf]) -> Result<Cupti, LoadError> {
    let beside = mapped::folders_beside_cuda(libraries);
    let toolkits = toolkit_folders();
    let mut refused = None;
    for &major in &majors {
        let soname = soname(major);
        let files = |folders: &[PathBuf], found| -> Vec<(PathBuf, Found)> {
            let paths = folders
                .iter()
                .map(|folder| folder.join(&soname))
                .filter(|path| path.is_file());
            paths.map(|path| (path, found)).collect()
        };
        let mut tries = files(&beside, Found::BesideCuda);
        tries.push((PathBuf::from(&soname), Found::LinkerPath));
        tries.extend(files(&toolkits, Found::Toolkit));
        for (path, found) in tries {
            match open(&path, found) {
                Ok(cupti) => return Ok(cupti),
                // Most machines have none there.
                Err(LoadError::Open { .. }) if found == Found::LinkerPath => {}
                Err(error) => refused = refused.or(Some(error)),
            }
        }
    }
    let searched = || beside.into_iter().chain(toolkits).collect();
    Err(refused.unwrap_or_else(|| LoadError::NotFound {
        majors,
        searched: searched(),
    }))
}

/// The name under which a libcupti of this major is found.
pub(crate) fn soname(major: u32) -> String {
    format!("libcupti.so.{major}")
}

/// Folders of toolkits that hold a libcupti where there is one.
pub(crate) fn toolkit_folders() -> Vec<PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .filter_map(std::env::var_os)
        .filter(|value| !value.is_empty());
    let mut roots: Vec<PathBuf> = named.map(PathBuf::from).collect();
    roots.push("/usr/local/cuda".into());
    roots.dedup();
    let folders = roots
        .iter()
        .flat_map(|root| ["extras/CUPTI/lib64", "lib64"].map(|sub| root.join(sub)));
    folders.filter(|folder| folder.is_dir()).collect()
}

fn open(path: &Path, found: Found) -> Result<Cupti, LoadError> {
    // SAFETY: a libcupti's initializers do nothing before the first call; a file the user names is theirs to answer for.
    match unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) } {
        Ok(library) => accept(library, path, found),
        Err(error) => {
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Err(LoadError::Open {
                path: path.to_path_buf(),
                reason,
            })
        }
    }
}

/// Checks that the library is a CUPTI whose records we know. It stays mapped either way.
fn accept(library: Library, name: &Path, found: Found) -> Result<Cupti, LoadError> {
    // SAFETY: the name says that it is a libcupti, and it is never unloaded (below).
    let functions = unsafe { Functions::lookup(&library) };
    std::mem::forget(library);
    let Some(get_version) = functions.cuptiGetVersion else {
        return Err(LoadError::NotCupti {
            path: name.to_path_buf(),
        });
    };
    let path = mapped::file_of(get_version as *const ()).unwrap_or_else(|| name.to_path_buf());
    let mut version = 0;
    // SAFETY: the driver is mapped (`load` checked), so this function is safe to call in every version.
    let code = unsafe { get_version(&raw mut version) };
    match version {
        _ if code != SUCCESS => Err(LoadError::Broken { path, code }),
        ..API_VERSION_12_4 => Err(LoadError::TooOld { path, version }),
        API_VERSION_14_0.. => Err(LoadError::TooNew { path, version }),
        _ => Ok(Cupti {
            functions,
            path,
            found,
            version,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_major_comes_first_and_the_driver_limits_them() {
        assert_eq!(fitting_majors(None, None), [13, 12]);
        assert_eq!(fitting_majors(Some(12), Some(13)), [12, 13]);
        assert_eq!(fitting_majors(Some(13), Some(13)), [13, 12]);
        assert_eq!(
            fitting_majors(None, Some(12)),
            [12],
            "a driver of CUDA 12 can't serve CUPTI 13"
        );
        assert_eq!(
            fitting_majors(None, Some(14)),
            [13, 12],
            "older CUPTI works on a newer driver"
        );
        assert!(fitting_majors(None, Some(11)).is_empty());
    }

    #[test]
    fn without_a_driver_nothing_is_loaded() {
        let error = load(Some(Path::new("/nonexistent/libcupti.so.13"))).unwrap_err();
        assert!(matches!(error, LoadError::NoDriver), "{error}");
    }

    #[test]
    fn errors_say_what_was_found_what_was_expected_and_what_to_do() {
        let old = LoadError::TooOld {
            path: "/x/libcupti.so.12".into(),
            version: 21,
        }
        .to_string();
        assert!(
            old.contains("`/x/libcupti.so.12`") && old.contains("21") && old.contains("12.4"),
            "{old}"
        );
        let none = LoadError::NotFound {
            majors: vec![12],
            searched: vec!["/x/lib".into()],
        }
        .to_string();
        assert!(none.contains("`libcupti.so.12`") && none.contains("`/x/lib`"), "{none}");
        assert!(none.contains("pip install nvidia-cuda-cupti-cu12"), "{none}");
        let broken = LoadError::Broken {
            path: "/x".into(),
            code: 999,
        }
        .to_string();
        assert!(broken.contains("CUPTI_ERROR_UNKNOWN (999)"), "{broken}");
    }
}
