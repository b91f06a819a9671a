//! Hardware counters: PM sampling on a device ([`Sampling`]), and the profiler host ([`Host`]), which knows a chip's
//! metrics and needs no GPU.
//!
//! Since CUPTI 12.6. Both work without a subscriber and without a context of the calling thread.

mod host;
pub mod params;
mod sampling;

use crate::constants::{API_VERSION_12_6, SUCCESS, result_name};
use crate::functions::{CuptiResult, Functions};
use crate::loader::Cupti;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::ffi::{CStr, CString, c_char};
use std::path::{Path, PathBuf};

pub use host::Host;
pub use sampling::{Decoded, Held, Sampling, availability, chip};

/// A call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{call}` failed with {} ({code})", result_name(*.code))]
pub struct Failure {
    /// The function.
    pub call: &'static str,
    /// What it returned.
    pub code: CuptiResult,
}

/// Why there are no counters at all.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// Before 12.6.
    #[error("`{}` has no PM sampling (CUPTI API version {version}, expected 24, CUDA 12.6, or newer)", path.display())]
    TooOld {
        /// The libcupti.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// libcupti needs it, and does not look for it itself.
    #[error(
        "failed to load `{}`: {reason}; expected it beside `{}`, as NVIDIA's packages have it",
        helper.display(), cupti.display()
    )]
    NoHelper {
        /// The file.
        helper: PathBuf,
        /// The libcupti.
        cupti: PathBuf,
        /// In the dynamic linker's words.
        reason: String,
    },
}

/// What libcupti asks for by name only, where the dynamic linker searches; once loaded by full path, it is found.
const HELPERS: [&str; 2] = ["libnvperf_host.so", "libnvperf_target.so"];

/// Loads what the counters' part of a libcupti needs from beside it, or from where the dynamic linker searches. Returns
/// the files, for [`load_helpers`] in another process.
pub fn prepare(cupti: &Cupti) -> Result<Vec<PathBuf>, Unavailable> {
    let functions = &cupti.functions;
    if cupti.version < API_VERSION_12_6
        || functions.cuptiPmSamplingEnable.is_none()
        || functions.cuptiProfilerHostInitialize.is_none()
    {
        return Err(Unavailable::TooOld {
            path: cupti.path.clone(),
            version: cupti.version,
        });
    }
    let folder = cupti.path.parent().unwrap_or(&cupti.path);
    let helpers = HELPERS.map(|name| {
        Some(folder.join(name))
            .filter(|path| path.is_file())
            .unwrap_or(name.into())
    });
    load_helpers(&helpers, &cupti.path)?;
    Ok(helpers.to_vec())
}

/// Loads these files of NVIDIA's for the libcupti at `cupti`.
pub fn load_helpers(helpers: &[PathBuf], cupti: &Path) -> Result<(), Unavailable> {
    for helper in helpers {
        // SAFETY: a library of NVIDIA's, which libcupti would load itself; it stays loaded.
        match unsafe { Library::open(Some(helper), RTLD_NOW | RTLD_LOCAL) } {
            Ok(library) => std::mem::forget(library),
            Err(error) => {
                return Err(Unavailable::NoHelper {
                    helper: helper.clone(),
                    cupti: cupti.to_path_buf(),
                    reason: error.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// Names of metrics as CUPTI takes them.
#[derive(Debug, Default)]
pub struct Names {
    texts: Vec<CString>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers are to the texts, which are never changed.
unsafe impl Send for Names {}
// SAFETY: as above.
unsafe impl Sync for Names {}

impl Names {
    /// Of these; one with a zero byte in it is no name of a metric and is left out.
    pub fn new<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Names {
        let texts: Vec<CString> = names
            .into_iter()
            .filter_map(|name| CString::new(name.as_ref()).ok())
            .collect();
        let pointers = texts.iter().map(|text| text.as_ptr()).collect();
        Names { texts, pointers }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// Calls a function with its parameters.
fn call<P>(
    name: &'static str,
    function: Option<unsafe extern "C" fn(*mut P) -> CuptiResult>,
    params: &mut P,
) -> Result<(), Failure> {
    let code = match function {
        // SAFETY: the structure is this function's, says its own size, and lives through the call; what it points to
        // does, too, by the borrows of the callers.
        Some(function) => unsafe { function(params) },
        None => crate::constants::ERROR_NOT_SUPPORTED,
    };
    if code == SUCCESS {
        Ok(())
    } else {
        Err(Failure { call: name, code })
    }
}

/// `call!(functions.cuptiX, &mut params)`.
macro_rules! cupti {
    ($functions:expr, $name:ident, $params:expr) => {
        $crate::counters::call(stringify!($name), $functions.$name, $params)
    };
}
use cupti;

/// Text that CUPTI owns.
fn text(pointer: *const c_char) -> Option<CString> {
    // SAFETY: not null, so a C string of CUPTI's that lives at least until the next call.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_owned())
}

/// The functions, to be kept: a libcupti is never unloaded.
type Table = Functions;
