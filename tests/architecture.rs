//! The rules of docs/architecture.md that the compiler does not know: who may use whom, what the guest may link, what
//! code inside someone else's process may not do.

#![allow(missing_docs, reason = "a test is its own documentation")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every crate that is linked into the host's process, and why.
const GUEST_CRATES: [(&str, &str); 46] = [
    ("ahash", "parquet and arrow-array: hash maps"),
    ("arrow-array", "the rows of a segment as columns"),
    ("arrow-buffer", "the memory of those columns"),
    ("arrow-cmp", "arrow-select"),
    ("arrow-data", "arrow-array"),
    ("arrow-ipc", "parquet: the Arrow schema in a file's footer"),
    ("arrow-schema", "the types of a table's columns"),
    ("arrow-select", "parquet: cutting columns into row groups"),
    ("base64", "parquet: the Arrow schema in a file's footer"),
    ("bitflags", "flatbuffers"),
    ("bytes", "pages that were encoded before parquet takes them"),
    ("cfg-if", "libc's and others' choice of platform"),
    ("chrono", "arrow-array: dates, of which we have none"),
    ("colonel", "`inject` and `schema`, without the feature `cli`"),
    ("colonel-guest", "the library itself"),
    ("cpp_demangle", "kernel names"),
    ("crossbeam-channel", "buffers from CUPTI's callback to the writer"),
    ("crossbeam-utils", "crossbeam-channel"),
    ("cupti-sys", "CUPTI's records and functions"),
    ("flatbuffers", "arrow-ipc"),
    ("getrandom", "ahash: its seed"),
    ("half", "arrow-array and parquet: 16-bit floats, of which we have none"),
    ("hashbrown", "parquet's dictionaries"),
    ("iana-time-zone", "chrono"),
    ("itoa", "serde_json: numbers"),
    ("libc", "system calls"),
    ("libloading", "the functions of libcupti and libcuda"),
    ("libm", "num-traits"),
    ("memchr", "serde_json"),
    ("num-bigint", "parquet and arrow-buffer: decimals"),
    ("num-complex", "arrow-array"),
    ("num-integer", "arrow-data: decimals"),
    ("num-traits", "arrow-array"),
    ("once_cell", "ahash: its seed"),
    ("parquet", "the files on disk"),
    ("serde", "process file, control protocol"),
    ("serde_core", "serde"),
    ("serde_json", "process file, control protocol"),
    ("thiserror", "error types of cupti-sys"),
    ("twox-hash", "parquet: bloom filters, of which we write none"),
    ("wildmatch", "patterns of `--gate nvtx:NAME`"),
    ("zerocopy", "half and ahash"),
    ("zmij", "serde_json: floats"),
    ("zstd", "compressed pages"),
    ("zstd-safe", "zstd"),
    ("zstd-sys", "zstd, in C and with hidden symbols"),
];

/// Modules of the library that each of them may use.
const MAY_USE: [(&str, &[&str]); 11] = [
    ("schema", &[]),
    ("inject", &["schema"]),
    ("session", &["schema"]),
    ("ingest", &["schema", "session"]),
    ("counters", &["schema", "session"]),
    ("run", &["schema", "session", "ingest", "counters"]),
    ("analysis", &["schema", "session"]),
    ("report", &["schema", "session", "run", "analysis"]),
    ("query", &["schema", "session"]),
    ("export", &["schema", "session"]),
    (
        "cli",
        &[
            "schema", "session", "ingest", "counters", "run", "analysis", "report", "query", "export",
        ],
    ),
];

/// What code in the host's process does not do, and what would happen.
const NOT_IN_THE_HOST: [(&str, &str); 14] = [
    (".unwrap()", "a panic where an error could be told"),
    (".expect(", "a panic where an error could be told"),
    ("panic!(", "a panic"),
    ("unreachable!(", "a panic"),
    ("todo!(", "a panic"),
    ("unimplemented!(", "a panic"),
    ("println!", "a line on the host's stdout"),
    ("eprintln!", "a line on the host's stderr that nobody asked for"),
    ("set_var(", "a change of the host's environment"),
    ("set_current_dir(", "a change of the host's folder"),
    ("sigaction(", "a change of the host's signal handlers"),
    ("global_allocator", "memory of another allocator in the host"),
    ("link_section", "code that runs when the library is loaded"),
    ("RTLD_NEXT", "null where Python loaded the runtime locally"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    assert!(!files.is_empty(), "no Rust in `{}`", folder.display());
    files
}

/// The code of a file, without comments and without its unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Modules of this crate that a file names, by `crate::NAME` in a path or in a list.
fn modules_named(code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let list = rest
            .strip_prefix('{')
            .map(|rest| rest.split('}').next().unwrap_or_default());
        for path in list
            .unwrap_or(rest)
            .split(',')
            .take(if list.is_some() { usize::MAX } else { 1 })
        {
            let name: String = path
                .trim()
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect();
            named.insert(name);
        }
    }
    named
}

