//! Programs with two CUDA runtimes, as when one library was built for CUDA 12 and another for 13: a call reaches the
//! runtime of who makes it. The runtimes are of C and only say who they are (tests/guest/hosts/runtime.c).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Ended, Setup};

fn cc(source: &str, to: &Path, options: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/guest/hosts")
        .join(source);
    let mut command = Command::new("cc");
    command
        .args(["-O2", "-Wall"])
        .arg("-o")
        .arg(to)
        .arg(&source)
        .args(options);
    let output = command.arg("-ldl").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", source.display());
}

/// `libcudart.so.VERSION`, with symbols of this version as real ones have.
fn runtime(folder: &Path, version: &str) {
    let soname = format!("libcudart.so.{version}");
    let script = folder.join("script");
    fs::write(&script, format!("{soname} {{ global: *; }};\n")).unwrap();
    let options = [
        "-shared",
        "-fPIC",
        &format!("-DRUNTIME=\"{version}\""),
        &format!("-Wl,-soname,{soname}"),
        &format!("-Wl,--version-script,{}", script.display()),
    ];
    cc("runtime.c", &folder.join(&soname), &options);
}

/// Linked against this runtime, or against none.
fn caller(folder: &Path, name: &str, version: Option<&str>, more: &[&str]) -> PathBuf {
    let (file, place) = (folder.join(name), format!("-L{}", folder.display()));
    let library = version.map(|version| format!("-l:libcudart.so.{version}"));
    let mut options = vec!["-Wl,--no-as-needed", place.as_str()];
    options.push(library.as_deref().unwrap_or("-DUNLINKED"));
    options.extend(more);
    cc("caller.c", &file, &options);
    file
}

/// A program of CUDA 13 with plugins of these runtimes.
fn program(options: &str, plugins: &[Option<&str>]) -> Setup {
    let mut setup = Setup::new([""; 0]).options(options);
    let folder = setup.path().to_owned();
    ["12", "13"].iter().for_each(|version| runtime(&folder, version));
    setup.word(caller(&folder, "host", Some("13"), &["-fPIE", "-pie"]));
    for (version, number) in plugins.iter().zip(0..) {
        let plugin = caller(
            &folder,
            &format!("{number}.so"),
            *version,
            &["-shared", "-fPIC", "-DPLUGIN"],
        );
        setup.word(plugin);
    }
    setup.libraries(&folder)
}

fn said(versions: &[&str]) -> String {
    let calls = ["cudaProfilerStart", "cudaGraphDestroy", "cudaProfilerStop"];
    let lines = versions
        .iter()
        .flat_map(|version| calls.map(|call| format!("{call} of {version}\n")));
    lines.collect()
}

#[track_caller]
fn assert_calls(options: &str, plugins: &[Option<&str>], versions: &[&str]) -> Ended {
    let ended = program(options, plugins).run().assert_code(0);
    assert_eq!(ended.stdout(), said(versions));
    ended
}

#[test]
fn a_call_reaches_the_runtime_that_its_caller_was_linked_against() {
    for options in ["--gate profiler", "--gate profiler --trace nvtx"] {
        let ended = assert_calls(options, &[Some("12")], &["13", "12", "13"]);
        assert!(
            ended.session().problems().is_empty(),
            "{:?}",
            ended.session().problems()
        );
    }
}

#[test]
fn finding_the_way_of_a_call_allocates_nothing() {
    let mut setup = Setup::new([""; 0]).options("--gate profiler --trace nvtx");
    let folder = setup.path().to_owned();
    ["12", "13"].iter().for_each(|version| runtime(&folder, version));
    let (program, place) = (folder.join("host"), format!("-L{}", folder.display()));
    cc("allocations.c", &program, &[&place, "-l:libcudart.so.13"]);
    setup.word(program);
    for (name, version) in [("none.so", None), ("other.so", Some("12"))] {
        setup.word(caller(&folder, name, version, &["-shared", "-fPIC", "-DPLUGIN"]));
    }
    let ended = setup.libraries(&folder).run().assert_code(0);
    let said = ended.stdout();
    let counts: Vec<&str> = said.lines().filter(|line| line.contains("allocations")).collect();
    let expected = ["again", "after a dlopen", "with a second runtime"];
    assert_eq!(counts, expected.map(|when| format!("0 allocations {when}")));
}

#[test]
fn with_one_runtime_every_call_is_for_it() {
    assert_calls("--gate profiler", &[Some("13"), None], &["13"; 5]);
}

#[test]
fn a_call_that_belongs_to_no_runtime_is_passed_on_and_told() {
    let ended = assert_calls("--gate profiler", &[Some("12"), None], &["13", "12", "13", "13", "13"]);
    let message = ended.session().problem("several_cuda_runtimes");
    assert!(message.contains("libcudart.so.12"), "{message}");
    assert!(
        message.contains("3 calls came from code that was linked against none"),
        "{message}"
    );
}
