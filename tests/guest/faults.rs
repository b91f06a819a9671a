//! CUPTI that can't be had: the program runs on as without us, and the session says why in words for its reader.

use std::fs;
use std::path::Path;

use colonel::schema::manifest::ProcessState;

use crate::run::{Ended, Setup, decode, stand_ins, target};

fn workload() -> Setup {
    decode("--steps 10 --kernels 20 --windows 2 --code 6")
}

/// The program ran, no kernel was taken, and the reason is named in the session and at the end of the run.
#[track_caller]
fn assert_said(ended: Ended, code: &str, parts: &[&str]) {
    let ended = ended.assert_code(6);
    assert_eq!(ended.count().kernels_in_windows, 400);
    let session = ended.session();
    assert_eq!(session.count("kernels"), 0);
    let message = session.problem(code);
    for part in parts {
        assert!(message.contains(part), "no `{part}` in {message}");
    }
    assert_eq!(session.process().state, ProcessState::Off);
    assert_eq!(session.process().control, None);
    assert!(ended.stderr().contains(&message), "{}", ended.stderr());
}

#[test]
fn another_subscriber_is_said_at_every_cupti() {
    for version in ["12.9", "13.0", "13.5"] {
        let ended = workload().cupti(version).fault("subscribe=39").run();
        assert_said(
            ended,
            "other_subscriber",
            &["another profiler holds CUPTI", "torch.profiler, nsys, ncu"],
        );
    }
}

#[test]
fn another_subscriber_is_said_when_a_window_opens_too() {
    let ended = workload().options("--gate profiler").fault("subscribe=39").run();
    assert_said(ended, "other_subscriber", &["another profiler"]);
}

#[test]
fn another_subscriber_is_said_under_the_callback_gate_too() {
    let setup = workload().options("--gate profiler --gate-by callback");
    assert_said(
        setup.fault("subscribe=39").run(),
        "other_subscriber",
        &["another profiler"],
    );
}

#[test]
fn a_cupti_newer_than_the_driver_is_named() {
    let ended = workload().fault("enable=15").run();
    assert_said(
        ended,
        "cupti_not_initialized",
        &["status 15", "newer than the driver", "COLONEL_CUPTI"],
    );
}

#[test]
fn a_missing_permission_comes_with_its_remedy() {
    let ended = workload().fault("enable=35").run();
    assert_said(ended, "no_permission", &["NVreg_RestrictProfilingToAdminUsers=0"]);
}

#[test]
fn buffers_that_can_not_be_registered_are_an_error_with_its_name() {
    let ended = workload().fault("register=7").run();
    assert_said(ended, "cupti_error", &["cuptiActivityRegisterCallbacks", "7"]);
}

#[test]
fn a_cupti_that_is_too_old_is_named() {
    let ended = workload().fault("old").run();
    assert_said(ended, "no_cupti", &["too old", "API version 18", "12.4"]);
}

#[test]
fn a_cupti_of_a_later_major_is_named() {
    let ended = workload().fault("major=14").run();
    assert_said(ended, "no_cupti", &["too new", "140000"]);
}

/// The stand-ins without libcupti.
fn without_cupti(setup: Setup) -> (Setup, std::path::PathBuf) {
    let folder = stand_ins(setup.path());
    fs::remove_file(folder.join("libcupti.so.13")).unwrap();
    (setup.libraries(&folder), folder)
}

#[test]
fn no_libcupti_is_said_with_how_to_get_it() {
    let (setup, _) = without_cupti(workload());
    assert_said(
        setup.run(),
        "no_cupti",
        &["no libcupti found", "`libcupti.so.13`", "pip install nvidia-cuda-cupti"],
    );
}

#[test]
fn a_libcupti_of_a_wrong_major_alone_is_not_taken() {
    let (setup, folder) = without_cupti(workload());
    link_cupti(&folder.join("libcupti.so.11"));
    assert_said(setup.run(), "no_cupti", &["no libcupti found"]);
}

fn link_cupti(name: &Path) {
    std::os::unix::fs::symlink(target().join("libsim_cupti.so"), name).unwrap();
}

#[test]
fn a_libcupti_that_the_user_names_is_taken() {
    let (setup, folder) = without_cupti(workload());
    let named = folder.join("mine.so");
    link_cupti(&named);
    let ended = setup.env("COLONEL_CUPTI", &named).run().assert_code(6);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(session.count("kernels"), ended.count().kernels);
    let cupti = session.process().cupti.unwrap();
    assert_eq!((cupti.found.as_str(), cupti.path), ("env", named.display().to_string()));
}

#[test]
fn a_libcupti_beside_the_binaries_is_not_taken_for_the_stand_in() {
    // Links can't cross disks, so not in the folder for temporary files.
    let folder = tempfile::tempdir_in(target()).unwrap();
    let link = |from: &str, to: &str| fs::hard_link(target().join(from), folder.path().join(to)).unwrap();
    let ours = ["colonel", "colonel-sim", "libcolonel_guest.so"];
    let stand_ins = ["libsim_cuda.so", "libsim_cudart.so", "libsim_cupti.so"];
    ours.into_iter().chain(stand_ins).for_each(|file| link(file, file));
    let wheel = folder.path().join("nvidia/cu13/lib");
    fs::create_dir_all(&wheel).unwrap();
    fs::write(wheel.join("libcupti.so.13"), "a real one, which is no stand-in").unwrap();

    let ended = workload().binaries(folder.path()).run().assert_code(6);
    let session = ended.session();
    session.assert_nothing_lost();
    assert_eq!(session.count("kernels"), ended.count().kernels);
    let path = session.process().cupti.unwrap().path;
    assert!(path.ends_with("/sim/libcupti.so.13"), "{path}");
}

#[test]
fn a_libcupti_that_the_user_names_and_that_is_none_is_said() {
    let setup = workload().env("COLONEL_CUPTI", "/nonexistent/libcupti.so");
    assert_said(setup.run(), "no_cupti", &["/nonexistent/libcupti.so"]);
}

#[test]
fn a_setting_that_is_not_understood_is_said_and_takes_nothing() {
    let ended = Setup::new(["env", "COLONEL_GATE=sometimes", "colonel-sim", "decode", "--steps", "2"]).run();
    let ended = ended.assert_code(0);
    let session = ended.session();
    assert!(session.problem("bad_setting").contains("`COLONEL_GATE=sometimes`"));
    assert_eq!(session.count("kernels"), 0);
}
