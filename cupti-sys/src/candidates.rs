//! Every libcupti on this machine that a program could end up with, told from files alone: nothing is loaded into this
//! process. For `colonel doctor`; runs `python3` and `ldconfig`, so never call it inside a host.

use crate::constants::*;
use crate::loader::{MAJORS, fitting_majors, soname, toolkit_folders};
use crate::mapped;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long `python3` and `ldconfig` may take: what hangs longer is told as if it were not there.
const PATIENCE: Duration = Duration::from_secs(10);

/// A libcupti that exists on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its file.
    pub path: PathBuf,
    /// Where it was found.
    pub origin: Origin,
    /// CUDA major, from its name.
    pub major: u32,
    /// What tells its version, where anything does: that of the wheel (`13.0.85`) or the file's (`2025.3.1`).
    pub release: Option<String>,
    /// API version that the wheel's version stands for.
    pub api_version: Option<u32>,
    /// Why it can't be used, as far as a file can tell.
    pub refused: Option<&'static str>,
    /// Whether a program started now would get it, if it brings none of its own.
    pub chosen: bool,
}

/// Where a candidate was found, in the order in which they are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Named by the user.
    Preferred,
    /// In the site-packages of the `python3` on the path.
    Python,
    /// Where the dynamic linker searches.
    LinkerPath,
    /// In a CUDA toolkit.
    Toolkit,
}

/// Every libcupti that can be found, best first. `preferred` is what the user named; `driver_major` is the driver's,
/// where known.
pub fn candidates(preferred: Option<&Path>, driver_major: Option<u32>) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let mut add = |path: &Path, origin, release: Option<String>| {
        let known = |other: &Candidate| other.path.canonicalize().ok() == path.canonicalize().ok();
        if path.is_file() && !found.iter().any(known) {
            found.extend(examine(path, origin, release, driver_major));
        }
    };
    if let Some(path) = preferred {
        add(path, Origin::Preferred, None);
    }
    for site in python_path() {
        for (folder, package) in [("cu13", "nvidia_cuda_cupti"), ("cuda_cupti", "nvidia_cuda_cupti_cu12")] {
            let release = wheel_version(&site, package);
            let lib = site.join("nvidia").join(folder).join("lib");
            MAJORS
                .iter()
                .for_each(|major| add(&lib.join(soname(*major)), Origin::Python, release.clone()));
        }
    }
    linker_files()
        .iter()
        .for_each(|path| add(path, Origin::LinkerPath, None));
    for folder in toolkit_folders().into_iter().chain(versioned_toolkits()) {
        MAJORS
            .iter()
            .for_each(|major| add(&folder.join(soname(*major)), Origin::Toolkit, None));
    }

    let majors = fitting_majors(None, driver_major);
    let rank = |major: u32| {
        majors
            .iter()
            .position(|fitting| *fitting == major)
            .unwrap_or(usize::MAX)
    };
    // Among the rest the better major counts first, as in `load`.
    found.sort_by_key(|one| (one.origin != Origin::Preferred, rank(one.major), one.origin));
    if let Some(first) = found.iter_mut().find(|one| one.refused.is_none()) {
        first.chosen = true;
    }
    found
}

fn examine(path: &Path, origin: Origin, release: Option<String>, driver_major: Option<u32>) -> Option<Candidate> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let major = mapped::version_after(path, "libcupti.so.").filter(|major| *major < 1000);
    let major = major.or_else(|| major_in(&real))?;
    let api_version = release.as_deref().and_then(api_version_of_wheel);
    let file_release = || Some(real.file_name()?.to_str()?.strip_prefix("libcupti.so.")?.to_string());
    let release = release.or_else(|| file_release().filter(|release| release.contains('.')));
    let refused = match (major, api_version) {
        (..12, _) | (_, Some(..API_VERSION_12_4)) => Some("older than CUDA 12.4"),
        (14.., _) | (_, Some(API_VERSION_14_0..)) => Some("newer than CUDA 13"),
        _ if driver_major.is_some_and(|driver| driver < major) => Some("newer than the driver"),
        _ => None,
    };
    Some(Candidate {
        path: path.to_path_buf(),
        origin,
        major,
        release,
        api_version,
        refused,
        chosen: false,
    })
}

/// The major in the file's own soname, for a file named otherwise (`libcupti.so`).
fn major_in(file: &Path) -> Option<u32> {
    let content = std::fs::read(file).ok()?;
    let name = b"libcupti.so.";
    let mut places = content
        .windows(name.len() + 3)
        .filter(|window| window.starts_with(name));
    places.find_map(|window| match &window[name.len()..] {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9', 0] => Some(u32::from(tens - b'0') * 10 + u32::from(ones - b'0')),
        _ => None,
    })
}

