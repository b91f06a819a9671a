//! `colonel query` and `colonel tables` where no DuckDB is needed: the views, what a DuckDB is given, and errors. What a
//! real one answers is tested in tests/python/test_query.py.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use colonel::schema::columns::TableBuilder as _;
use colonel::schema::manifest::Loss;
use colonel::schema::tables::KernelsBuilder;
use colonel::session::synthetic::{SyntheticGuest, kernel};
use colonel::session::{NewSession, SessionWriter, SessionsDir};

/// A session of one kernel that lost two, under a fixed id.
fn session(folder: &Path, id: &str) {
    let dir = SessionsDir::resolve(Some(folder)).unwrap();
    let mut writer = SessionWriter::create(&dir, NewSession::default()).unwrap();
    let mut guest = SyntheticGuest::new(writer.path(), 7);
    let mut kernels = KernelsBuilder::default();
    kernels.push(kernel(7, "it's", 1_000, 500));
    guest.seal(&mut kernels).unwrap();
    guest.process.losses.push(Loss {
        pid: Some(7),
        kind: "kernels".to_owned(),
        reason: "dropped_by_cupti".to_owned(),
        count: Some(2),
        first_ns: 1,
        last_ns: 2,
    });
    guest.end(2_000).unwrap();
    writer.seal(None, &mut |_, _, _| {}).unwrap();
    writer.manifest_mut().id = id.to_owned();
    writer.write().unwrap();
    fs::rename(writer.path(), folder.join(id)).unwrap();
}

/// Runs with nothing on the PATH but what lies in the folder.
fn colonel(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_colonel"))
        .args(args)
        .env("COLONEL_SESSIONS_DIR", folder)
        .env("PATH", folder)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn words(folder: &Path, args: &[&str]) -> String {
    let output = colonel(folder, args);
    let text = format!(
        "exit {}\n--- stdout\n{}--- stderr\n{}",
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap()
    );
    text.replace(folder.to_str().unwrap(), "SESSIONS")
}

/// A `duckdb` that keeps what it is given.
fn fake_duckdb(folder: &Path, ends: &str) {
    let program = folder.join("duckdb");
    let text = format!("#!/bin/sh\nPATH=/usr/bin:/bin\necho \"$@\" >options\ncat >given\n{ends}\n");
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn without_duckdb_the_whole_query_is_told() {
    let folder = tempfile::tempdir().unwrap();
    session(folder.path(), "0000aaaa");
    let sql = "SELECT count(*) FROM kernels";
    let told = words(folder.path(), &["query", sql]);
    assert!(told.starts_with("exit 1\n--- stdout\n--- stderr\n"), "{told}");
    assert!(told.contains("pip install duckdb"), "{told}");
    let printed = words(folder.path(), &["query", "--print-sql", sql]);
    let views = printed
        .split_once("--- stdout\n")
        .unwrap()
        .1
        .split_once("--- stderr")
        .unwrap()
        .0;
    assert!(told.contains(views), "{told}");
    assert!(views.ends_with(&format!("{sql}\n")), "{views}");
    let kernels = "FROM read_parquet(['SESSIONS/0000aaaa/kernels/7-1/000001.parquet'], union_by_name = true)";
    assert!(views.contains(kernels), "{views}");
    assert!(
        views.contains("('0000aaaa', 7, 'kernels', 'dropped_by_cupti', 2, 1, 2)"),
        "{views}"
    );
    assert!(printed.contains("is not compacted"), "{printed}");
}

#[test]
fn a_duckdb_on_the_path_is_given_the_views_and_the_query() {
    let folder = tempfile::tempdir().unwrap();
    session(folder.path(), "0000aaaa");
    session(folder.path(), "0000bbbb");
    fake_duckdb(folder.path(), "printf 'session,n\\n0000aaaa,1\\n0000bbbb,NULL\\n'");
    let sql = "SELECT session, count(*) AS n FROM kernels GROUP BY ALL";
    let told = words(folder.path(), &["query", "0000a", "0000b", sql]);
    let table = "exit 0\n--- stdout\nsession      n\n0000aaaa     1\n0000bbbb  NULL\n";
    assert!(told.starts_with(table), "{told}");
    let given = fs::read_to_string(folder.path().join("given")).unwrap();
    assert!(given.ends_with(&format!("{sql}\n;\n")), "{given}");
    for id in ["0000aaaa", "0000bbbb"] {
        assert!(given.contains(&format!("SELECT '{id}' AS session, *")), "{given}");
    }
    let options = fs::read_to_string(folder.path().join("options")).unwrap();
    assert!(options.contains("-csv -nullvalue NULL"), "{options}");

    let told = words(folder.path(), &["query", "latest", sql, "-o", "out.csv"]);
    assert!(told.ends_with("colonel: wrote `out.csv`\n"), "{told}");
    let told = words(folder.path(), &["query", "latest", sql, "-o", "out.csv"]);
    assert!(
        told.contains("exit 1\n") && told.contains("`out.csv` is there already; `--force`"),
        "{told}"
    );
    assert!(words(folder.path(), &["query", sql, "--limit", "1"]).contains("these are the first 1 rows"));
}

#[test]
fn a_query_that_fails_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    session(folder.path(), "0000aaaa");
    fake_duckdb(folder.path(), "echo 'Parser Error' >&2; exit 1");
    for format in ["table", "csv", "json", "parquet"] {
        let told = words(
            folder.path(),
            &["query", "SELEC 1 FROM x", "-o", "out", "--format", format],
        );
        assert!(told.starts_with("exit 1\n--- stdout\n--- stderr\n"), "{told}");
        assert!(told.ends_with("Parser Error\n"), "{told}");
    }
    let left = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().contains("out")));
    fake_duckdb(folder.path(), "kill -9 $$");
    assert!(words(folder.path(), &["query", "SELECT 1"]).contains("DuckDB was ended by signal 9"));
}

#[test]
fn bad_words_are_told() {
    let folder = tempfile::tempdir().unwrap();
    session(folder.path(), "0000aaaa");
    for (args, code, expected) in [
        (&["query", "latest"][..], 1, "`latest` is no query"),
        (&["query", "ffff", "SELECT 1"], 1, "no session `ffff`"),
        (&["query", "SELECT 1", "--format", "xml"], 2, "invalid value 'xml'"),
        (&["query", "SELECT 1", "--format", "parquet"], 1, "give -o FILE.parquet"),
        (&["query", "SELECT 1", "-o", "out"], 1, "what is in `out`?"),
        (&["query"], 2, "required"),
        (
            &["tables", "kernel"],
            1,
            "there is no table `kernel`; there are kernels, counters, kernel_counters, memcpys",
        ),
    ] {
        let told = words(folder.path(), args);
        assert!(told.starts_with(&format!("exit {code}\n")), "{args:?}: {told}");
        assert!(told.contains(expected), "{args:?}: {told}");
    }
}

#[test]
fn tables_come_with_types_and_units() {
    let folder = tempfile::tempdir().unwrap();
    insta::assert_snapshot!("tables_devices", words(folder.path(), &["tables", "devices"]));
    let all = colonel(folder.path(), &["tables", "--json"]).stdout;
    let all: serde_json::Value = serde_json::from_slice(&all).unwrap();
    let names: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|table| table["name"].as_str().unwrap())
        .collect();
    let defined: Vec<_> = colonel::schema::tables::all().iter().map(|table| table.name).collect();
    assert_eq!(names, defined);
}
