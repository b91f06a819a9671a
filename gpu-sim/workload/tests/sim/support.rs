//! Runs colonel-sim with the stand-ins in front, alone or with the client from `examples/` injected.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A folder with the stand-ins under the names that programs look for, and the outcome of a client.
pub(crate) struct Sim {
    folder: TempDir,
}

/// Where cargo puts what it builds for this test: the folder above that of the test binary.
fn built(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let deps = exe.parent().unwrap();
    let target = deps.parent().unwrap();
    let places = [deps.join(name), target.join("examples").join(name), target.join(name)];
    let found = places
        .iter()
        .filter(|path| path.exists())
        .max_by_key(|path| path.metadata().unwrap().modified().unwrap());
    found
        .unwrap_or_else(|| panic!("`{name}` was not built, looked in {places:?}"))
        .clone()
}

impl Sim {
    pub(crate) fn new() -> Sim {
        let folder = tempfile::tempdir().unwrap();
        for (library, soname) in [
            ("cuda", "libcuda.so.1"),
            ("cudart", "libcudart.so.13"),
            ("cupti", "libcupti.so.13"),
        ] {
            symlink(built(&format!("libsim_{library}.so")), folder.path().join(soname)).unwrap();
        }
        Sim { folder }
    }

    /// `colonel-sim decode ARGS`.
    pub(crate) fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_colonel-sim"));
        command
            .arg("decode")
            .args(args.split_whitespace())
            .env("LD_LIBRARY_PATH", self.folder.path());
        for name in [
            "CUDA_INJECTION64_PATH",
            "LD_PRELOAD",
            "COLONEL_SIM_CUPTI",
            "COLONEL_SIM_FAULT",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// The same with the client injected.
    pub(crate) fn with_client(&self, args: &str, settings: &[(&str, &str)]) -> Command {
        let mut command = self.command(args);
        command.env("CUDA_INJECTION64_PATH", built("libclient.so"));
        command.env("SIM_CLIENT_OUT", self.folder.path().join("seen.json"));
        command.envs(settings.iter().copied());
        command
    }

    /// Runs with the client; what the workload counted and what the client saw.
    pub(crate) fn counted(&self, args: &str, settings: &[(&str, &str)]) -> (Value, Value) {
        let output = self.with_client(args, settings).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        (summary(&output), self.seen())
    }

    /// What the client saw.
    pub(crate) fn seen(&self) -> Value {
        let text = std::fs::read_to_string(self.folder.path().join("seen.json")).expect("the client wrote nothing");
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The workload's last line.
pub(crate) fn summary(output: &Output) -> Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let line = text
        .lines()
        .last()
        .unwrap_or_else(|| panic!("nothing on stdout: {output:?}"));
    serde_json::from_str(line).unwrap()
}
