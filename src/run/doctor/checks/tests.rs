//! The doctor's words, as snapshots, for machines that are not this one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::{CuptiFile, Diagnosis, Driver, Gpu, GpuFacts, Permissions, Places, Python, Tool};
use super::*;

fn cupti_file(path: &str, release: &str) -> CuptiFile {
    CuptiFile {
        path: path.into(),
        major: 13,
        release: Some(release.to_owned()),
        origin: "python",
        refused: None,
        chosen: false,
    }
}

/// A workstation where all is well.
fn facts() -> Facts {
    let mut used = cupti_file(
        "/venv/lib/python3.11/site-packages/nvidia/cu13/lib/libcupti.so.13",
        "13.0.85",
    );
    used.chosen = true;
    let mut old = cupti_file("/usr/local/cuda-12.2/extras/CUPTI/lib64/libcupti.so.12", "2023.2.2");
    old.refused = Some("older than CUDA 12.4");
    let h100 = Gpu {
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        compute: Some((9, 0)),
    };
    Facts {
        gpu: GpuFacts {
            gpus: vec![h100.clone(), h100],
            driver: Some(Driver {
                release: Some("580.82.07".to_owned()),
                cuda: Some(13_000),
            }),
            libcuda: true,
            on_pci: 2,
            visible: None,
            container: false,
        },
        cupti: vec![used, old],
        permissions: Permissions {
            admin_only: Some(false),
            sys_admin: false,
        },
        places: Places {
            guest: Ok("/opt/colonel/bin/libcolonel_guest.so".into()),
            sim: Ok(vec!["/opt/colonel/bin/libsim_cuda.so".into()]),
            sessions: ".colonel/sessions".into(),
            sessions_refused: None,
            free_bytes: Some(412_000_000_000),
        },
        tools: vec![
            Tool {
                name: "nsys",
                path: Some("/opt/nvidia/nsight-systems/2025.3.1/bin/nsys".into()),
                release: Some("2025.3.1.90-253135822126v0".to_owned()),
                on_path: false,
            },
            Tool {
                name: "ncu",
                path: None,
                release: None,
                on_path: false,
            },
        ],
        python: Some(Python {
            path: "/venv/bin/python3".to_owned(),
            release: "3.11.9".to_owned(),
            packages: BTreeMap::from([
                ("torch".to_owned(), "2.14.0".to_owned()),
                ("vllm".to_owned(), "0.33.0".to_owned()),
            ]),
            vllm_variables: Vec::new(),
        }),
        injection: None,
    }
}

fn rendered(check: &Check) -> String {
    super::super::render_check(check)
}

fn diagnosis(facts: Facts) -> String {
    let mut diagnosis = Diagnosis::new(facts);
    diagnosis.colonel = "VERSION (COMMIT)".to_owned();
    diagnosis.render()
}

