//! Descriptors of ours keep clear of 0, 1 and 2: a host that closed its standard streams may go on writing to those
//! numbers, and would write into our files.
//!
//! Numbers that are free when we start are held by descriptors that can neither be read nor written, so that the host
//! gets the same error as before. One that the host closes later may be ours for the moment until it is moved.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Takes the standard numbers that the host has closed.
pub(crate) fn hold_closed_standard() {
    for number in 0..=libc::STDERR_FILENO {
        // SAFETY: asks about a number, whatever it is.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } != -1 {
            continue;
        }
        // SAFETY: a literal path; the descriptor is kept for the process's life, or closed at once.
        unsafe {
            let held = libc::open(c"/".as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
            if held > libc::STDERR_FILENO {
                libc::close(held);
            }
        }
    }
}

/// Moves a descriptor above the standard ones if it is not there already.
pub(crate) fn above_standard<T: From<OwnedFd> + Into<OwnedFd>>(descriptor: T) -> io::Result<T> {
    let descriptor = descriptor.into();
    if descriptor.as_raw_fd() > libc::STDERR_FILENO {
        return Ok(descriptor.into());
    }
    // The standard library's copy is 3 at least, and closed on exec.
    descriptor.try_clone().map(Into::into)
}

/// Creates or empties a file.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    above_standard(File::create(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_high_descriptor_stays_what_it_is() {
        let file = tempfile::tempfile().expect("a temporary file");
        let number = file.as_raw_fd();
        assert!(number > libc::STDERR_FILENO);
        assert_eq!(above_standard(file).expect("moved").as_raw_fd(), number);
    }
}
