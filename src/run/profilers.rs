//! Finds NVIDIA's profilers: on the PATH, and where their packages put them. An Nsight Compute folder holds an nsys, too.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use super::RunError;
use super::probe::output_of;

/// What hangs longer is told as if it had no release.
const PATIENCE: Duration = Duration::from_secs(10);
/// Folders that packages install into.
const ROOTS: [&str; 2] = ["/opt/nvidia", "/usr/local/cuda/bin"];
/// `nsight-compute/2025.3.1/host/target-linux-x64/nsys` lies so deep.
const DEPTH: usize = 5;

/// A profiler of NVIDIA's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tool {
    /// `nsys` or `ncu`.
    pub name: &'static str,
    /// Where, if anywhere.
    pub path: Option<PathBuf>,
    /// What it says of itself.
    pub release: Option<String>,
    /// Whether it is on the PATH.
    pub on_path: bool,
}

impl Tool {
    /// Whether this colonel can work with it; one that does not tell its release is given the chance.
    pub fn is_too_old(&self) -> bool {
        let release = self.release.as_deref().and_then(year_and_minor);
        release.is_some_and(|release| release < year_and_minor(oldest(self.name)).unwrap_or_default())
    }
}

/// The first release whose options and output are what we know.
pub(crate) fn oldest(name: &str) -> &'static str {
    // nsys: `.nsys-rep` and `nsys export` as they are now. ncu: `--graph-profiling`.
    if name == "nsys" { "2022.1" } else { "2022.3" }
}

/// The newest nsys or ncu; of equals, the one on the PATH.
pub(crate) fn newest(name: &'static str) -> Tool {
    newest_of(name, env::var_os("PATH").as_deref(), &ROOTS.map(Path::new))
}

/// The profiler at `asked`, or the newest one; an error says what to do.
pub(crate) fn find(name: &'static str, asked: Option<&Path>) -> Result<(PathBuf, Option<String>), RunError> {
    // The command may run in another folder.
    let asked = asked.and_then(|path| std::path::absolute(path).ok());
    let tool = match asked.as_deref() {
        Some(path) => Tool {
            name,
            path: is_program(path).then(|| path.to_owned()),
            release: release_of(path),
            on_path: false,
        },
        None => newest(name),
    };
    let too_old = tool.is_too_old();
    match (tool.path, tool.release) {
        (None, _) => Err(RunError::NoProfiler { name, asked }),
        (Some(path), Some(release)) if too_old => Err(RunError::ProfilerTooOld {
            name,
            path,
            release,
            oldest: oldest(name),
        }),
        (Some(path), release) => Ok((path, release)),
    }
}

fn newest_of(name: &'static str, path: Option<&std::ffi::OsStr>, roots: &[&Path]) -> Tool {
    let on_path = path
        .iter()
        .flat_map(env::split_paths)
        .map(|folder| folder.join(name))
        .filter(|file| is_program(file))
        .map(|file| (file, true));
    let mut found = Vec::new();
    for root in roots {
        walk(root, name, DEPTH, &mut found);
    }
    let mut seen = BTreeSet::new();
    let tools = on_path
        .chain(found.into_iter().map(|file| (file, false)))
        .filter(|(file, _)| seen.insert(file.canonicalize().unwrap_or(file.clone())))
        .map(|(file, on_path)| Tool {
            name,
            release: release_of(&file),
            path: Some(file),
            on_path,
        });
    // `max_by_key` takes the last of equals.
    let mut tools: Vec<Tool> = tools.collect();
    tools.reverse();
    let newest = tools
        .into_iter()
        .max_by_key(|tool| tool.release.as_deref().map(numbers).unwrap_or_default());
    newest.unwrap_or(Tool {
        name,
        path: None,
        release: None,
        on_path: false,
    })
}

fn walk(folder: &Path, name: &str, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && depth > 0 {
            walk(&path, name, depth - 1, found);
        } else if entry.file_name() == name && is_program(&path) {
            found.push(path);
        }
    }
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn release_of(program: &Path) -> Option<String> {
    let said = output_of(Command::new(program).arg("--version"), PATIENCE)?;
    said.lines()
        .flat_map(str::split_ascii_whitespace)
        .find(|word| is_release(word))
        .map(str::to_owned)
}

/// `2025.3.1.90-253135822126v0` of nsys, `2025.3.1.0` of ncu.
fn is_release(word: &str) -> bool {
    word.starts_with("20") && word.matches('.').count() >= 2
}

fn numbers(release: &str) -> Vec<u32> {
    let release = release.split('-').next().unwrap_or_default();
    release.split('.').map_while(|number| number.parse().ok()).collect()
}

fn year_and_minor(release: &str) -> Option<(u32, u32)> {
    let numbers = numbers(release);
    Some((*numbers.first()?, *numbers.get(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &Path, release: &str) {
        fs::create_dir_all(folder).unwrap();
        let file = folder.join("nsys");
        fs::write(
            &file,
            format!("#!/bin/sh\necho NVIDIA Nsight Systems version {release}\n"),
        )
        .unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_newest_is_found_wherever_it_lies() {
        let temp = tempfile::tempdir().unwrap();
        let (opt, bin) = (temp.path().join("opt"), temp.path().join("bin"));
        program(&bin, "2024.6.2.225-246235244400v0");
        let tool = newest_of("nsys", Some(bin.as_os_str()), &[&opt]);
        assert_eq!((tool.path, tool.on_path), (Some(bin.join("nsys")), true));

        let deep = opt.join("nsight-compute/2025.10.1/host/target-linux-x64");
        program(&opt.join("nsight-systems/2025.3.1/bin"), "2025.3.1.90-253135822126v0");
        program(&deep, "2025.10.1.90-253135822126v0");
        let tool = newest_of("nsys", Some(bin.as_os_str()), &[&opt]);
        assert_eq!((tool.path, tool.on_path), (Some(deep.join("nsys")), false));
        assert_eq!(newest_of("ncu", Some(bin.as_os_str()), &[&opt]).path, None);
    }

    #[test]
    fn of_equals_the_one_on_the_path_is_taken() {
        let temp = tempfile::tempdir().unwrap();
        let (opt, bin) = (temp.path().join("opt"), temp.path().join("bin"));
        program(&bin, "2025.3.1.90-1v0");
        program(&opt.join("a"), "2025.3.1.90-1v0");
        let tool = newest_of("nsys", Some(bin.as_os_str()), &[&opt]);
        assert_eq!(tool.path, Some(bin.join("nsys")));
    }

    #[test]
    fn releases_are_told_from_other_words_and_from_too_old_ones() {
        for word in ["2025.3.1.90-253135822126v0", "2025.3.1.0"] {
            assert!(is_release(word), "{word}");
        }
        for word in ["2012-2025", "(build", "version", "20"] {
            assert!(!is_release(word), "{word}");
        }
        let of = |release: Option<&str>| Tool {
            name: "ncu",
            path: None,
            release: release.map(str::to_owned),
            on_path: false,
        };
        assert!(of(Some("2022.2.1.0")).is_too_old() && of(Some("2019.5.0.0")).is_too_old());
        assert!(!of(Some("2022.3.0.0")).is_too_old() && !of(Some("2025.1.1.0")).is_too_old() && !of(None).is_too_old());
    }
}
