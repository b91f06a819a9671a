//! Finds the libraries that go into the command: the guest, and gpu-sim's stand-ins.

use std::env;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::RunError;
use crate::schema::env as variables;

/// File name of the guest.
pub const GUEST_FILE: &str = "libcolonel_guest.so";

/// The guest: `COLONEL_GUEST` if set, else beside this program or in its `../lib/colonel`.
pub fn find_guest() -> Result<PathBuf, RunError> {
    if let Some(path) = env::var_os(variables::GUEST).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return match std::path::absolute(&path) {
            Ok(absolute) if absolute.is_file() => Ok(absolute),
            _ => Err(RunError::NoGuest {
                looked: vec![path],
                hint: "`COLONEL_GUEST` names it and nothing else is tried: correct or unset it",
            }),
        };
    }
    let looked = places(&program_folder()?, GUEST_FILE);
    first_file(&looked).ok_or(RunError::NoGuest {
        looked,
        hint: "build it with `cargo build --release --workspace`, or name it in `COLONEL_GUEST`",
    })
}

/// Where a library of ours may be: beside the program, installed, or as cargo leaves it for tests.
pub(crate) fn places(program_folder: &Path, file: &str) -> Vec<PathBuf> {
    let mut places = vec![program_folder.join(file)];
    if let Some(prefix) = program_folder.parent() {
        places.push(prefix.join("lib/colonel").join(file));
    }
    places.push(program_folder.join("deps").join(file));
    places
}

pub(crate) fn first_file(places: &[PathBuf]) -> Option<PathBuf> {
    places.iter().find(|place| place.is_file()).cloned()
}

/// The folder that this program is in, links resolved.
pub(crate) fn program_folder() -> Result<PathBuf, RunError> {
    let system = |source| RunError::System {
        action: "find colonel's own folder",
        source,
    };
    let program = env::current_exe().map_err(system)?;
    // A program replaced by a rebuild while it runs has no file any more: its name still tells the folder.
    let program = program.canonicalize().unwrap_or(program);
    program
        .parent()
        .map(Path::to_owned)
        .ok_or_else(|| system(std::io::ErrorKind::NotFound.into()))
}

/// Whether the dynamic linker takes the path in a list such as `LD_PRELOAD`: it splits at spaces and colons, in
/// `LD_LIBRARY_PATH` also at semicolons, and expands `$`.
pub(crate) fn is_linkable(path: &Path) -> bool {
    !path
        .as_os_str()
        .as_bytes()
        .iter()
        .any(|byte| b" \t\n:;$".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_beside_the_program_comes_first() {
        let prefix = tempfile::tempdir().unwrap();
        let bin = prefix.path().join("bin");
        let installed = prefix.path().join("lib/colonel");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(&installed).unwrap();
        assert_eq!(first_file(&places(&bin, GUEST_FILE)), None);
        std::fs::write(installed.join(GUEST_FILE), "").unwrap();
        assert_eq!(first_file(&places(&bin, GUEST_FILE)), Some(installed.join(GUEST_FILE)));
        std::fs::write(bin.join(GUEST_FILE), "").unwrap();
        assert_eq!(first_file(&places(&bin, GUEST_FILE)), Some(bin.join(GUEST_FILE)));
    }

    #[test]
    fn paths_that_the_linker_would_split_are_known() {
        assert!(is_linkable(Path::new("/opt/colonel/lib.so")));
        for path in ["/my files/lib.so", "/a:b/lib.so", "/a;b/lib.so", "/$ORIGIN/lib.so"] {
            assert!(!is_linkable(Path::new(path)), "{path}");
        }
    }
}
