//! Runs `colonel run --sim` on a workload, with a deadline: a hang is a failure and leaves no process behind.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use colonel::schema::manifest::Process;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::session::Session;

/// Longest life of any command here: a hang is found out by it. Most take under a second, alone; those with the longest paths
/// a minute where the machine has ten others at work.
const DEADLINE: Duration = Duration::from_secs(240);

/// The folder of what `cargo build --workspace` makes.
pub fn target() -> &'static Path {
    let folder = Path::new(env!("CARGO_BIN_EXE_colonel")).parent().unwrap();
    for file in [
        "libcolonel_guest.so",
        "libsim_cuda.so",
        "libsim_cudart.so",
        "libsim_cupti.so",
        "colonel-sim",
    ] {
        assert!(
            folder.join(file).is_file(),
            "no `{file}` in `{}`: `cargo build --workspace` first",
            folder.display()
        );
    }
    folder
}

/// A command to run in a folder of its own, under colonel or alone.
pub struct Setup {
    folder: tempfile::TempDir,
    options: Vec<OsString>,
    command: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    simulated: bool,
    binaries: PathBuf,
}

/// `colonel run --sim -- colonel-sim decode LINE`.
pub fn decode(line: &str) -> Setup {
    let words = ["colonel-sim", "decode"].into_iter().chain(line.split_whitespace());
    Setup::new(words)
}

impl Setup {
    pub fn new<S: AsRef<OsStr>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            options: Vec::new(),
            command: command.into_iter().map(|word| word.as_ref().to_owned()).collect(),
            environment: Vec::new(),
            simulated: true,
            binaries: target().to_owned(),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// One more word of the command.
    pub fn word(&mut self, word: impl AsRef<OsStr>) {
        self.command.push(word.as_ref().to_owned());
    }

