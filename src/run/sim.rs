//! `--sim`: gpu-sim's stand-in libraries in front of the real ones, under the names that programs ask for.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::RunError;
use super::environment::{Environment, Inherited, LD_LIBRARY_PATH};
use super::guest::{is_linkable, places};
use super::runtime::RuntimeFolder;
use crate::schema::env::CUPTI;

/// Name that a program asks for, and gpu-sim's library that answers.
const STAND_INS: [(&str, &str); 5] = [
    ("libcuda.so.1", "libsim_cuda.so"),
    ("libcudart.so.13", "libsim_cudart.so"),
    (CUPTI_NAME, "libsim_cupti.so"),
    // What the real libcupti needs for counters; here it is in the stand-in itself.
    ("libnvperf_host.so", "libsim_cupti.so"),
    ("libnvperf_target.so", "libsim_cupti.so"),
];
const CUPTI_NAME: &str = "libcupti.so.13";

/// Puts the stand-ins in front, for programs that ask for a library by its name, and for the guest, which would else
/// prefer a libcupti that lies beside the CUDA libraries.
pub fn stand_in(
    runtime: &RuntimeFolder,
    program_folder: &Path,
    inherited: Inherited<'_>,
    environment: &mut Environment,
) -> Result<(), RunError> {
    let folder = prepare(runtime, program_folder)?;
    environment.prepend(LD_LIBRARY_PATH, &folder, inherited);
    if inherited(CUPTI).is_none_or(|named| named.is_empty()) {
        environment.set(CUPTI, folder.join(CUPTI_NAME));
    }
    Ok(())
}

/// Makes the folder for `LD_LIBRARY_PATH`.
fn prepare(runtime: &RuntimeFolder, program_folder: &Path) -> Result<PathBuf, RunError> {
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

/// The newest copy: `cargo test` renews only the one in `deps`, and leaves an old one beside the program.
fn find(program_folder: &Path, name: &'static str) -> Result<PathBuf, RunError> {
    let looked = places(program_folder, name);
    let files = looked.iter().filter(|place| place.is_file());
    // Reversed, since the last of equals is taken: a hard link in `deps` is as old as its twin beside the program.
    let newest = files
        .rev()
        .max_by_key(|file| fs::metadata(file).and_then(|data| data.modified()).ok());
    newest.cloned().ok_or(RunError::NoSimulator { name, looked })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_missing_library_says_how_to_build_it() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("libsim_cuda.so"), "").unwrap();
        let message = find_all(temp.path()).unwrap_err().to_string();
        assert!(message.contains("libsim_cudart.so"), "{message}");
        assert!(message.contains("cargo build --release --workspace"), "{message}");
    }

    #[test]
    fn the_newest_copy_is_taken() {
        let temp = tempfile::tempdir().unwrap();
        let (beside, deps) = (
            temp.path().join("libsim_cuda.so"),
            temp.path().join("deps/libsim_cuda.so"),
        );
        fs::create_dir(temp.path().join("deps")).unwrap();
        let taken = || find(temp.path(), "libsim_cuda.so").unwrap();
        fs::write(&beside, "").unwrap();
        fs::hard_link(&beside, &deps).unwrap();
        assert_eq!(taken(), beside, "of equals the one beside the program");

        fs::remove_file(&deps).unwrap();
        let newer = fs::File::create(&deps).unwrap();
        newer.set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
        assert_eq!(taken(), deps);
    }

    #[test]
    fn the_guest_is_told_which_libcupti_stands_in_unless_the_user_named_one() {
        let temp = tempfile::tempdir().unwrap();
        for (_, library) in STAND_INS {
            fs::write(temp.path().join(library), "").unwrap();
        }
        let set = |id: &str, named: Option<&str>| {
            let runtime = RuntimeFolder::create(id).unwrap();
            let mut environment = Environment::default();
            let inherited = |name: &str| named.filter(|_| name == CUPTI).map(Into::into);
            stand_in(&runtime, temp.path(), &inherited, &mut environment).unwrap();
            let cupti = environment.get(CUPTI).map(PathBuf::from);
            cupti.map(|path| path.canonicalize().unwrap())
        };
        let id = |number: u32| format!("sim-{}-{number}", std::process::id());
        let ours = temp.path().join("libsim_cupti.so").canonicalize().unwrap();
        assert_eq!(set(&id(1), None), Some(ours.clone()));
        assert_eq!(set(&id(2), Some("")), Some(ours));
        assert_eq!(set(&id(3), Some("/mine.so")), None);
    }
}
