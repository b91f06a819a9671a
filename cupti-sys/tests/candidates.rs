//! What `colonel doctor` would list: in a process of its own, with a `python3` and an `ldconfig` of ours on its path.
//!
//! Run: cargo test -p cupti-sys --test candidates

#![expect(clippy::print_stdout, reason = "how the child process answers")]

use cupti_sys::loader;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = "COLONEL_TEST_ROOT";
const PREFERRED: &str = "COLONEL_TEST_PREFERRED";
const DRIVER: &str = "COLONEL_TEST_DRIVER";

#[test]
#[ignore = "run by the others, in a process of its own"]
fn list_and_print() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let preferred = std::env::var_os(PREFERRED).map(PathBuf::from);
    let driver = std::env::var(DRIVER).ok().map(|major| major.parse().expect("a number"));
    println!();
    for one in loader::candidates(preferred.as_deref(), driver) {
        // What the machine itself has is not ours to test.
        let Ok(path) = one.path.strip_prefix(&root) else {
            continue;
        };
        let chosen = if one.chosen { " chosen" } else { "" };
        let refused = one
            .refused
            .map(|reason| format!(" refused: {reason}"))
            .unwrap_or_default();
        let (release, api) = (one.release.as_deref().unwrap_or("?"), one.api_version.unwrap_or(0));
        println!(
            "RESULT {:?} {} {} {release} {api}{chosen}{refused}",
            one.origin,
            path.display(),
            one.major
        );
    }
    assert!(
        !std::fs::read_to_string("/proc/self/maps")
            .expect("Linux")
            .contains("libcupti"),
        "nothing is loaded"
    );
}

struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().expect("a temporary folder"));
        machine.program("python3", &format!("echo {}", machine.path("site").display()));
        machine.program("ldconfig", "");
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().canonicalize().expect("the folder is there").join(path)
    }

    fn file(&self, path: &str, content: &str) -> PathBuf {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("the folder is made");
        std::fs::write(&path, content).expect("the file is written");
        path
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.file(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it is made a program");
    }

    fn wheel(&self, folder: &str, package: &str, version: &str, file: &str) {
        self.file(&format!("site/nvidia/{folder}/lib/{file}"), "");
        self.file(&format!("site/{package}-{version}.dist-info/METADATA"), "");
    }

    fn list(&self, driver: &str, preferred: Option<&Path>) -> Vec<String> {
        let mut child = Command::new(std::env::current_exe().expect("a test has a file"));
        child
            .args(["--exact", "list_and_print", "--ignored", "--nocapture"])
            .env_clear()
            // The rest of the path is for the interpreters of our scripts.
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env("CUDA_HOME", self.path("cuda"))
            .env(ROOT, self.path(""))
            .env(DRIVER, driver)
            .envs(preferred.map(|path| (PREFERRED, path)));
        let output = child.output().expect("a test can be run again");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{stdout}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        stdout
            .lines()
            .filter_map(|line| line.strip_prefix("RESULT "))
            .map(str::to_string)
            .collect()
    }
}

#[test]
fn all_are_listed_in_the_order_in_which_they_would_be_chosen() {
    let machine = Machine::new();
    machine.wheel("cu13", "nvidia_cuda_cupti", "13.0.85", "libcupti.so.13");
    machine.wheel("cuda_cupti", "nvidia_cuda_cupti_cu12", "12.8.90", "libcupti.so.12");
    let real = machine.file("cuda/extras/CUPTI/lib64/libcupti.so.2025.3.1", "");
    std::os::unix::fs::symlink(&real, machine.path("cuda/extras/CUPTI/lib64/libcupti.so.13")).unwrap();
    let linked = machine.file("ld/libcupti.so.13", "");
    machine.program(
        "ldconfig",
        &format!("echo '	libcupti.so.13 (libc6,x86-64) => {}'", linked.display()),
    );

    assert_eq!(
        machine.list("13", None),
        [
            "Python site/nvidia/cu13/lib/libcupti.so.13 13 13.0.85 130000 chosen",
            "LinkerPath ld/libcupti.so.13 13 ? 0",
            "Toolkit cuda/extras/CUPTI/lib64/libcupti.so.13 13 2025.3.1 0",
            "Python site/nvidia/cuda_cupti/lib/libcupti.so.12 12 12.8.90 26",
        ]
    );
    let with_old_driver = machine.list("12", None);
    assert_eq!(
        with_old_driver[0],
        "Python site/nvidia/cuda_cupti/lib/libcupti.so.12 12 12.8.90 26 chosen"
    );
    assert!(
        with_old_driver[1].ends_with("refused: newer than the driver"),
        "{with_old_driver:?}"
    );
}

#[test]
fn the_preferred_one_is_first_and_its_major_is_read_from_the_file() {
    let machine = Machine::new();
    machine.wheel("cu13", "nvidia_cuda_cupti", "13.0.85", "libcupti.so.13");
    let mine = machine.file("mine/libcupti.so", "\x7fELF...\0libcupti.so.12\0...");
    let list = machine.list("13", Some(&mine));
    assert_eq!(list[0], "Preferred mine/libcupti.so 12 ? 0 chosen");
    assert_eq!(list.len(), 2);
    let other = machine.file("mine/other.so", "\x7fELF");
    assert_eq!(machine.list("13", Some(&other)).len(), 1, "what is no libcupti is none");
}

#[test]
fn what_is_too_old_is_listed_and_not_chosen() {
    let machine = Machine::new();
    machine.wheel("cuda_cupti", "nvidia_cuda_cupti_cu12", "12.3.101", "libcupti.so.12");
    let list = machine.list("13", None);
    assert_eq!(
        list,
        ["Python site/nvidia/cuda_cupti/lib/libcupti.so.12 12 12.3.101 21 refused: older than CUDA 12.4"]
    );
}

#[test]
fn a_machine_without_python_or_cuda_lists_nothing() {
    let machine = Machine::new();
    machine.program("python3", "exit 1");
    machine.program("ldconfig", "exit 1");
    assert!(machine.list("13", None).is_empty());
}
