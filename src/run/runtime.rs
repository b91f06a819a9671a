//! The runtime folder: control sockets, and links that the dynamic linker needs. Short, since a socket's path has 108
//! bytes; the user's alone; removed when the session ends.

use std::env;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::RunError;
use super::guest::is_linkable;

/// Longest folder that leaves a socket name (`PID-STARTTICKS.sock` and more) within 108 bytes.
const LONGEST: usize = 64;

/// The folder of one session; dropping it removes it.
#[derive(Debug)]
pub struct RuntimeFolder {
    path: PathBuf,
    kept: bool,
}

impl RuntimeFolder {
    /// Makes `$XDG_RUNTIME_DIR/colonel/ID`, else `/tmp/colonel-UID/ID`.
    pub fn create(id: &str) -> Result<Self, RunError> {
        let fallback = PathBuf::from(format!("/tmp/colonel-{}", Uid::effective()));
        let parents = env::var_os("XDG_RUNTIME_DIR")
            .map(|folder| Path::new(&folder).join("colonel"))
            .filter(|folder| folder.is_absolute())
            .into_iter()
            .chain([fallback]);
        let mut reasons = Vec::new();
        for parent in parents {
            match create_in(&parent, id) {
                Ok(path) => return Ok(Self { path, kept: false }),
                Err(error) => reasons.push(format!("`{}`: {error}", parent.display())),
            }
        }
        Err(RunError::NoRuntime {
            reasons: reasons.join("; "),
        })
    }

    /// Absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the folder where it is.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// `library` itself, or a link to it here if the dynamic linker can't take its path in a list.
    pub fn linkable(&self, library: &Path, variable: &'static str) -> Result<PathBuf, RunError> {
        if is_linkable(library) {
            return Ok(library.to_owned());
        }
        let unlinkable = || RunError::UnlinkablePath {
            path: library.to_owned(),
            variable,
        };
        let link = self.path.join(library.file_name().ok_or_else(unlinkable)?);
        if !is_linkable(&link) {
            return Err(unlinkable());
        }
        symlink(library, &link).map_err(|_| unlinkable())?;
        Ok(link)
    }
}

impl Drop for RuntimeFolder {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let _ = fs::remove_dir_all(&self.path);
        // Goes only with the last session.
        if let Some(parent) = self.path.parent() {
            let _ = fs::remove_dir(parent);
        }
    }
}

fn create_in(parent: &Path, id: &str) -> io::Result<PathBuf> {
    let path = parent.join(id);
    if path.as_os_str().as_bytes().len() > LONGEST {
        return Err(io::Error::other(format!("longer than {LONGEST} bytes")));
    }
    if !is_linkable(&path) {
        return Err(io::Error::other(
            "has a space, a colon or another character that the dynamic linker splits at",
        ));
    }
    // A session that ends at this moment removes the parent: once more, then.
    make_own(parent)?;
    match make(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_own(parent)?;
            make(&path)?;
        }
        other => other?,
    }
    Ok(path)
}

fn make(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

/// Makes the folder, or takes the one that is there if it is ours and nobody else can write into it: `/tmp` is open
/// to all, and who owns the folder owns the sockets in it.
fn make_own(path: &Path) -> io::Result<()> {
    match make(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Err(io::Error::other("is not a folder"));
    }
    if metadata.uid() != Uid::effective().as_raw() {
        return Err(io::Error::other(format!("belongs to user {}", metadata.uid())));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(io::Error::other("is open to other users; `chmod 700` it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_folder_is_the_users_alone() {
        let temp = tempfile::tempdir().unwrap();
        let parent = temp.path().join("colonel");
        let path = create_in(&parent, "5e27fc0e").unwrap();
        for folder in [&parent, &path] {
            assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_folder_open_to_others_or_a_link_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let open = temp.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(
            create_in(&open, "5e27fc0e")
                .unwrap_err()
                .to_string()
                .contains("open to other users")
        );
        let link = temp.path().join("link");
        symlink(&open, &link).unwrap();
        assert!(
            create_in(&link, "5e27fc0e")
                .unwrap_err()
                .to_string()
                .contains("is not a folder")
        );
    }

    #[test]
    fn a_long_or_unlinkable_folder_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        assert!(create_in(&temp.path().join("x".repeat(60)), "5e27fc0e").is_err());
        assert!(create_in(&temp.path().join("a b"), "5e27fc0e").is_err());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "nothing was made");
    }

    #[test]
    fn dropping_removes_the_folder_and_an_empty_parent() {
        let temp = tempfile::tempdir().unwrap();
        let parent = temp.path().join("colonel");
        let first = RuntimeFolder {
            path: create_in(&parent, "5e27fc0e").unwrap(),
            kept: false,
        };
        let second = RuntimeFolder {
            path: create_in(&parent, "81c0a4f2").unwrap(),
            kept: false,
        };
        fs::write(first.path().join("1-2.sock"), "").unwrap();
        drop(first);
        assert!(second.path().is_dir());
        drop(second);
        assert!(!parent.exists());
    }

    #[test]
    fn a_library_with_a_space_in_its_path_is_linked() {
        let temp = tempfile::tempdir().unwrap();
        let runtime = RuntimeFolder {
            path: create_in(&temp.path().join("colonel"), "5e27fc0e").unwrap(),
            kept: false,
        };
        let plain = Path::new("/opt/colonel/lib.so");
        assert_eq!(runtime.linkable(plain, "LD_PRELOAD").unwrap(), plain);
        let spaced = temp.path().join("my files").join("lib.so");
        let link = runtime.linkable(&spaced, "LD_PRELOAD").unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), spaced);
        assert!(is_linkable(&link));
    }
}
