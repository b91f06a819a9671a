//! What the tests share: a folder, a library that can be preloaded, and the real `colonel`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use colonel::schema::manifest::Session as Manifest;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// A test's own folder, with colonel called in it.
pub struct Workplace {
    folder: tempfile::TempDir,
}

/// The tests may run under `nohup` or in a background job, which ignore signals: what they start must not.
fn with_default_signals(command: &mut Command) {
    // SAFETY: `signal` is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            for signal in [
                Signal::SIGHUP,
                Signal::SIGINT,
                Signal::SIGQUIT,
                Signal::SIGTERM,
                Signal::SIGUSR1,
                Signal::SIGUSR2,
            ] {
                nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl)?;
            }
            Ok(())
        });
    }
}

impl Workplace {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `colonel` in this folder, with a guest that does nothing.
    pub fn colonel(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_colonel"));
        command
            .current_dir(self.path())
            .env("COLONEL_GUEST", empty_guest())
            .env("XDG_RUNTIME_DIR", self.path())
            .env_remove("CUDA_INJECTION64_PATH")
            .env_remove("LD_PRELOAD")
            .env_remove("COLONEL_SESSION")
            .env_remove("COLONEL_SESSIONS_DIR");
        with_default_signals(&mut command);
        command
    }

    /// `colonel run [OPTIONS] -- CMD`, run to its end.
    pub fn run<S: AsRef<OsStr>>(&self, options: &[&str], command: &[S]) -> Output {
        self.colonel()
            .arg("run")
            .args(options)
            .arg("--")
            .args(command)
            .output()
            .unwrap()
    }

    /// `colonel run -- sh -c SCRIPT`, run to its end.
    pub fn run_sh(&self, options: &[&str], script: &str) -> Output {
        self.run(options, &["sh", "-c", script])
    }

    /// `colonel run -- CMD` in a process group of its own, running.
    pub fn start<S: AsRef<OsStr>>(&self, options: &[&str], command: &[S]) -> Running {
        let mut run = self.colonel();
        run.arg("run").args(options).arg("--").args(command).process_group(0);
        Running::start(run)
    }

    /// The only session in a folder of sessions.
    pub fn session_in(&self, sessions: impl AsRef<Path>) -> (PathBuf, Manifest) {
        let sessions = self.path().join(sessions);
        let folders: Vec<PathBuf> = fs::read_dir(&sessions)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        let [folder] = folders.as_slice() else {
            panic!("not one session: {folders:?}")
        };
        let manifest = serde_json::from_slice(&fs::read(folder.join("session.json")).unwrap()).unwrap();
        (folder.clone(), manifest)
    }

    /// The only session.
    pub fn session(&self) -> (PathBuf, Manifest) {
        self.session_in(".colonel/sessions")
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        fs::read_dir(self.path().join(".colonel/sessions")).map_or(0, Iterator::count)
    }

    pub fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        path
    }
}

/// A colonel that was started, killed when the test fails.
pub struct Running {
    child: Option<Child>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child: Some(child) }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().unwrap().id().cast_signed())
    }

    pub fn send(&self, signal: Signal) {
        nix::sys::signal::kill(self.pid(), signal).unwrap();
    }

    pub fn send_to_group(&self, signal: Signal) {
        nix::sys::signal::killpg(self.pid(), signal).unwrap();
    }

    pub fn end(mut self) -> Output {
        self.child.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = nix::sys::signal::killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until `ready`, which must not take ten seconds.
pub fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !ready() {
        assert!(Instant::now() < deadline, "waited ten seconds until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
pub fn assert_code(output: &Output, code: i32) {
    assert_eq!(
        output.status.code(),
        Some(code),
        "stdout: {}\nstderr: {}",
        stdout(output),
        stderr(output)
    );
}

/// A library with nothing in it: preloading it works and does nothing.
pub fn empty_guest() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    GUEST.get_or_init(|| compile("empty_guest.so", "int colonel_test_guest;\n", &["-shared", "-fPIC"]))
}

/// Compiles a C program or library into cargo's folder for tests.
pub fn compile(name: &str, source: &str, options: &[&str]) -> PathBuf {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let c = folder.path().join("source.c");
    fs::write(&c, source).unwrap();
    let made = folder.path().join(name);
    let status = Command::new("cc")
        .args(options)
        .arg("-o")
        .arg(&made)
        .arg(&c)
        .status()
        .unwrap();
    assert!(status.success(), "cc failed on {name}");
    // Renamed into place: another test process may be doing the same.
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::rename(&made, &path).unwrap();
    path
}
