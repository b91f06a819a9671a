//! What nsys and ncu have in common: a folder in the session, a log, options that only our guest knows, and what their
//! words mean.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::super::RunError;
use super::super::doctor::gpu::in_container;
use super::super::doctor::permissions::how_to_open;
use super::super::flavors::Flavor;
use super::super::settings::{Gate, Settings};
use super::Watched;
use crate::schema::manifest::{Exit, Profiler, Session as Manifest};
use crate::session::{SessionError, SessionWriter, now_ns};

const LOG: &str = "log.txt";
const POLL: Duration = Duration::from_millis(20);
/// Lines of a log that are shown where its words are not known.
const TAIL: usize = 3;

/// The profiler itself.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) path: PathBuf,
    pub(super) release: Option<String>,
}

impl Tool {
    /// Its folder in the session.
    pub(super) fn folder(&self, session: &Path) -> PathBuf {
        session.join(self.name)
    }

    pub(super) fn log(&self, session: &Path) -> PathBuf {
        self.folder(session).join(LOG)
    }

    /// Makes the folder and an empty log.
    pub(super) fn make_log(&self, session: &SessionWriter) -> Result<File, RunError> {
        let folder = self.folder(session.path());
        let path = folder.join(LOG);
        let made = fs::create_dir_all(&folder).and_then(|()| File::options().create(true).append(true).open(&path));
        made.map_err(|source| RunError::NoSession {
            dir: folder,
            source: SessionError::Io {
                action: "create",
                path,
                source,
            },
        })
    }

    /// What it said so far, broken text replaced.
    pub(super) fn words(&self, session: &Path) -> String {
        let log = fs::read(self.log(session)).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Its files with this extension, in order.
    pub(super) fn files(&self, session: &Path, extension: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder(session)).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|known| known == extension))
            .collect();
        // report.nsys-rep, report.2.nsys-rep, …, report.10.nsys-rep
        files.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
        files
    }

    /// Notes in the session what was started, and what opens its windows.
    pub(super) fn note(&self, session: &mut SessionWriter, gate: String, words: &[OsString]) {
        session.manifest_mut().gate = gate;
        session.manifest_mut().profiler = Some(Profiler {
            path: self.path.clone(),
            release: self.release.clone(),
            command: words.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            reports: Vec::new(),
            collect_ns: None,
        });
    }

    /// The last lines that it said, for where nothing else tells what was wrong.
    pub(super) fn tail(&self, session: &Path) -> String {
        let words = self.words(session);
        let lines: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines.len().saturating_sub(TAIL);
        match &lines[last..] {
            [] => format!("{} said nothing", self.name),
            lines => format!("{} said: {}", self.name, lines.join(" / ")),
        }
    }
}

/// The profilers know nothing of our control socket and timers.
pub(super) fn refuse_guests_options(settings: &Settings, evaluator: &'static str) -> Result<(), RunError> {
    let refuse = |option: &str, why| {
        Err(RunError::NotOfEvaluator {
            option: format!("`{option}`"),
            evaluator,
            why,
        })
    };
    const OURS: &str = "only colonel's own evaluator, `--evaluator cupti`, can do that";
    if settings.gate == Gate::Manual {
        return refuse("--gate manual", "take `--gate profiler`, or `--evaluator cupti`");
    }
    if let Gate::Nvtx(pattern) = &settings.gate
        && [Some(&pattern.name), pattern.domain.as_ref()]
            .into_iter()
            .flatten()
            .any(|text| text.contains(['*', '?']))
    {
        return refuse(
            &format!("--gate {}", settings.gate.name()),
            "it matches whole names only; write the name in full, or take `--evaluator cupti`",
        );
    }
    if settings.counters.is_some() {
        return refuse("--counters", OURS);
    }
    if settings.after.is_some() {
        return refuse("--after", OURS);
    }
    if settings.window.is_some() {
        return refuse("--for", OURS);
    }
    Ok(())
}

/// Bytes of the files in a folder.
pub(super) fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|file| file.len())
        .sum()
}

