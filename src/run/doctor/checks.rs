//! From facts to words: what is fine, what is missing, what to do about it.

use std::ffi::OsStr;

use super::super::profilers::oldest;
use super::super::words::bytes;
use super::permissions::how_to_open;
use super::{Capture, Check, Facts, Status};

/// Below this a session of some minutes may not fit.
const LITTLE_SPACE: u64 = 200_000_000;

/// Every check, in the order in which a capture needs them.
pub(super) fn all(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![
        gpu(facts),
        cupti(facts),
        counters(facts),
        guest(facts),
        sim(facts),
        sessions(facts),
    ];
    checks.extend(injection(facts));
    checks.extend(facts.tools.iter().map(tool));
    checks.push(python(facts));
    checks
}

/// What can be captured.
pub(super) fn capture(facts: &Facts) -> Capture {
    let ok = |check: Check| check.status != Status::Missing;
    if !ok(guest(facts)) || !ok(sessions(facts)) {
        Capture::Nothing
    } else if ok(gpu(facts)) && ok(cupti(facts)) {
        Capture::Gpu
    } else if ok(sim(facts)) {
        Capture::Sim
    } else {
        Capture::Nothing
    }
}

/// The last line.
pub(super) fn verdict(capture: Capture) -> &'static str {
    match capture {
        Capture::Gpu => "capture works here: colonel run -- CMD",
        Capture::Sim => {
            "no capture on a GPU here, as marked with `!`; without one, gpu-sim works: colonel run --sim -- colonel-sim decode"
        }
        Capture::Nothing => "capture does not work here: see what is marked with `!`",
    }
}

fn check(name: &'static str, status: Status, found: impl Into<String>) -> Check {
    Check {
        name,
        status,
        found: vec![found.into()],
        advice: Vec::new(),
    }
}

fn advise(mut check: Check, advice: &[&str]) -> Check {
    check.advice.extend(advice.iter().map(|&line| line.to_owned()));
    check
}

fn gpu(facts: &Facts) -> Check {
    let gpu = &facts.gpu;
    let missing = |found: String, advice: &[&str]| advise(check("GPU", Status::Missing, found), advice);
    let Some(driver) = &gpu.driver else {
        return match (gpu.on_pci, gpu.container) {
            (0, _) if !gpu.libcuda => missing(
                "no NVIDIA GPU and no driver".to_owned(),
                &["run on a machine with an NVIDIA GPU"],
            ),
            (_, true) => missing(
                "no NVIDIA driver reaches into this container".to_owned(),
                &["start the container with `--gpus all` (docker, podman) or a GPU request (Kubernetes)"],
            ),
            _ => missing(
                "an NVIDIA GPU, but its driver is not loaded".to_owned(),
                &["install NVIDIA's driver; if it is installed, `sudo modprobe nvidia` says why it does not load"],
            ),
        };
    };
    let release = driver.release.as_deref().unwrap_or("of unknown version");
    if !gpu.libcuda {
        let advice = if gpu.container {
            "start the container with `--gpus all` and NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        } else {
            "install the driver's CUDA library (Debian: libcuda1, RHEL: nvidia-driver-cuda-libs)"
        };
        return missing(
            format!("driver {release}, but no `libcuda.so.1` for programs"),
            &[advice],
        );
    }
    if gpu.gpus.is_empty() {
        return missing(
            format!("driver {release}, but it has no GPU"),
            &["`nvidia-smi` says what the driver sees"],
        );
    }
    if gpu
        .visible
        .as_deref()
        .is_some_and(|visible| ["", "-1", "NoDevFiles"].contains(&visible.trim()))
    {
        return missing(
            format!(
                "{} hidden from programs",
                super::super::words::counted(gpu.gpus.len() as u64, "GPU")
            ),
            &["CUDA_VISIBLE_DEVICES is set to nothing: unset it"],
        );
    }
    let cuda = driver.cuda.map_or(String::new(), |version| {
        format!(", CUDA {}.{}", version / 1000, version % 1000 / 10)
    });
    let mut check = check("GPU", Status::Ok, gpu_names(facts));
    check.found.push(format!("driver {release}{cuda}"));
    check
}

/// `8 x NVIDIA H100 80GB HBM3 (sm_90)`, a kind each.
fn gpu_names(facts: &Facts) -> String {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for gpu in &facts.gpu.gpus {
        let capability = gpu
            .compute
            .map_or(String::new(), |(major, minor)| format!(" (sm_{major}{minor})"));
        let kind = format!("{}{capability}", gpu.name);
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((kind, 1)),
        }
    }
    let names = kinds
        .into_iter()
        .map(|(kind, count)| if count == 1 { kind } else { format!("{count} x {kind}") });
    names.collect::<Vec<_>>().join(", ")
}

fn cupti(facts: &Facts) -> Check {
    let files = &facts.cupti;
    // Programs other than Python's don't look among its packages.
    let by_others = files.iter().find(|file| file.refused.is_none() && !file.is_of_python());
    let line = |file| cupti_line(file, by_others.is_some_and(|other| std::ptr::eq(other, file)));
    let lines: Vec<String> = files.iter().map(line).collect();
    if let Some(chosen) = files.iter().find(|file| file.chosen) {
        let name = chosen.path.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
        let is_of_cuda_12 = name.starts_with(b"libcupti.so.12");
        let stays_on = "CUDA 12's CUPTI can't turn records off while a program runs: after its first window that stays as slow as \
                        in it; CUPTI 13.0.85 or newer can";
        return Check {
            name: "CUPTI",
            status: Status::Ok,
            found: lines,
            advice: is_of_cuda_12.then(|| stays_on.to_owned()).into_iter().collect(),
        };
    }
    let found = if lines.is_empty() {
        vec!["no libcupti found".to_owned()]
    } else {
        lines
    };
    let wheel = match facts.gpu.driver.as_ref().and_then(|driver| driver.cuda) {
        Some(..13_000) => "nvidia-cuda-cupti-cu12",
        _ => "nvidia-cuda-cupti",
    };
    let advice = vec![
        format!("`pip install {wheel}` in the program's environment, or name the file in COLONEL_CUPTI"),
        "a program that brings CUPTI with it (PyTorch does) is captured with its own".to_owned(),
    ];
    Check {
        name: "CUPTI",
        status: Status::Missing,
        found,
        advice,
    }
}

