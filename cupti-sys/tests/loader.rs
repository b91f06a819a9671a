//! Which libcupti the loader takes: each case in a process of its own, with small libraries of ours in the place of
//! the driver's, the runtime's and CUPTI's.
//!
//! Run: cargo test -p cupti-sys --test loader
//! Needs gcc.

#![expect(clippy::print_stdout, reason = "how the child process answers")]

use cupti_sys::loader;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the child process loads before it looks for CUPTI, separated by `:`.
const MAPPED: &str = "COLONEL_TEST_MAPPED";
const PREFERRED: &str = "COLONEL_TEST_PREFERRED";

#[test]
#[ignore = "run by the others, in a process of its own"]
fn load_and_print() {
    for path in std::env::split_paths(&std::env::var_os(MAPPED).unwrap_or_default()) {
        // SAFETY: libraries of the tests below.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
        std::mem::forget(library.unwrap_or_else(|error| panic!("`{}`: {error}", path.display())));
    }
    let preferred = std::env::var_os(PREFERRED).map(PathBuf::from);
    match loader::load(preferred.as_deref()) {
        Ok(cupti) => println!("\nRESULT {:?} {} {}", cupti.found, cupti.version, cupti.path.display()),
        Err(error) => println!("\nRESULT {error:?}"),
    }
}

/// A folder with libraries, and the environment of the process that will use them.
struct Machine {
    root: tempfile::TempDir,
    mapped: Vec<PathBuf>,
    environment: Vec<(&'static str, OsString)>,
}

impl Machine {
    /// With a driver of this CUDA version in the process, `None` for no driver.
    fn new(driver: Option<u32>) -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        let mut machine = Self {
            root,
            mapped: Vec::new(),
            environment: Vec::new(),
        };
        if let Some(version) = driver {
            let code = format!("int cuDriverGetVersion(int *v) {{ *v = {version}; return 0; }}");
            let path = machine.build("driver/libcuda.so.1", &code);
            machine.mapped.push(path);
        }
        machine
    }

    fn build(&self, path: &str, code: &str) -> PathBuf {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("the folder is made");
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let source = path.with_extension("c");
        std::fs::write(&source, code).expect("the source is written");
        let mut gcc = Command::new("gcc");
        gcc.args(["-shared", "-fPIC", "-o"])
            .arg(&path)
            .arg(&source)
            .arg(format!("-Wl,-soname,{name}"));
        assert!(gcc.status().expect("gcc runs").success());
        path
    }

    fn cupti(&self, path: &str, version: u32) -> PathBuf {
        self.build(
            path,
            &format!("int cuptiGetVersion(unsigned *v) {{ *v = {version}; return 0; }}"),
        )
    }

    fn runtime(&self, path: &str) -> PathBuf {
        self.build(path, "int cudaFree(void *p) { return 0; }")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().canonicalize().expect("the folder is there").join(path)
    }

    fn map(&mut self, path: PathBuf) {
        self.mapped.push(path);
    }

    fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.environment.push((name, value.into()));
    }

    /// What the loader says there: `Found version path` or the error's `Debug`.
    fn load(&self) -> String {
        let mapped = std::env::join_paths(&self.mapped).expect("paths without `:`");
        let output = Command::new(std::env::current_exe().expect("a test has a file"))
            .args(["--exact", "load_and_print", "--ignored", "--nocapture"])
            .env_remove("LD_LIBRARY_PATH")
            .env_remove("CUDA_HOME")
            .env_remove("CUDA_PATH")
            .env(MAPPED, mapped)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .expect("a test can be run again");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{stdout}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let result = stdout.lines().find_map(|line| line.strip_prefix("RESULT "));
        result.unwrap_or_else(|| panic!("no result in {stdout}")).to_string()
    }

    fn assert_found(&self, found: &str, version: u32, path: &Path) {
        assert_eq!(self.load(), format!("{found} {version} {}", path.display()));
    }
}

#[test]
fn a_process_without_the_driver_gets_no_cupti() {
    let mut machine = Machine::new(None);
    machine.set(PREFERRED, machine.cupti("libcupti.so.13", 130_001));
    assert_eq!(machine.load(), "NoDriver");
}

#[test]
fn the_copy_in_the_process_comes_before_the_preferred_one() {
    let mut machine = Machine::new(Some(13_000));
    let mapped = machine.cupti("torch/libcupti.so.12", 26);
    machine.map(mapped.clone());
    machine.set(PREFERRED, machine.cupti("mine/libcupti.so.13", 130_001));
    machine.assert_found("Mapped", 26, &mapped);
}

#[test]
fn of_two_copies_in_the_process_the_runtimes_is_taken() {
    let mut machine = Machine::new(Some(13_000));
    let (newer, older) = (
        machine.cupti("a/libcupti.so.13", 130_001),
        machine.cupti("a/libcupti.so.12", 28),
    );
    machine.map(newer.clone());
    machine.map(older.clone());
    machine.assert_found("Mapped", 130_001, &newer);
    machine.map(machine.runtime("a/libcudart.so.12"));
    machine.assert_found("Mapped", 28, &older);
}

