//! `colonel doctor` on this machine, whatever it has.

use crate::support::{Workplace, assert_code, compile, stdout};

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

/// NVML and libcuda of a machine with two GPUs, as far as the doctor asks.
fn fake_driver() -> std::path::PathBuf {
    const NVML: &str = r#"
        #include <string.h>
        int nvmlInit_v2(void) { return 0; }
        int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "580.82.07", length); return 0; }
        int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13000; return 0; }
        int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
        int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(long)(index + 1); return 0; }
        int nvmlDeviceGetName(void *device, char *text, unsigned length) {
            strncpy(text, "NVIDIA H100 80GB HBM3", length);
            return device == (void *)1 || device == (void *)2 ? 0 : 2;
        }
        int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
            *major = 9; *minor = 0;
            return 0;
        }
    "#;
    // cuInit would be a mistake: the test below sees it.
    const CUDA: &str = r#"
        #include <stdlib.h>
        int cuInit(unsigned flags) { abort(); }
        int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
    "#;
    let nvml = compile("libnvidia-ml.so.1", NVML, &["-shared", "-fPIC"]);
    compile("libcuda.so.1", CUDA, &["-shared", "-fPIC"]);
    nvml.parent().unwrap().to_owned()
}

#[test]
fn the_driver_is_asked_without_starting_cuda() {
    let place = Workplace::new();
    let mut command = place.colonel();
    let command = command
        .env("LD_LIBRARY_PATH", fake_driver())
        .env_remove("CUDA_VISIBLE_DEVICES");
    let said = stdout(&command.arg("doctor").output().unwrap());
    assert!(
        said.contains("  GPU       2 x NVIDIA H100 80GB HBM3 (sm_90)\n"),
        "{said}"
    );
    assert!(said.contains("            driver 580.82.07, CUDA 13.0\n"), "{said}");

    let mut command = place.colonel();
    let command = command
        .env("LD_LIBRARY_PATH", fake_driver())
        .env("CUDA_VISIBLE_DEVICES", "");
    let said = stdout(&command.arg("doctor").output().unwrap());
    assert!(said.contains("! GPU       2 GPUs hidden from programs\n"), "{said}");
}

#[test]
fn the_libcupti_of_the_python_on_the_path_is_found() {
    let place = Workplace::new();
    let site = place.path().join("site");
    let lib = site.join("nvidia/cu13/lib");
    std::fs::create_dir_all(&lib).unwrap();
    std::fs::create_dir_all(site.join("nvidia_cuda_cupti-13.0.85.dist-info")).unwrap();
    std::fs::write(lib.join("libcupti.so.13"), "").unwrap();
    place.write("python3", &format!("#!/bin/sh\necho {}\n", site.display()), 0o755);

    let mut command = place.colonel();
    let command = command
        .env("LD_LIBRARY_PATH", fake_driver())
        .env("PATH", format!("{}:/usr/bin:/bin", place.path().display()))
        .env_remove("COLONEL_CUPTI")
        .env_remove("CUDA_VISIBLE_DEVICES");
    let output = command.arg("doctor").output().unwrap();
    assert_code(&output, 0);
    let said = stdout(&output);
    let line = format!(
        "  CUPTI     {}/libcupti.so.13  13.0.85  used by programs of this python3\n",
        lib.display()
    );
    assert!(said.contains(&line), "{said}");
    assert!(said.ends_with("capture works here: colonel run -- CMD\n"), "{said}");
}
