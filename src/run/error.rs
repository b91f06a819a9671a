//! Why a command could not be started, each with the exit code of `colonel run`.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::session::SessionError;

/// Exit codes of `colonel run` beside the command's own and 128+N.
pub mod exit_code {
    /// colonel failed before the command started.
    pub const FAILED_BEFORE_START: u8 = 125;
    /// The command was found and can't be executed.
    pub const NOT_EXECUTABLE: u8 = 126;
    /// The command was not found.
    pub const NOT_FOUND: u8 = 127;
    /// Added to the number of the signal that killed the command.
    pub const KILLED_BY_SIGNAL: u8 = 128;
}

/// Why the command was not started. The texts go on after "failed to ".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// No session folder, no start.
    #[error(
        "make a session in `{dir}`, so the command was not started; free space or make the folder writable, or name \
         another with `--sessions-dir DIR`"
    )]
    NoSession {
        /// Folder of the sessions.
        dir: PathBuf,
        /// What went wrong.
        source: SessionError,
    },
    /// The guest library is nowhere.
    #[error("find the guest library; looked at {}; {hint}", list(looked))]
    NoGuest {
        /// Every place that was looked at.
        looked: Vec<PathBuf>,
        /// What to do.
        hint: &'static str,
    },
    /// A stand-in library of gpu-sim is nowhere.
    #[error(
        "find gpu-sim's library `{name}`; looked at {}; build it with `cargo build --release --workspace`",
        list(looked)
    )]
    NoSimulator {
        /// File name.
        name: &'static str,
        /// Every place that was looked at.
        looked: Vec<PathBuf>,
    },
    /// Another tool injects already.
    #[error(
        "inject into the command: `CUDA_INJECTION64_PATH` is already set to `{}`{}, and the CUDA driver loads one \
         library only; unset it, or take its place with `--replace-injection`",
        .path.display(), if *.ours { " by an outer `colonel run`" } else { "" }
    )]
    InjectionTaken {
        /// Its value.
        path: PathBuf,
        /// An outer `colonel run` set it.
        ours: bool,
    },
    /// nsys or ncu is not here.
    #[error(
        "find {name}: {}",
        .asked.as_ref().map_or_else(
            || format!(
                "it is neither on the PATH nor in /opt/nvidia or /usr/local/cuda; install it, or name it with \
                 `--{name}-path FILE`; colonel's own evaluator, `--evaluator cupti`, needs neither"
            ),
            |path| format!("`{}`, which `{name}_path` names, is no program", path.display()),
        )
    )]
    NoProfiler {
        /// Which.
        name: &'static str,
        /// The path that was given.
        asked: Option<PathBuf>,
    },
    /// nsys or ncu is too old.
    #[error(
        "work with {name} {release} (`{}`): colonel knows {oldest} and newer; install a newer one, or name one with \
         `--{name}-path FILE`",
        .path.display()
    )]
    ProfilerTooOld {
        /// Which.
        name: &'static str,
        /// Where.
        path: PathBuf,
        /// Its release.
        release: String,
        /// The first that is known.
        oldest: &'static str,
    },
    /// An option that only our guest knows.
    #[error("give {option} to {evaluator}: {why}")]
    NotOfEvaluator {
        /// The option, as it was given.
        option: String,
        /// The evaluator.
        evaluator: &'static str,
        /// Why not, and what to do.
        why: &'static str,
    },
    /// A setting of nsys or ncu.
    #[error("read the settings: {0}")]
    Config(#[from] super::config::ConfigError),
    /// No folder for the control sockets.
    #[error("make a runtime folder for the control sockets: {reasons}; set `XDG_RUNTIME_DIR` to a short path of yours")]
    NoRuntime {
        /// What was wrong with each candidate.
        reasons: String,
    },
    /// A path that no environment variable can carry.
    #[error("put `{path}` into `{variable}`: the dynamic linker takes no such path; move it elsewhere")]
    UnlinkablePath {
        /// Path.
        path: PathBuf,
        /// Variable.
        variable: &'static str,
    },
    /// `--cwd` can't be entered.
    #[error("enter the folder `{path}` given with `--cwd`")]
    NoCwd {
        /// Folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file of `--json` can't be written.
    #[error("write the summary to `{path}` given with `--json`")]
    NoJson {
        /// File.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The command does not exist.
    #[error("start `{}`: {hint}", .program.display())]
    NotFound {
        /// The command's first word.
        program: OsString,
        /// Where it was looked for, and what to do.
        hint: String,
    },
    /// The command exists and can't be executed.
    #[error("start `{}`: {reason}", .program.display())]
    NotExecutable {
        /// The command's first word.
        program: OsString,
        /// Why, and what to do.
        reason: String,
    },
    /// A signal came first.
    #[error("start the command: {signal} came first")]
    Interrupted {
        /// Its name.
        signal: nix::sys::signal::Signal,
    },
    /// The system refused.
    #[error("{action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What it said.
        source: std::io::Error,
    },
}

impl RunError {
    /// What `colonel run` exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => exit_code::NOT_FOUND,
            Self::NotExecutable { .. } => exit_code::NOT_EXECUTABLE,
            Self::Interrupted { signal } => killed_by(*signal as i32),
            _ => exit_code::FAILED_BEFORE_START,
        }
    }
}

/// 128+N.
pub(crate) fn killed_by(signal: i32) -> u8 {
    exit_code::KILLED_BY_SIGNAL.wrapping_add(u8::try_from(signal).unwrap_or_default())
}

fn list(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| format!("`{}`", path.display()))
        .collect::<Vec<_>>()
        .join(", ")
}
