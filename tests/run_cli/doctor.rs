//! `colonel doctor` on this machine, whatever it has.

use crate::support::{Workplace, assert_code, stdout};

#[test]
fn what_it_says_agrees_with_its_exit_code() {
    let place = Workplace::new();
    let output = place.colonel().args(["doctor", "--json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let works = json["capture"] != "nothing";
    assert_code(&output, i32::from(!works));
    let names: Vec<&str> = json["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(names[..6], ["GPU", "CUPTI", "counters", "guest", "gpu-sim", "sessions"]);
    let missing = json["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["status"] == "missing");
    for check in missing {
        assert_ne!(check["found"][0], "", "{check}");
    }
    assert!(!place.path().join(".colonel").exists(), "looking makes nothing");
}

#[test]
fn without_its_guest_nothing_works_and_the_place_is_named() {
    let place = Workplace::new();
    let output = place
        .colonel()
        .env("COLONEL_GUEST", "nowhere.so")
        .arg("doctor")
        .output()
        .unwrap();
    assert_code(&output, 1);
    let said = stdout(&output);
    assert!(
        said.contains("! guest     failed to find the guest library; looked at `nowhere.so`"),
        "{said}"
    );
    assert!(
        said.ends_with("capture does not work here: see what is marked with `!`\n"),
        "{said}"
    );
}

#[test]
fn a_python_that_hangs_does_not_hold_it_up() {
    let place = Workplace::new();
    place.write("python3", "#!/bin/sh\nexec sleep 600\n", 0o755);
    let started = std::time::Instant::now();
    let path = format!("{}:/usr/bin:/bin", place.path().display());
    let output = place.colonel().env("PATH", path).arg("doctor").output().unwrap();
    assert!(
        stdout(&output).contains("- python    no python3 on the PATH that answers"),
        "{}",
        stdout(&output)
    );
    assert!(started.elapsed() < std::time::Duration::from_secs(30));
}
