//! How a command says that it failed, and with which exit code: in one place.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use super::exit_code;
use crate::run::RunError;
use crate::session::SessionError;

/// Prints what clap has to say: help and version are no failure.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit_code::USAGE))
}

/// Prints an error on stderr. A reader that closed our stdout (`colonel list | head -1`) had enough: no failure.
pub(super) fn report(error: &anyhow::Error) -> ExitCode {
    let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(broken_pipe) {
        return ExitCode::SUCCESS;
    }
    let _ = io::stderr().write_all(format!("colonel: {}\n", words(error)).as_bytes());
    let code = error
        .downcast_ref::<RunError>()
        .map_or(exit_code::NO, RunError::exit_code);
    ExitCode::from(code)
}

/// The error and its causes, each said once.
fn words(error: &anyhow::Error) -> String {
    // Their texts are fragments that go on after these words; all others are sentences.
    let is_fragment = error.downcast_ref::<RunError>().is_some()
        || matches!(error.downcast_ref::<SessionError>(), Some(SessionError::Io { .. }));
    let mut text = if is_fragment {
        "failed to ".to_owned()
    } else {
        String::new()
    };
    let _ = write!(text, "{error}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            let _ = write!(text, "\n  cause: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn each_cause_is_said_once() {
        let io = || io::Error::from_raw_os_error(libc::EACCES);
        let source = SessionError::Io {
            action: "create",
            path: PathBuf::from("/x"),
            source: io(),
        };
        let error = anyhow::Error::new(RunError::NoSession {
            dir: PathBuf::from("/x"),
            source,
        });
        let text = words(&error);
        assert!(text.starts_with("failed to make a session in `/x`"), "{text}");
        assert_eq!(text.matches("Permission denied").count(), 1, "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn a_closed_stdout_is_no_failure() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("print the list");
        assert_eq!(format!("{:?}", report(&error)), format!("{:?}", ExitCode::SUCCESS));
    }
}