/// API version of the libcupti in a wheel of this version, at least: updates may count on.
fn api_version_of_wheel(release: &str) -> Option<u32> {
    let mut parts = release.split('.');
    let (major, minor): (u32, u32) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(match (major, minor) {
        (..12, _) | (12, ..4) => API_VERSION_12_4 - 1,
        (12, 4) => API_VERSION_12_4,
        (12, 5) => API_VERSION_12_5,
        (12, 6 | 7) => API_VERSION_12_6,
        (12, 8) => API_VERSION_12_8,
        (12, _) => API_VERSION_12_9,
        (_, ..100) => major * 10_000 + minor * 100,
        _ => return None,
    })
}

/// Version of an installed wheel, from the name of its metadata folder.
fn wheel_version(site: &Path, package: &str) -> Option<String> {
    let entries = std::fs::read_dir(site).ok()?;
    entries.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let version = name
            .strip_prefix(package)?
            .strip_prefix('-')?
            .strip_suffix(".dist-info")?;
        Some(version.to_string())
    })
}

/// Folders that the `python3` on the path imports from.
fn python_path() -> Vec<PathBuf> {
    let print = "import os, sys; [print(os.path.abspath(p)) for p in sys.path if p]";
    lines_of(Command::new("python3").args(["-c", print]))
        .into_iter()
        .map(PathBuf::from)
        .collect()
}

/// Files of libcupti that the dynamic linker would find, those of `LD_LIBRARY_PATH` first.
fn linker_files() -> Vec<PathBuf> {
    let search = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = std::env::split_paths(&search).filter(|folder| !folder.as_os_str().is_empty());
    let mut files: Vec<PathBuf> = folders
        .flat_map(|folder| MAJORS.map(|major| folder.join(soname(major))))
        .collect();
    let mut cache = lines_of(Command::new("ldconfig").arg("-p"));
    if cache.is_empty() {
        // Not on the path of ordinary users everywhere.
        cache = lines_of(Command::new("/sbin/ldconfig").arg("-p"));
    }
    let entries = cache.iter().filter_map(|line| line.trim_start().split_once(" => "));
    files.extend(
        entries
            .filter(|(name, _)| name.starts_with("libcupti.so"))
            .map(|(_, path)| PathBuf::from(path)),
    );
    files
}

/// Toolkits beside the current one: /usr/local/cuda-13.0 and the like.
fn versioned_toolkits() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/usr/local").into_iter().flatten().flatten();
    let roots = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("cuda-"));
    let mut folders: Vec<PathBuf> = roots.map(|entry| entry.path().join("extras/CUPTI/lib64")).collect();
    folders.sort();
    folders.reverse();
    folders
}

/// Lines that a command prints; none where it is missing, fails, or hangs.
fn lines_of(command: &mut Command) -> Vec<String> {
    let printed = output_within(command, PATIENCE).unwrap_or_default();
    printed.lines().map(str::to_string).collect()
}

/// What a command prints to its stdout, if it succeeds in time.
fn output_within(command: &mut Command, patience: Duration) -> Option<String> {
    let deadline = Instant::now() + patience;
    let command = command.stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).spawn().ok()?;
    let mut stdout = child.stdout.take()?;
    let (send, receive) = mpsc::channel();
    // `ldconfig -p` prints more than a pipe holds, so it is read while it runs. A descendant of a killed child may keep
    // the pipe open: then the thread waits on, and nobody for the thread.
    std::thread::spawn(move || {
        let mut printed = Vec::new();
        let read = stdout.read_to_end(&mut printed).is_ok();
        let _ = send.send(read.then_some(printed));
    });
    loop {
        match child.try_wait() {
            Ok(Some(status)) if !status.success() => return None,
            Ok(Some(_)) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let printed = receive.recv_timeout(left).ok()??;
                return Some(String::from_utf8_lossy(&printed).into_owned());
            }
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_command_that_hangs_or_fails_says_nothing() {
        let started = Instant::now();
        let short = Duration::from_millis(100);
        assert_eq!(output_within(&mut shell("exec sleep 60"), short), None);
        assert_eq!(
            output_within(&mut shell("sleep 6 & echo x"), short),
            None,
            "its child holds the pipe"
        );
        assert!(started.elapsed() < Duration::from_secs(5));
        assert!(lines_of(&mut shell("echo x; exit 1")).is_empty());
        assert!(lines_of(&mut Command::new("/nonexistent/ldconfig")).is_empty());
    }

    #[test]
    fn more_than_a_pipe_holds_is_read() {
        assert_eq!(lines_of(&mut shell("seq 100000")).len(), 100_000);
    }
}
