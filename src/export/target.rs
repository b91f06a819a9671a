//! A file that is not there until it is whole, and that never takes the place of another unless that was asked for.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// Why a file can't be written.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is there.
    #[error("`{0}` is there already; `--force` overwrites it")]
    Exists(PathBuf),
    /// It is no file.
    #[error("`{0}` is a folder; name a file in it")]
    IsFolder(PathBuf),
    /// The system refused.
    #[error("`{path}` can't be written: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A file to be. Written under a temporary name beside it; gone again if it is not published.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    temporary: PathBuf,
    force: bool,
}

impl Target {
    /// Refuses what is there, unless `force`; makes the folder it lies in.
    pub fn new(path: &Path, force: bool) -> Result<Self, TargetError> {
        let io = |source| TargetError::Io {
            path: path.to_owned(),
            source,
        };
        let name = path.file_name().ok_or_else(|| TargetError::IsFolder(path.to_owned()))?;
        if path.is_dir() {
            return Err(TargetError::IsFolder(path.to_owned()));
        }
        if !force && path.symlink_metadata().is_ok() {
            return Err(TargetError::Exists(path.to_owned()));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            fs::create_dir_all(folder).map_err(io)?;
        }
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.tmp", std::process::id()));
        Ok(Self {
            path: path.to_owned(),
            temporary: path.with_file_name(temporary),
            force,
        })
    }

    /// Where to write.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// The file as it will be called.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the finished file its name.
    pub fn publish(self) -> Result<PathBuf, TargetError> {
        let renamed = if self.force {
            fs::rename(&self.temporary, &self.path)
        } else {
            self.rename_without_overwriting()
        };
        match renamed {
            Ok(()) => Ok(self.path.clone()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(TargetError::Exists(self.path.clone())),
            Err(source) => Err(TargetError::Io {
                path: self.path.clone(),
                source,
            }),
        }
    }

    fn rename_without_overwriting(&self) -> io::Result<()> {
        let (from, to) = (&self.temporary, &self.path);
        match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
            // Network file systems can't; a second name for the file does not overwrite either.
            Err(Errno::EINVAL | Errno::ENOSYS) => fs::hard_link(from, to),
            renamed => Ok(renamed?),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_overwritten_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/trace.json");
        let target = Target::new(&path, false).unwrap();
        fs::write(target.temporary(), "mine").unwrap();
        // Another was faster.
        fs::write(&path, "theirs").unwrap();
        assert!(matches!(target.publish(), Err(TargetError::Exists(there)) if there == path));
        assert!(matches!(Target::new(&path, false), Err(TargetError::Exists(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");

        let target = Target::new(&path, true).unwrap();
        fs::write(target.temporary(), "mine").unwrap();
        target.publish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_published_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::new(&folder.path().join("x"), false).unwrap();
        fs::write(target.temporary(), "half").unwrap();
        drop(target);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(matches!(
            Target::new(folder.path(), true),
            Err(TargetError::IsFolder(_))
        ));
    }
}
