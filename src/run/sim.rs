//! `--sim`: gpu-sim's stand-in libraries in front of the real ones, under the names that programs ask for.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::RunError;
use super::guest::{first_file, is_linkable, places};
use super::runtime::RuntimeFolder;

/// Name that a program asks for, and gpu-sim's library that answers.
const STAND_INS: [(&str, &str); 3] = [
    ("libcuda.so.1", "libsim_cuda.so"),
    ("libcudart.so.13", "libsim_cudart.so"),
    ("libcupti.so.13", "libsim_cupti.so"),
];

/// Makes the folder for `LD_LIBRARY_PATH`.
pub fn prepare(runtime: &RuntimeFolder, program_folder: &Path) -> Result<PathBuf, RunError> {
    let folder = runtime.path().join("sim");
    let system = |source| RunError::System {
        action: "make the folder of gpu-sim's libraries",
        source,
    };
    fs::create_dir(&folder).map_err(system)?;
    for (name, library) in STAND_INS {
        symlink(find(program_folder, library)?, folder.join(name)).map_err(system)?;
    }
    debug_assert!(is_linkable(&folder), "the runtime folder is");
    Ok(folder)
}

/// Every stand-in, or what is missing: for `doctor`.
pub fn find_all(program_folder: &Path) -> Result<Vec<PathBuf>, RunError> {
    STAND_INS
        .iter()
        .map(|(_, library)| find(program_folder, library))
        .collect()
}

fn find(program_folder: &Path, name: &'static str) -> Result<PathBuf, RunError> {
    let looked = places(program_folder, name);
    first_file(&looked).ok_or(RunError::NoSimulator { name, looked })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_says_how_to_build_it() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("libsim_cuda.so"), "").unwrap();
        let message = find_all(temp.path()).unwrap_err().to_string();
        assert!(message.contains("libsim_cudart.so"), "{message}");
        assert!(message.contains("cargo build --release --workspace"), "{message}");
    }
}