#[test]
fn a_mapped_copy_of_another_name_is_found() {
    let mut machine = Machine::new(Some(13_000));
    let mapped = machine.cupti("libcupti.so.2025.3.1", 130_001);
    machine.map(mapped.clone());
    machine.assert_found("Mapped", 130_001, &mapped);
}

#[test]
fn the_preferred_one_comes_before_any_search() {
    let mut machine = Machine::new(Some(13_000));
    machine.map(machine.runtime("lib/libcudart.so.13"));
    machine.cupti("lib/libcupti.so.13", 130_001);
    let preferred = machine.cupti("mine/any-name.so", 130_500);
    machine.set(PREFERRED, &preferred);
    machine.assert_found("Preferred", 130_500, &preferred);
}

#[test]
fn a_preferred_file_that_is_no_cupti_is_an_error_not_a_search() {
    let mut machine = Machine::new(Some(13_000));
    machine.map(machine.runtime("lib/libcudart.so.13"));
    machine.cupti("lib/libcupti.so.13", 130_001);
    machine.set(PREFERRED, machine.path("nothing.so"));
    let result = machine.load();
    assert!(
        result.starts_with("Open {") && result.contains("nothing.so"),
        "{result}"
    );
    assert!(result.contains("No such file"), "the linker's reason: {result}");
    machine.set(PREFERRED, machine.runtime("other.so"));
    assert!(machine.load().starts_with("NotCupti {"));
}

#[test]
fn wheels_beside_the_runtime_are_found() {
    let mut machine = Machine::new(Some(13_000));
    machine.map(machine.runtime("site/nvidia/cuda_runtime/lib/libcudart.so.12"));
    let twelve = machine.cupti("site/nvidia/cuda_cupti/lib/libcupti.so.12", 28);
    machine.cupti("site/nvidia/cu13/lib/libcupti.so.13", 130_001);
    machine.assert_found("BesideCuda", 28, &twelve);
}

#[test]
fn wheels_beside_torch_are_found_by_what_the_driver_serves() {
    let mut machine = Machine::new(Some(13_000));
    machine.map(machine.build("site/torch/lib/libtorch_cpu.so", ""));
    let twelve = machine.cupti("site/nvidia/cuda_cupti/lib/libcupti.so.12", 28);
    let thirteen = machine.cupti("site/nvidia/cu13/lib/libcupti.so.13", 130_001);
    machine.assert_found("BesideCuda", 130_001, &thirteen);

    let mut old_driver = Machine::new(Some(12_040));
    old_driver.map(machine.mapped[1].clone());
    old_driver.assert_found("BesideCuda", 28, &twelve);
}

#[test]
fn the_linkers_path_comes_before_the_toolkit() {
    let mut machine = Machine::new(Some(13_000));
    let toolkit = machine.cupti("cuda/extras/CUPTI/lib64/libcupti.so.13", 130_001);
    machine.set("CUDA_HOME", machine.path("cuda"));
    if machine.load().starts_with("Toolkit") {
        machine.assert_found("Toolkit", 130_001, &toolkit);
    }
    let linked = machine.cupti("ld/libcupti.so.13", 130_101);
    machine.set("LD_LIBRARY_PATH", machine.path("ld"));
    machine.assert_found("LinkerPath", 130_101, &linked);
}

#[test]
fn versions_out_of_range_are_refused() {
    for (version, refusal) in [(21, "TooOld"), (140_000, "TooNew")] {
        let mut machine = Machine::new(Some(13_000));
        machine.set(PREFERRED, machine.cupti("libcupti.so.13", version));
        let result = machine.load();
        assert!(
            result.starts_with(refusal) && result.contains(&version.to_string()),
            "{result}"
        );
    }
    for version in [22, 139_999] {
        let mut machine = Machine::new(Some(13_000));
        let file = machine.cupti("libcupti.so.13", version);
        machine.set(PREFERRED, &file);
        machine.assert_found("Preferred", version, &file);
    }
}

#[test]
fn a_mapped_copy_that_is_too_old_is_an_error_and_no_second_one_is_loaded() {
    let mut machine = Machine::new(Some(13_000));
    machine.map(machine.cupti("old/libcupti.so.12", 20));
    machine.set(PREFERRED, machine.cupti("mine/libcupti.so.13", 130_001));
    assert!(machine.load().starts_with("TooOld"));
}

#[test]
fn a_search_goes_on_after_a_refusal_and_else_reports_it() {
    let mut machine = Machine::new(Some(13_000));
    machine.map(machine.runtime("a/lib/libcudart.so.13"));
    machine.build(
        "a/lib/libcupti.so.13",
        "int cuptiGetVersion(unsigned *v) { return 15; }",
    );
    let result = machine.load();
    // A machine with a CUPTI of its own finds that one.
    let system = result.starts_with("LinkerPath") || result.starts_with("Toolkit");
    assert!(
        system || (result.starts_with("Broken {") && result.contains("code: 15")),
        "{result}"
    );
    let good = machine.cupti("a/extras/CUPTI/lib64/libcupti.so.13", 130_001);
    machine.assert_found("BesideCuda", 130_001, &good);
}

#[test]
fn a_driver_before_cuda_12_is_an_error() {
    let machine = Machine::new(Some(11_080));
    assert_eq!(machine.load(), "DriverTooOld { driver: 11 }");
}
