//! Disks that fill up, folders that go away: the program runs on, and what was lost is said.

use std::fs;
use std::path::Path;
use std::time::Duration;

use colonel::schema::manifest::{PROCESSES_DIR, Progress};

use crate::run::decode;

#[test]
fn a_session_folder_that_is_removed_meanwhile_ends_the_capture_and_nothing_else() {
    let mut running = decode("--steps 700 --kernels 24 --step-us 4000 --code 9").start();
    running.process("rows are on disk", |process| process.rows.contains_key("kernels"));
    let path = running.session().path().to_owned();
    fs::remove_dir_all(&path).unwrap();
    // The guest may have been making a file just then.
    std::thread::sleep(Duration::from_millis(50));
    let _ = fs::remove_dir_all(&path);
    let ended = running.end().assert_code(9);
    assert_eq!(ended.count().kernels, 700 * 24);
    assert!(ended.stderr().contains("was removed while"), "{}", ended.stderr());
    assert!(!path.exists(), "and is not made anew");
}

#[test]
fn a_full_disk_loses_rows_and_says_how_many() {
    let script = r#"colonel=$1; shift
        mkdir disk && mount -t tmpfs -o size=256k none disk && mkdir -p .colonel && ln -s "$PWD/disk" .colonel/sessions &&
        "$colonel" run --sim --no-analyze -- "$@"; code=$?; rm .colonel/sessions; cp -r disk .colonel/sessions; exit $code"#;
    // Far more segments than the disk holds.
    let line = "--steps 1500 --kernels 48 --step-us 3000 --code 4 --threads 4";
    let Some(ended) = decode(line).run_unshared(script) else {
        return;
    };
    let ended = ended.assert_code(4);
    assert!(ended.stderr().contains("No space left on device"), "{}", ended.stderr());
    // With room again, the reader finds what was written before, and what was lost is counted.
    let opened = colonel::session::Session::load(ended.session().path()).unwrap();
    let rows = opened.rows("kernels");
    assert!(rows > 0);
    let launched = ended.count().kernels;
    let losses = &opened.manifest().losses;
    let lost: Vec<u64> = losses
        .iter()
        .filter(|loss| loss.kind == "kernels")
        .filter_map(|loss| loss.count)
        .collect();
    assert!(!lost.is_empty(), "{losses:?}");
    // After some failures the guest turns itself off, and what runs from then on is nobody's: so all that came to it.
    let received = received_kernels(ended.session().path());
    assert_eq!(rows + lost.iter().sum::<u64>(), received, "{rows} rows and {losses:?}");
    assert!(received <= launched);
    let unknown = losses.iter().any(|loss| loss.count.is_none()) || !opened.manifest().problems.is_empty();
    assert!(
        received == launched || unknown,
        "{received} of {launched}, and nothing says so"
    );
}

/// Kernels that came to the guests of a session, by their progress files.
fn received_kernels(session: &Path) -> u64 {
    let entries = fs::read_dir(session.join(PROCESSES_DIR)).unwrap();
    let files = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "progress"));
    files
        .map(|path| {
            serde_json::from_slice::<Progress>(&fs::read(path).unwrap())
                .unwrap()
                .received["kernels"]
        })
        .sum()
}

#[test]
fn process_files_that_can_not_be_written_cost_no_row() {
    let script = r#"colonel=$1; shift
        "$colonel" run --sim -- sh -c 'mount --bind "$COLONEL_SESSION/processes" "$COLONEL_SESSION/processes" &&
            mount -o remount,bind,ro "$COLONEL_SESSION/processes" && exec "$@"' sh "$@""#;
    let Some(ended) = decode("--steps 20 --kernels 24 --code 8").run_unshared(script) else {
        return;
    };
    let ended = ended.assert_code(8);
    let session = ended.session();
    assert_eq!(session.count("kernels"), ended.count().kernels);
    assert!(
        session
            .problem("process_file_missing")
            .contains("its losses are unknown")
    );
}

#[test]
fn a_read_only_session_loses_all_rows_and_stops_nothing() {
    let script = r#"colonel=$1; shift
        "$colonel" run --sim -- sh -c 'mount --bind "$COLONEL_SESSION" "$COLONEL_SESSION" &&
            mount -o remount,bind,ro "$COLONEL_SESSION" && exec "$@"' sh "$@""#;
    let Some(ended) = decode("--steps 20 --kernels 24 --code 8").run_unshared(script) else {
        return;
    };
    let ended = ended.assert_code(8);
    assert_eq!(ended.count().kernels, 480);
    assert!(ended.stderr().contains("ead-only file system"), "{}", ended.stderr());
}
