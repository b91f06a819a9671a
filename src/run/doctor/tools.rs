//! NVIDIA's profilers, and the `python3` on the PATH with its packages.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use super::super::probe::output_of;
use super::super::python::{Python, Question};

/// What hangs longer is told as if it were not there.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Where they are installed when not on the PATH, `*` for a version.
const FOLDERS: [(&str, &str); 6] = [
    ("nsys", "/opt/nvidia/nsight-systems/*/bin"),
    ("nsys", "/opt/nvidia/nsight-systems/*/target-linux-x64"),
    ("nsys", "/opt/nvidia/nsight-compute/*/host/target-linux-x64"),
    ("nsys", "/usr/local/cuda/bin"),
    ("ncu", "/opt/nvidia/nsight-compute/*"),
    ("ncu", "/usr/local/cuda/bin"),
];

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

/// Finds nsys and ncu.
pub(super) fn profilers() -> Vec<Tool> {
    ["nsys", "ncu"].into_iter().map(profiler).collect()
}

fn profiler(name: &'static str) -> Tool {
    let on_path = on_path(name);
    let path = on_path.clone().or_else(|| installed(name, &FOLDERS));
    let release = path.as_deref().and_then(|path| {
        let said = output_of(Command::new(path).arg("--version"), PATIENCE)?;
        said.lines()
            .flat_map(str::split_ascii_whitespace)
            .find(|word| is_release(word))
            .map(str::to_owned)
    });
    Tool {
        name,
        path,
        release,
        on_path: on_path.is_some(),
    }
}

/// `2025.3.1.90-253135822126v0` of nsys, `2025.3.1.0` of ncu.
fn is_release(word: &str) -> bool {
    word.starts_with("20") && word.matches('.').count() >= 2
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn installed(name: &str, folders: &[(&str, &str)]) -> Option<PathBuf> {
    let patterns = folders.iter().filter(|(tool, _)| *tool == name);
    let files = patterns
        .flat_map(|(_, pattern)| expand(pattern))
        .map(|folder| folder.join(name));
    files.into_iter().find(|file| file.is_file())
}

/// The folders that a pattern with at most one `*` means, the newest version first.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((above, below)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let mut versions: Vec<PathBuf> = fs::read_dir(above)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    versions.sort();
    let below = below.trim_start_matches('/');
    versions
        .into_iter()
        .rev()
        .map(|version| if below.is_empty() { version } else { version.join(below) })
        .collect()
}

/// Asks the `python3` on the PATH.
pub(super) fn python() -> Option<Python> {
    let question = Question {
        packages: &[
            "vllm",
            "torch",
            "nvidia-cuda-cupti",
            "nvidia-cuda-cupti-cu12",
            "nvidia-cuda-runtime",
            "nvidia-cuda-runtime-cu12",
        ],
        vllm_variables: &[],
        patience: PATIENCE,
    };
    question.ask("python3".as_ref(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_installed_is_found() {
        let temp = tempfile::tempdir().unwrap();
        for version in ["2024.5.1", "2025.3.1"] {
            let bin = temp.path().join("nsight-systems").join(version).join("bin");
            fs::create_dir_all(&bin).unwrap();
            fs::write(bin.join("nsys"), "").unwrap();
        }
        let pattern = format!("{}/nsight-systems/*/bin", temp.path().display());
        let found = installed("nsys", &[("ncu", "/"), ("nsys", &pattern)]).unwrap();
        assert!(found.ends_with("2025.3.1/bin/nsys"), "{found:?}");
        assert_eq!(installed("ncu", &[("nsys", &pattern)]), None);
    }

    #[test]
    fn releases_are_told_from_other_words() {
        for word in ["2025.3.1.90-253135822126v0", "2025.3.1.0"] {
            assert!(is_release(word), "{word}");
        }
        for word in ["2012-2025", "(build", "version", "20"] {
            assert!(!is_release(word), "{word}");
        }
    }
}