#[test]
fn modules_are_found_in_paths_and_lists() {
    let named = modules_named("use crate::schema::env;\nuse crate::{session::Session, run};\nlet x = crate::VERSION;");
    assert_eq!(named, ["", "run", "schema", "session"].map(String::from).into());
}

#[test]
fn each_room_uses_only_those_below_it() {
    let rooms: BTreeMap<&str, &[&str]> = MAY_USE.into();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        let room = folder.file_name().unwrap().to_str().unwrap();
        let allowed = rooms
            .get(room)
            .unwrap_or_else(|| panic!("`src/{room}` is a new room: who may use it, and whom?"));
        for file in rust_files(&folder) {
            for module in modules_named(&code(&file)) {
                let is_room = root().join("src").join(&module).is_dir() && !module.is_empty();
                assert!(
                    !is_room || module == room || allowed.contains(&module.as_str()),
                    "`{}` uses `{module}`; `{room}` may use {allowed:?}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn cupti_is_touched_by_the_guest_and_the_evaluation_and_asked_after_by_doctor() {
    for file in rust_files(&root().join("src")) {
        if code(&file).contains("cupti_sys") {
            let path = file.strip_prefix(root().join("src")).unwrap();
            assert!(
                path.starts_with("inject")
                    || path.starts_with("counters")
                    || path.display().to_string().contains("doctor"),
                "`{}` uses cupti-sys",
                path.display()
            );
        }
    }
}

#[test]
fn cupti_sys_and_gpu_sim_know_nothing_of_colonel() {
    for manifest in [
        "cupti-sys",
        "gpu-sim/abi",
        "gpu-sim/cuda",
        "gpu-sim/cudart",
        "gpu-sim/cupti",
        "gpu-sim/workload",
    ] {
        let text = fs::read_to_string(root().join(manifest).join("Cargo.toml")).unwrap();
        assert!(!text.lines().any(|line| line.starts_with("colonel")), "{manifest}");
    }
}

#[test]
fn code_in_the_host_does_none_of_these() {
    let mut files = rust_files(&root().join("src/inject"));
    files.extend(rust_files(&root().join("guest/src")));
    for file in files {
        let code = code(&file);
        for (word, why) in NOT_IN_THE_HOST {
            assert!(!code.contains(word), "`{word}` in `{}`: {why}", file.display());
        }
    }
}

#[test]
fn every_entry_point_of_the_guest_is_guarded() {
    let entry = code(&root().join("src/inject/entry.rs"));
    let entry = entry.replace("\npub unsafe fn ", "\npub fn ");
    let functions: Vec<&str> = entry.split("\npub fn ").skip(1).collect();
    assert_eq!(functions.len(), 8, "one an exported symbol");
    for function in functions {
        let body = function.split("\n}").next().unwrap();
        assert!(body.contains("guard::ffi("), "{body}");
    }
    for file in rust_files(&root().join("src/inject")) {
        for function in code(&file).split("extern \"C\" fn ").skip(1) {
            let body = function.split("\n}").next().unwrap();
            let is_type = !body.split(';').next().unwrap().contains('{');
            // Two atomics: nothing in it can panic.
            let is_fork = body.starts_with("after_fork_in_child");
            assert!(
                is_type || is_fork || body.contains("guard::ffi("),
                "`{}`: {body}",
                file.display()
            );
        }
    }
}

#[test]
fn the_guest_links_these_crates_and_no_other() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", "colonel-guest", "--edges", "normal,no-proc-macro"])
        .args([
            "--prefix",
            "none",
            "--no-dedupe",
            "--offline",
            "--locked",
            "--format",
            "{p}",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let linked: BTreeSet<&str> = stdout.lines().filter_map(|line| line.split(' ').next()).collect();
    let known: BTreeSet<&str> = GUEST_CRATES.into_iter().map(|(name, _)| name).collect();
    let new: Vec<_> = linked.difference(&known).collect();
    assert!(new.is_empty(), "linked into every host from now on, and why? {new:?}");
    let gone: Vec<_> = known.difference(&linked).collect();
    assert!(gone.is_empty(), "no longer linked: {gone:?}");
}

#[test]
fn no_profile_aborts_on_panic() {
    for path in ["Cargo.toml", "guest/Cargo.toml"] {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let code = text.lines().map(|line| line.split('#').next().unwrap());
        let aborts = code.filter(|line| line.contains("panic") && line.contains("abort"));
        assert_eq!(
            aborts.count(),
            0,
            "`{path}`: a panic in the guest must unwind to its guard"
        );
    }
    assert!(!root().join(".cargo/config.toml").exists(), "it could set the same");
}