#[test]
fn all_is_well() {
    insta::assert_snapshot!(diagnosis(facts()), @r"
    colonel VERSION (COMMIT)
      GPU       2 x NVIDIA H100 80GB HBM3 (sm_90)
                driver 580.82.07, CUDA 13.0
      CUPTI     /venv/lib/python3.11/site-packages/nvidia/cu13/lib/libcupti.so.13  13.0.85  used by programs of this python3
                /usr/local/cuda-12.2/extras/CUPTI/lib64/libcupti.so.12  2023.2.2  not used: older than CUDA 12.4
      counters  hardware counters are open to all users
      guest     /opt/colonel/bin/libcolonel_guest.so
      gpu-sim   /opt/colonel/bin
      sessions  .colonel/sessions  412 GB free
      nsys      /opt/nvidia/nsight-systems/2025.3.1/bin/nsys  2025.3.1.90-253135822126v0  not on the PATH
    - ncu       not found; only `colonel run --evaluator ncu` needs it
      python    /venv/bin/python3  3.11.9  vllm 0.33.0, torch 2.14.0

    capture works here: colonel run -- CMD
    ");
}

#[test]
fn no_gpu() {
    let mut facts = facts();
    facts.gpu = GpuFacts::default();
    assert_eq!(capture(&facts), Capture::Sim);
    insta::assert_snapshot!(diagnosis(facts), @r"
    colonel VERSION (COMMIT)
    ! GPU       no NVIDIA GPU and no driver
                -> run on a machine with an NVIDIA GPU
      CUPTI     /venv/lib/python3.11/site-packages/nvidia/cu13/lib/libcupti.so.13  13.0.85  used by programs of this python3
                /usr/local/cuda-12.2/extras/CUPTI/lib64/libcupti.so.12  2023.2.2  not used: older than CUDA 12.4
    - counters  nothing to ask without a driver
      guest     /opt/colonel/bin/libcolonel_guest.so
      gpu-sim   /opt/colonel/bin
      sessions  .colonel/sessions  412 GB free
      nsys      /opt/nvidia/nsight-systems/2025.3.1/bin/nsys  2025.3.1.90-253135822126v0  not on the PATH
    - ncu       not found; only `colonel run --evaluator ncu` needs it
      python    /venv/bin/python3  3.11.9  vllm 0.33.0, torch 2.14.0

    no capture on a GPU here, as marked with `!`; without one, gpu-sim works: colonel run --sim -- colonel-sim decode
    ");
}

#[test]
fn no_driver_for_the_gpu_and_none_in_the_container() {
    let mut facts = facts();
    facts.gpu = GpuFacts {
        on_pci: 1,
        ..GpuFacts::default()
    };
    insta::assert_snapshot!(rendered(&gpu(&facts)), @r"
    ! GPU       an NVIDIA GPU, but its driver is not loaded
                -> install NVIDIA's driver; if it is installed, `sudo modprobe nvidia` says why it does not load
    ");
    facts.gpu.container = true;
    insta::assert_snapshot!(rendered(&gpu(&facts)), @r"
    ! GPU       no NVIDIA driver reaches into this container
                -> start the container with `--gpus all` (docker, podman) or a GPU request (Kubernetes)
    ");
}

#[test]
fn a_driver_without_libcuda() {
    let mut facts = facts();
    facts.gpu.libcuda = false;
    insta::assert_snapshot!(rendered(&gpu(&facts)), @r"
    ! GPU       driver 580.82.07, but no `libcuda.so.1` for programs
                -> install the driver's CUDA library (Debian: libcuda1, RHEL: nvidia-driver-cuda-libs)
    ");
    facts.gpu.container = true;
    insta::assert_snapshot!(rendered(&gpu(&facts)), @r"
    ! GPU       driver 580.82.07, but no `libcuda.so.1` for programs
                -> start the container with `--gpus all` and NVIDIA_DRIVER_CAPABILITIES=compute,utility
    ");
}

#[test]
fn gpus_hidden_or_none() {
    let mut facts = facts();
    facts.gpu.visible = Some(String::new());
    insta::assert_snapshot!(rendered(&gpu(&facts)), @r"
    ! GPU       2 GPUs hidden from programs
                -> CUDA_VISIBLE_DEVICES is set to nothing: unset it
    ");
    facts.gpu.visible = Some("0".to_owned());
    assert_eq!(gpu(&facts).status, Status::Ok);
    facts.gpu.gpus.clear();
    insta::assert_snapshot!(rendered(&gpu(&facts)), @r"
    ! GPU       driver 580.82.07, but it has no GPU
                -> `nvidia-smi` says what the driver sees
    ");
}

#[test]
fn no_cupti() {
    let mut facts = facts();
    facts.cupti.clear();
    assert_eq!(capture(&facts), Capture::Sim);
    insta::assert_snapshot!(rendered(&cupti(&facts)), @r"
    ! CUPTI     no libcupti found
                -> `pip install nvidia-cuda-cupti` in the program's environment, or name the file in COLONEL_CUPTI
                -> a program that brings CUPTI with it (PyTorch does) is captured with its own
    ");
    facts.gpu.driver = Some(Driver {
        release: None,
        cuda: Some(12_080),
    });
    assert!(
        rendered(&cupti(&facts)).contains("pip install nvidia-cuda-cupti-cu12"),
        "the wheel that fits the driver"
    );
}

#[test]
fn each_program_is_told_which_cupti_it_gets() {
    let mut facts = facts();
    facts.cupti[1].refused = None;
    facts.cupti[1].origin = "toolkit";
    insta::assert_snapshot!(rendered(&cupti(&facts)), @r"
      CUPTI     /venv/lib/python3.11/site-packages/nvidia/cu13/lib/libcupti.so.13  13.0.85  used by programs of this python3
                /usr/local/cuda-12.2/extras/CUPTI/lib64/libcupti.so.12  2023.2.2  used by other programs
    ");
    facts.cupti.swap(0, 1);
    facts.cupti[0].origin = "COLONEL_CUPTI";
    facts.cupti[0].chosen = true;
    facts.cupti[1].chosen = false;
    insta::assert_snapshot!(rendered(&cupti(&facts)), @r"
      CUPTI     /usr/local/cuda-12.2/extras/CUPTI/lib64/libcupti.so.12  2023.2.2  used, unless the program brings its own
                /venv/lib/python3.11/site-packages/nvidia/cu13/lib/libcupti.so.13  13.0.85
                -> CUDA 12's CUPTI can't turn records off while a program runs: after its first window that stays as slow as in it; CUPTI 13.0.85 or newer can
    ");
}

#[test]
fn no_cupti_that_fits() {
    let mut facts = facts();
    facts.cupti[0].chosen = false;
    facts.cupti[0].refused = Some("newer than the driver");
    insta::assert_snapshot!(rendered(&cupti(&facts)), @r"
    ! CUPTI     /venv/lib/python3.11/site-packages/nvidia/cu13/lib/libcupti.so.13  13.0.85  not used: newer than the driver
                /usr/local/cuda-12.2/extras/CUPTI/lib64/libcupti.so.12  2023.2.2  not used: older than CUDA 12.4
                -> `pip install nvidia-cuda-cupti` in the program's environment, or name the file in COLONEL_CUPTI
                -> a program that brings CUPTI with it (PyTorch does) is captured with its own
    ");
}

#[test]
fn no_permission_for_counters() {
    let mut facts = facts();
    facts.permissions.admin_only = Some(true);
    insta::assert_snapshot!(rendered(&counters(&facts)), @r"
    - counters  hardware counters are for administrators (RmProfilingAdminOnly); kernels are recorded without them
                -> run as root
                -> or open them to all: put `options nvidia NVreg_RestrictProfilingToAdminUsers=0` into /etc/modprobe.d/nvidia-profiling.conf, then reboot
    ");
    assert_eq!(capture(&facts), Capture::Gpu, "kernels need no permission");
    facts.gpu.container = true;
    insta::assert_snapshot!(rendered(&counters(&facts)), @r"
    - counters  hardware counters are for administrators (RmProfilingAdminOnly); kernels are recorded without them
                -> start the container with `--cap-add SYS_ADMIN`
                -> or open them to all on the host: put `options nvidia NVreg_RestrictProfilingToAdminUsers=0` into /etc/modprobe.d/nvidia-profiling.conf, then reboot
    ");
    facts.permissions.sys_admin = true;
    assert_eq!(counters(&facts).status, Status::Ok);
}

#[test]
fn nowhere_to_write() {
    let mut facts = facts();
    facts.places.sessions_refused = Some("`/srv`: Read-only file system".to_owned());
    assert_eq!(capture(&facts), Capture::Nothing);
    insta::assert_snapshot!(rendered(&sessions(&facts)), @r"
    ! sessions  `.colonel/sessions` can't be written (`/srv`: Read-only file system)
                -> name another folder with `--sessions-dir DIR` or COLONEL_SESSIONS_DIR
    ");
    facts.places.sessions_refused = None;
    facts.places.free_bytes = Some(12_000_000);
    insta::assert_snapshot!(rendered(&sessions(&facts)), @r"
    - sessions  .colonel/sessions  only 12.0 MB free
                -> a kernel takes some 16 bytes: free space, or name another folder with `--sessions-dir DIR`
    ");
}

#[test]
fn another_injection() {
    let mut facts = facts();
    facts.injection = Some(PathBuf::from("/opt/nsight/inject.so"));
    insta::assert_snapshot!(rendered(&injection(&facts).unwrap()), @r"
    - injection CUDA_INJECTION64_PATH is set to `/opt/nsight/inject.so`
                -> unset it, or take its place with `colonel run --replace-injection`
    ");
}

#[test]
fn nothing_works_without_the_guest() {
    let mut facts = facts();
    facts.places.guest = Err("find the guest library; looked at `/usr/bin/libcolonel_guest.so`".to_owned());
    assert_eq!(capture(&facts), Capture::Nothing);
    assert!(diagnosis(facts).ends_with("capture does not work here: see what is marked with `!`\n"));
}

#[test]
fn without_gpu_and_simulator_nothing_works() {
    let mut facts = facts();
    facts.gpu = GpuFacts::default();
    facts.places.sim = Err("find gpu-sim's library `libsim_cuda.so`".to_owned());
    assert_eq!(capture(&facts), Capture::Nothing);
    insta::assert_snapshot!(rendered(&sim(&facts)), @r"
    ! gpu-sim   not installed
                -> build it with `cargo build --release --workspace`
    ");
}

#[test]
fn a_machine_with_a_gpu_needs_no_simulator() {
    let mut facts = facts();
    facts.places.sim = Err("find gpu-sim's library `libsim_cuda.so`".to_owned());
    assert_eq!(capture(&facts), Capture::Gpu);
    assert_eq!(
        rendered(&sim(&facts)),
        "- gpu-sim   not installed; only `colonel run --sim` needs it\n"
    );
}