    /// More options of `colonel run`.
    pub fn options(mut self, line: &str) -> Self {
        self.options.extend(line.split_whitespace().map(OsString::from));
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// With the programs and libraries of another folder.
    pub fn binaries(mut self, folder: &Path) -> Self {
        self.binaries = folder.to_owned();
        self
    }

    /// What the stand-in libcupti plays.
    pub fn cupti(self, version: &str) -> Self {
        self.env("COLONEL_SIM_CUPTI", version)
    }

    /// What goes wrong on purpose.
    pub fn fault(self, fault: &str) -> Self {
        self.env("COLONEL_SIM_FAULT", fault)
    }

    /// Without `--sim`: the libraries are those of `folder`.
    pub fn libraries(mut self, folder: &Path) -> Self {
        self.simulated = false;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut with_target = target().as_os_str().to_owned();
        with_target.push(":");
        with_target.push(path);
        self.env("LD_LIBRARY_PATH", folder).env("PATH", with_target)
    }

    fn colonel(&self) -> Command {
        let mut command = Command::new(self.binaries.join("colonel"));
        command.current_dir(self.path()).env("XDG_RUNTIME_DIR", self.path());
        for name in [
            "CUDA_INJECTION64_PATH",
            "NVTX_INJECTION64_PATH",
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "COLONEL_SESSION",
            "COLONEL_SESSIONS_DIR",
            "COLONEL_LOG",
            "COLONEL_GUEST",
            "COLONEL_CUPTI",
        ] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it under colonel.
    pub fn start(self) -> Running {
        let mut command = self.colonel();
        command.arg("run");
        if self.simulated {
            command.arg("--sim");
        }
        command.args(&self.options).arg("--").args(&self.command);
        Running::new(self.folder, command)
    }

    /// Runs it to its end under colonel.
    pub fn run(self) -> Ended {
        self.start().end()
    }

    /// Runs it to its end without colonel, with the same libraries.
    pub fn run_alone(self) -> Ended {
        let sim = self.path().join("stand-ins");
        if !sim.exists() {
            stand_ins(self.path());
        }
        let alone = self.libraries(&sim);
        let mut command = Command::new("env");
        command.current_dir(alone.path()).args(&alone.command);
        command.envs(alone.environment.iter().map(|(name, value)| (name, value)));
        Running::new(alone.folder, command).end()
    }

    /// Runs it under colonel to its end, as `script` with colonel as `$1` and the command after it, in a mount
    /// namespace of its own. `None` where the machine does not allow that.
    #[expect(clippy::print_stderr, reason = "what is not tested must be seen")]
    pub fn run_unshared(self, script: &str) -> Option<Ended> {
        let allowed = Command::new("unshare")
            .args(["-Urm", "true"])
            .stderr(Stdio::null())
            .status();
        if !allowed.is_ok_and(|status| status.success()) {
            eprintln!("not tested here: `unshare -Urm` is not allowed");
            return None;
        }
        let colonel = self.colonel();
        let mut command = Command::new("unshare");
        command
            .args(["-Urm", "sh", "-c", script, "sh"])
            .arg(colonel.get_program())
            .args(&self.command);
        command.current_dir(self.path());
        for (name, value) in colonel.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Some(Running::new(self.folder, command).end())
    }
}

/// A folder in which the stand-ins have the names that programs ask for.
pub fn stand_ins(parent: &Path) -> PathBuf {
    let folder = parent.join("stand-ins");
    fs::create_dir(&folder).unwrap();
    for (name, file) in [
        ("libcuda.so.1", "libsim_cuda.so"),
        ("libcudart.so.13", "libsim_cudart.so"),
        ("libcupti.so.13", "libsim_cupti.so"),
    ] {
        std::os::unix::fs::symlink(target().join(file), folder.join(name)).unwrap();
    }
    folder
}

/// A command that runs; killed with its whole group when it is dropped.
pub struct Running {
    child: Child,
    folder: tempfile::TempDir,
    deadline: Instant,
    started: Instant,
}

impl Running {
    fn new(folder: tempfile::TempDir, mut command: Command) -> Self {
        let file = |name| File::create(folder.path().join(name)).unwrap();
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"));
        let started = Instant::now();
        Self {
            child: command.spawn().unwrap(),
            folder,
            deadline: started + DEADLINE,
            started,
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn session(&self) -> Session {
        only_session(self.path()).expect("one session")
    }

    /// Waits until `ready` gives something.
    #[track_caller]
    pub fn until<T>(&mut self, what: &str, mut ready: impl FnMut(&Self) -> Option<T>) -> T {
        loop {
            if let Some(value) = ready(self) {
                return value;
            }
            let ended = self.child.try_wait().unwrap();
            if let Some(value) = ready(self) {
                return value;
            }
            if Instant::now() >= self.deadline || ended.is_some() {
                panic!("waited in vain until {what}: {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the only captured process's file says so.
    #[track_caller]
    pub fn process(&mut self, what: &str, is: impl Fn(&Process) -> bool) -> Process {
        self.until(what, |running| running.process_now().filter(|process| is(process)))
    }

    /// The only captured process's file as it is now.
    pub fn process_now(&self) -> Option<Process> {
        only_session(self.path())?.processes().pop()
    }

    /// Another command of colonel's, run to its end in the same folder.
    pub fn colonel(&self, line: &str) -> Said {
        colonel(self.path(), line)
    }

    pub fn signal(&self, pid: u32, signal: Signal) {
        kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
    }

    /// Lets a program go on that holds on by its word `H` (tests/guest/hosts/nvtx.c).
    pub fn go_on(&self) {
        File::create(self.path().join("go")).unwrap();
    }

    /// Kills colonel itself, and nothing else.
    pub fn kill_leader(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn said(&self) -> String {
        let read = |name| String::from_utf8_lossy(&fs::read(self.path().join(name)).unwrap()).into_owned();
        format!("stdout: {}\nstderr: {}", read("stdout"), read("stderr"))
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < self.deadline, "still running: {}", self.said());
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = self.started.elapsed();
        let read = |name| fs::read(self.path().join(name)).unwrap();
        let (stdout, stderr) = (read("stdout"), read("stderr"));
        Ended {
            status,
            stdout,
            stderr,
            took,
            running: self,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The group may outlive its leader.
        let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn only_session(place: &Path) -> Option<Session> {
    let folders: Vec<PathBuf> = fs::read_dir(place.join(".colonel/sessions"))
        .ok()?
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("session.json").exists())
        .collect();
    assert!(folders.len() <= 1, "{folders:?}");
    folders.into_iter().next().map(Session::at)
}

/// How a command ended and what it left.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub took: Duration,
    running: Running,
}

/// What the workload launched, by its own count.
#[derive(Debug, serde::Deserialize)]
pub struct Count {
    pub kernels: u64,
    pub kernels_in_windows: u64,
    pub processes: usize,
    pub pids: Vec<u32>,
}

impl Ended {
    pub fn path(&self) -> &Path {
        self.running.path()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    #[track_caller]
    pub fn assert_code(self, code: i32) -> Self {
        assert_eq!(
            (self.status.code(), self.status.signal()),
            (Some(code), None),
            "{}",
            self.running.said()
        );
        self
    }

    #[track_caller]
    pub fn session(&self) -> Session {
        self.running.session()
    }

    /// What the workload says.
    #[track_caller]
    pub fn count(&self) -> Count {
        let stdout = self.stdout();
        let line = stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {}", self.running.said()))
    }

    pub fn colonel(&self, line: &str) -> Said {
        colonel(self.path(), line)
    }
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

fn colonel(place: &Path, line: &str) -> Said {
    let mut command = Command::new("timeout");
    command
        .arg(DEADLINE.as_secs().to_string())
        .arg(target().join("colonel"));
    let output = command
        .args(line.split_whitespace())
        .current_dir(place)
        .env_remove("COLONEL_SESSIONS_DIR")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}