/// What a program said on stdout, or why it has no answer.
pub(super) fn answer(command: &mut Command, growing: Option<&Path>, patience: Duration) -> Result<String, String> {
    let (stdout, stderr) = (tempfile(), tempfile());
    let (Ok(mut stdout), Ok(mut stderr)) = (stdout, stderr) else {
        return Err("there is no room for its answer".to_owned());
    };
    let failed = |error: std::io::Error| error.to_string();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().map_err(failed)?)
        .stderr(stderr.try_clone().map_err(failed)?)
        .spawn()
        .map_err(failed)?;
    let size = |path: Option<&Path>| {
        path.and_then(|path| fs::metadata(path).ok())
            .map_or(0, |file| file.len())
    };
    let (mut seen, mut since) = (size(growing), Instant::now());
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        let now = size(growing) + stdout.metadata().map_or(0, |file| file.len());
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        if since.elapsed() > patience {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("it wrote nothing for {} s and was stopped", patience.as_secs()));
        }
        std::thread::sleep(POLL);
    };
    let said = read_back(&mut stdout).map_err(failed)?;
    if status.success() {
        return Ok(said);
    }
    let complaint = read_back(&mut stderr).map_err(failed)? + &said;
    let complaint: Vec<&str> = complaint
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    Err(format!("it ended with {status}: {}", complaint.join(" / ")))
}

fn tempfile() -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let options = &mut File::options();
    options.read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600);
    options.open(std::env::temp_dir())
}

fn read_back(file: &mut File) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _};
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A library that the dynamic linker did not find, from its own words.
pub(super) fn missing_library(words: &str) -> Option<&str> {
    let end = words.find(": cannot open shared object file")?;
    words[..end]
        .rsplit([' ', '\n', '\t'])
        .next()
        .filter(|name| name.contains(".so"))
}

/// What the message of a missing library must say to be of use.
pub(super) fn how_to_get(library: &str) -> String {
    let package = match library {
        "libdw.so.1" => " (Debian and Ubuntu: `apt install libdw1`; Red Hat: `dnf install elfutils-libs`)",
        _ => "",
    };
    format!("`{library}` is missing; install it{package}, or put it on LD_LIBRARY_PATH")
}

/// What to do without permission for hardware counters.
pub(super) fn no_permission() -> String {
    format!(
        "the GPU's hardware counters are for administrators (ERR_NVGPUCTRPERM); {}",
        how_to_open(in_container()).join(", ")
    )
}

/// Notes which reports are in the session, and how long it took to read them.
pub(super) fn note_reports(session: &mut SessionWriter, tool: &Tool, extension: &str) {
    let folder = session.path().to_owned();
    let within = |path: &PathBuf| path.strip_prefix(&folder).unwrap_or(path).display().to_string();
    let reports = tool.files(&folder, extension).iter().map(within).collect();
    let manifest = session.manifest_mut();
    let took = manifest
        .ended_ns
        .map(|ended| u64::try_from(now_ns() - ended).unwrap_or(0));
    if let Some(profiler) = &mut manifest.profiler {
        profiler.reports = reports;
        profiler.collect_ns = took;
    }
}

/// Notes what came of the watch; returns whether it stopped the profiler, and with it the command.
pub(super) fn note_watch(session: &mut SessionWriter, watched: Watched, name: &str) -> bool {
    match watched {
        Watched::Well => false,
        Watched::Stopped(why) => {
            session.add_problem(&format!("{name}_stopped"), why);
            true
        }
        Watched::Not(why) => {
            let message = format!("{name} was not watched, so it would not have been stopped had it hung: {why}");
            session.add_problem(&format!("{name}_unwatched"), message);
            false
        }
    }
}

/// Killed by that signal.
pub(super) fn killed(signal: i32) -> Exit {
    Exit {
        code: None,
        signal: Some(signal),
    }
}

/// Whether a signal is none that asks a program to end, as Ctrl-C does.
pub(super) fn is_crash(signal: &i32) -> bool {
    ![libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM].contains(signal)
}

/// What the session says of a command that a signal ended.
pub(super) fn crashed(signal: i32, name: &str) -> String {
    let signal = named(signal);
    format!("the command was killed by signal {signal} under {name}; what was recorded until then is kept")
}

