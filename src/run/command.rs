//! Starts the command, and words why it could not be started.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::sys::signal::SigSet;

use super::RunError;
use super::environment::Environment;

/// Where a program talks.
#[derive(Debug)]
pub(crate) enum Streams {
    /// Where we do.
    Inherited,
    /// Into this file, while the command that it starts finds our stdout and stderr as [`COMMANDS_STDOUT`] and
    /// [`COMMANDS_STDERR`].
    Apart(File),
}

/// The command's stdout in a profiler that talks into a file.
const COMMANDS_STDOUT: libc::c_int = 9;
/// The command's stderr there.
const COMMANDS_STDERR: libc::c_int = 8;

/// What starts the command there, marked, with the streams that it should have: by the descriptors where the profiler passes them
/// on, else by their paths. Through a path a file is appended to, and its other writers don't know of it.
pub(crate) fn with_its_streams() -> [String; 4] {
    const SCRIPT: &str = "export COLONEL_COMMAND=1; if [ /proc/self/fd/9 -ef \"${0}1\" ] && [ /proc/self/fd/8 -ef \"${0}2\" ]; then \
                          exec \"$@\" >&9 2>&8 9>&- 8>&-; \
                          elif (: >>\"${0}1\" 2>>\"${0}2\") 2>/dev/null; then exec \"$@\" >>\"${0}1\" 2>>\"${0}2\"; \
                          else exec \"$@\"; fi";
    let ours = format!("/proc/{}/fd/", std::process::id());
    ["/bin/sh".to_owned(), "-c".to_owned(), SCRIPT.to_owned(), ours]
}

/// What starts the command under a profiler that leaves it its streams: marked.
pub(crate) fn marked() -> [&'static str; 4] {
    ["/bin/sh", "-c", "export COLONEL_COMMAND=1; exec \"$@\"", "sh"]
}