fn cupti_line(file: &super::CuptiFile, by_others: bool) -> String {
    let release = file
        .release
        .as_deref()
        .map_or(String::new(), |release| format!("  {release}"));
    let why = match &file.refused {
        Some(refused) => format!("  not used: {refused}"),
        None if file.chosen && file.is_of_python() => "  used by programs of this python3".to_owned(),
        None if file.chosen => "  used, unless the program brings its own".to_owned(),
        None if by_others => "  used by other programs".to_owned(),
        None => String::new(),
    };
    format!("{}{release}{why}", file.path.display())
}

fn counters(facts: &Facts) -> Check {
    if facts.gpu.driver.is_none() {
        return check("counters", Status::Note, "nothing to ask without a driver");
    }
    match (facts.permissions.admin_only, facts.permissions.sys_admin) {
        (Some(false), _) => check("counters", Status::Ok, "hardware counters are open to all users"),
        (_, true) => check(
            "counters",
            Status::Ok,
            "hardware counters are open to this user (CAP_SYS_ADMIN)",
        ),
        (None, false) => check(
            "counters",
            Status::Note,
            "unknown: `/proc/driver/nvidia/params` can't be read; kernels are recorded without this",
        ),
        (Some(true), false) => {
            let advice = how_to_open(facts.gpu.container);
            let found =
                "hardware counters are for administrators (RmProfilingAdminOnly); kernels are recorded without them";
            advise(check("counters", Status::Note, found), &advice)
        }
    }
}

fn guest(facts: &Facts) -> Check {
    match &facts.places.guest {
        Ok(path) => check("guest", Status::Ok, path.display().to_string()),
        Err(error) => check("guest", Status::Missing, format!("failed to {error}")),
    }
}

fn sim(facts: &Facts) -> Check {
    match &facts.places.sim {
        Ok(libraries) => {
            let folder = libraries.first().and_then(|library| library.parent());
            check(
                "gpu-sim",
                Status::Ok,
                folder.map_or(String::new(), |folder| folder.display().to_string()),
            )
        }
        Err(_) if facts.gpu.gpus.is_empty() => advise(
            check("gpu-sim", Status::Missing, "not installed"),
            &["build it with `cargo build --release --workspace`"],
        ),
        // A machine with a GPU has no use for it.
        Err(_) => check(
            "gpu-sim",
            Status::Note,
            "not installed; only `colonel run --sim` needs it",
        ),
    }
}

fn sessions(facts: &Facts) -> Check {
    let places = &facts.places;
    let shown = places.sessions.display();
    if let Some(refused) = &places.sessions_refused {
        let check = check(
            "sessions",
            Status::Missing,
            format!("`{shown}` can't be written ({refused})"),
        );
        return advise(
            check,
            &["name another folder with `--sessions-dir DIR` or COLONEL_SESSIONS_DIR"],
        );
    }
    match places.free_bytes {
        Some(free) if free < LITTLE_SPACE => {
            let check = check("sessions", Status::Note, format!("{shown}  only {} free", bytes(free)));
            advise(
                check,
                &["a kernel takes some 16 bytes: free space, or name another folder with `--sessions-dir DIR`"],
            )
        }
        Some(free) => check("sessions", Status::Ok, format!("{shown}  {} free", bytes(free))),
        None => check("sessions", Status::Ok, shown.to_string()),
    }
}

fn injection(facts: &Facts) -> Option<Check> {
    let path = facts.injection.as_ref()?;
    let check = check(
        "injection",
        Status::Note,
        format!("CUDA_INJECTION64_PATH is set to `{}`", path.display()),
    );
    Some(advise(
        check,
        &["unset it, or take its place with `colonel run --replace-injection`"],
    ))
}

fn tool(tool: &super::Tool) -> Check {
    let Some(path) = &tool.path else {
        let found = format!("not found; only `colonel run --evaluator {}` needs it", tool.name);
        return check(tool.name, Status::Note, found);
    };
    let release = tool
        .release
        .as_deref()
        .map_or(String::new(), |release| format!("  {release}"));
    let place = if tool.on_path { "" } else { "  not on the PATH" };
    let found = format!("{}{release}{place}", path.display());
    if tool.is_too_old() {
        let advice = format!(
            "`colonel run --evaluator {}` needs {} or newer",
            tool.name,
            oldest(tool.name)
        );
        return advise(check(tool.name, Status::Note, found), &[&advice]);
    }
    check(tool.name, Status::Ok, found)
}

fn python(facts: &Facts) -> Check {
    let Some(python) = &facts.python else {
        return check("python", Status::Note, "no python3 on the PATH that answers");
    };
    let version = |name: &str| python.packages.get(name).map(|version| format!("{name} {version}"));
    let frameworks: Vec<String> = ["vllm", "torch"].into_iter().filter_map(version).collect();
    let frameworks = if frameworks.is_empty() {
        "no vllm, no torch".to_owned()
    } else {
        frameworks.join(", ")
    };
    check(
        "python",
        Status::Ok,
        format!("{}  {}  {frameworks}", python.path, python.release),
    )
}

#[cfg(test)]
mod tests;