/// What it says of a profiler that a signal ended.
pub(super) fn itself_crashed(signal: i32, name: &str, hint: &str) -> String {
    let why = if signal == libc::SIGKILL {
        ", which is often the system's answer to too little memory (`dmesg`)"
    } else {
        ""
    };
    let signal = named(signal);
    format!("{name} itself was killed by signal {signal}{why}; what it wrote is kept\ntry {hint}")
}

/// `11 (SIGSEGV)`.
fn named(signal: i32) -> String {
    let known = nix::sys::signal::Signal::try_from(signal);
    known.map_or(signal.to_string(), |known| format!("{signal} ({known})"))
}

/// Why the tables are empty: what went wrong, else that nobody opened a window, else that there was nothing.
pub(super) fn why_no_kernels(manifest: &Manifest) -> String {
    /// Of the profiler, and no reason.
    const BESIDE: [&str; 3] = ["nsys_warning", "nsys_unwatched", "ncu_unwatched"];
    /// Of the command, and a reason.
    const OF_COMMAND: [&str; 2] = ["graphs_whole", "target_crashed"];
    let name = manifest.evaluator.as_str();
    let is_reason = |code: &str| OF_COMMAND.contains(&code) || (code.starts_with(name) && !BESIDE.contains(&code));
    let reasons: Vec<&str> = manifest
        .problems
        .iter()
        .filter(|problem| is_reason(&problem.code))
        .map(|problem| problem.message.as_str())
        .collect();
    if !reasons.is_empty() {
        return reasons.join("\n");
    }
    if manifest.gate == Gate::Profiler.name() {
        let flavor = Flavor::named(&manifest.flavor);
        let how = flavor.map_or("", |flavor| flavor.how_to_open);
        return format!(
            "{name} saw none between cudaProfilerStart and cudaProfilerStop, or they were not called\n{how}"
        );
    }
    format!("{name} saw none launched")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named() {
        let words = "QdstrmImporter: error while loading shared libraries: libdw.so.1: cannot open shared object file: \
                     No such file or directory";
        assert_eq!(missing_library(words), Some("libdw.so.1"));
        assert!(how_to_get("libdw.so.1").contains("apt install libdw1"));
        assert_eq!(missing_library("report.qdstrm: cannot open shared object file"), None);
        assert_eq!(missing_library("fine"), None);
    }

    #[test]
    fn reasons_are_told_from_other_problems() {
        let why = |problems: &[(&str, &str)]| {
            let problems: Vec<_> = problems
                .iter()
                .map(|(code, message)| serde_json::json!({"code": code, "message": message}))
                .collect();
            let manifest = serde_json::json!({
                "format": {"major": 1, "minor": 0}, "id": "5e27fc0e", "colonel": "0.1.0", "state": "compacted",
                "created_ns": 0, "command": ["python"], "cwd": "/", "evaluator": "nsys", "flavor": "generic",
                "gate": "process", "problems": problems,
            });
            why_no_kernels(&serde_json::from_value(manifest).unwrap())
        };
        let warning = ("nsys_warning", "nsys: Not all CUDA events might have been collected.");
        assert_eq!(
            why(&[warning, ("nsys_unwatched", "not watched")]),
            "nsys saw none launched"
        );
        assert_eq!(
            why(&[warning, ("graphs_whole", "2 launches recorded whole")]),
            "2 launches recorded whole"
        );
        assert_eq!(
            why(&[("target_crashed", "killed"), ("nsys_unread", "no report")]),
            "killed\nno report"
        );
    }

    #[test]
    fn answers_are_read_and_silence_is_bounded() {
        let sh = |script: &str, patience: u64| {
            answer(
                Command::new("sh").args(["-c", script]),
                None,
                Duration::from_millis(patience),
            )
        };
        assert_eq!(sh("echo a; echo b >&2", 9_000).unwrap(), "a\n");
        assert_eq!(
            sh("echo why >&2; exit 3", 9_000).unwrap_err(),
            "it ended with exit status: 3: why"
        );
        assert_eq!(
            sh("for i in 1 2 3 4 5; do echo x; sleep 0.2; done", 500).unwrap().len(),
            10
        );
        assert!(sh("exec sleep 60", 100).unwrap_err().contains("wrote nothing"));
    }
}