/// Starts the words with the caller's signal mask; stdin is inherited.
pub(crate) fn spawn(
    words: &[OsString],
    cwd: Option<&Path>,
    environment: &Environment,
    mask: SigSet,
    streams: Streams,
) -> Result<Child, RunError> {
    let program = words.first().map(OsString::as_os_str).unwrap_or_default();
    let mut command = Command::new(program);
    command.args(words.iter().skip(1));
    if let Some(cwd) = cwd {
        command.current_dir(cwd);
    }
    environment.apply(&mut command);
    if let Streams::Apart(log) = streams {
        let system = |source| RunError::System {
            action: "pass on stdout and stderr",
            source,
        };
        let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(system)?;
        let stderr = io::stderr().as_fd().try_clone_to_owned().map_err(system)?;
        command.stderr(log.try_clone().map_err(system)?).stdout(log);
        let pass_on = move || {
            for (from, to) in [(&stdout, COMMANDS_STDOUT), (&stderr, COMMANDS_STDERR)] {
                // SAFETY: duplicates a descriptor that this process holds open.
                if unsafe { libc::dup2(from.as_raw_fd(), to) } < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: dup2 is async-signal-safe and touches no memory of the parent.
        unsafe { command.pre_exec(pass_on) };
    }
    // SAFETY: setting the thread's signal mask is async-signal-safe and touches no memory of the parent.
    unsafe { command.pre_exec(move || mask.thread_set_mask().map_err(io::Error::from)) };
    command
        .spawn()
        .map_err(|error| explain(program, error, cwd, path_in(environment).as_deref()))
}

/// Refuses a command that could not be started: a profiler that starts it would say so in its own way.
pub(crate) fn check(words: &[OsString], cwd: Option<&Path>, environment: &Environment) -> Result<(), RunError> {
    let program = words.first().map(OsString::as_os_str).unwrap_or_default();
    let path = path_in(environment);
    let found = locate(program, cwd, path.as_deref());
    let code = match &found {
        None => libc::ENOENT,
        Some(found) if found.is_dir() || !is_executable(found) => libc::EACCES,
        Some(_) => return Ok(()),
    };
    Err(explain(
        program,
        io::Error::from_raw_os_error(code),
        cwd,
        path.as_deref(),
    ))
}

fn path_in(environment: &Environment) -> Option<OsString> {
    let changed = environment.get("PATH").map(OsStr::to_owned);
    changed.or_else(|| env::var_os("PATH"))
}

/// From what exec said and what is on disk to what the user can do about it.
fn explain(program: &OsStr, error: io::Error, cwd: Option<&Path>, path: Option<&OsStr>) -> RunError {
    let found = locate(program, cwd, path);
    let not_executable = |reason: String| RunError::NotExecutable {
        program: program.to_owned(),
        reason,
    };
    match (error.raw_os_error(), found) {
        (Some(libc::ENOENT), None) => RunError::NotFound {
            program: program.to_owned(),
            hint: not_found_hint(program),
        },
        (Some(libc::ENOENT | libc::ENOTDIR), Some(found)) => not_executable(missing_interpreter(&found)),
        (Some(libc::ENOTDIR), None) => RunError::NotFound {
            program: program.to_owned(),
            hint: "a part of its path is not a folder".to_owned(),
        },
        (Some(libc::EACCES), Some(found)) => not_executable(no_access(&found)),
        (Some(libc::EACCES), None) => not_executable("a folder on its path can't be entered".to_owned()),
        (Some(libc::E2BIG), _) => {
            not_executable("its arguments and environment are longer than the system takes".to_owned())
        }
        (Some(libc::ENOEXEC | libc::ETXTBSY | libc::ELOOP | libc::ENAMETOOLONG), _) => {
            not_executable(error.to_string())
        }
        _ if error.kind() == io::ErrorKind::InvalidInput => {
            not_executable("the command or one of its arguments holds a NUL byte".to_owned())
        }
        _ => RunError::System {
            action: "start the command",
            source: error,
        },
    }
}

fn not_found_hint(program: &OsStr) -> String {
    if program.as_bytes().contains(&b'/') {
        "there is no such file".to_owned()
    } else if Path::new(program).is_file() {
        // The most common slip: `colonel run -- a.out`.
        format!(
            "it is not on the PATH; the one in this folder is `./{}`",
            program.display()
        )
    } else {
        "it is not on the PATH".to_owned()
    }
}

/// The file that exec tried: the path itself, or the first of that name on the PATH.
pub(crate) fn locate(program: &OsStr, cwd: Option<&Path>, path: Option<&OsStr>) -> Option<PathBuf> {
    let base = cwd.unwrap_or(Path::new(""));
    if program.as_bytes().contains(&b'/') {
        return Some(base.join(program)).filter(|file| file.exists());
    }
    let files: Vec<PathBuf> = env::split_paths(path?)
        .map(|folder| base.join(folder).join(program))
        .filter(|file| file.is_file())
        .collect();
    files.iter().find(|file| is_executable(file)).or(files.first()).cloned()
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

fn no_access(found: &Path) -> String {
    if found.is_dir() {
        return format!("`{}` is a folder", found.display());
    }
    if is_executable(found) {
        return format!(
            "`{}` is not ours to execute (or lies on a file system mounted noexec)",
            found.display()
        );
    }
    match shebang(found).first() {
        Some(interpreter) => format!(
            "`{0}` is not executable; `chmod +x {0}`, or start it as `{1} {0}`",
            found.display(),
            interpreter.display()
        ),
        None => format!("`{0}` is not executable; `chmod +x {0}`", found.display()),
    }
}

fn missing_interpreter(found: &Path) -> String {
    match shebang(found).first() {
        Some(interpreter) => format!(
            "its interpreter `{}`, named in the first line of `{}`, does not exist",
            interpreter.display(),
            found.display()
        ),
        None => format!(
            "the dynamic linker that `{}` names does not exist here",
            found.display()
        ),
    }
}

/// The words of the first line `#!…`, the interpreter first; none without one.
pub(crate) fn shebang(file: &Path) -> Vec<PathBuf> {
    const LONGEST: u64 = 256;
    let mut line = Vec::new();
    if let Ok(file) = File::open(file) {
        // What was read before an error is as good.
        let _ = BufReader::new(file).take(LONGEST).read_until(b'\n', &mut line);
    }
    let words = line.strip_prefix(b"#!").unwrap_or_default();
    words
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .map(|word| PathBuf::from(OsStr::from_bytes(word)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_first_line_names_the_interpreter() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("script");
        for (text, expected) in [
            ("#!/usr/bin/env python3\n", &["/usr/bin/env", "python3"][..]),
            ("#! /opt/py\n", &["/opt/py"]),
            ("#!\n", &[]),
            ("echo\n", &[]),
        ] {
            fs::write(&file, text).unwrap();
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(shebang(&file), expected, "{text:?}");
        }
    }

    #[test]
    fn a_file_on_the_path_that_can_be_executed_goes_before_one_that_cannot() {
        let temp = tempfile::tempdir().unwrap();
        let (first, second) = (temp.path().join("a"), temp.path().join("b"));
        for folder in [&first, &second] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("tool"), "").unwrap();
        }
        fs::set_permissions(second.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        let path = env::join_paths([&first, &second]).unwrap();
        assert_eq!(locate(OsStr::new("tool"), None, Some(&path)), Some(second.join("tool")));
        assert_eq!(locate(OsStr::new("other"), None, Some(&path)), None);
    }
}
