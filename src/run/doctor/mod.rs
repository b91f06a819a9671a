//! `colonel doctor`: what a capture needs, what of it is here, and how to get the rest.
//!
//! Facts are gathered by `gpu`, `cupti`, `permissions` and `tools`, which look and judge nothing; `checks` judges facts
//! and looks at nothing, so that every word can be tested without the machine it is about. CUDA is never initialised
//! in this process.

mod checks;
mod cupti;
pub(crate) mod gpu;
pub(crate) mod permissions;
mod places;
mod tools;

use std::path::PathBuf;

use serde::Serialize;

pub use cupti::CuptiFile;
pub use gpu::{Driver, Gpu, GpuFacts};
pub use permissions::Permissions;
pub use places::Places;

pub use super::profilers::Tool;
use super::python::Python;
use crate::session::SessionsDir;

/// Version of the JSON.
pub const JSON_VERSION: u32 = 1;

/// What this machine has.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// GPUs and their driver.
    pub gpu: GpuFacts,
    /// Every libcupti found, best first.
    pub cupti: Vec<CuptiFile>,
    /// Who may read hardware counters.
    pub permissions: Permissions,
    /// Our own files and folders.
    pub places: Places,
    /// NVIDIA's profilers.
    pub tools: Vec<Tool>,
    /// The `python3` on the PATH.
    pub python: Option<Python>,
    /// `CUDA_INJECTION64_PATH`, where another tool has set it.
    pub injection: Option<PathBuf>,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Not needed for a capture, or limits it.
    Note,
    /// Missing, and needed.
    Missing,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub status: Status,
    /// What was found, a line each.
    pub found: Vec<String>,
    /// What to do about it, a line each.
    pub advice: Vec<String>,
}

/// What can be captured here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Capture {
    /// Programs on a GPU.
    Gpu,
    /// Programs under gpu-sim only.
    Sim,
    /// Nothing.
    Nothing,
}

/// The answer.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    /// [`JSON_VERSION`].
    pub version: u32,
    /// Version and commit of this colonel.
    pub colonel: String,
    /// What can be captured.
    pub capture: Capture,
    /// Line by line.
    pub checks: Vec<Check>,
    /// What the checks judged.
    pub facts: Facts,
}

impl Facts {
    /// Looks around.
    pub fn gather(sessions: &SessionsDir) -> Self {
        let gpu = gpu::gather();
        let driver_major = gpu
            .driver
            .as_ref()
            .and_then(|driver| driver.cuda)
            .map(|version| version / 1000);
        let preferred = std::env::var_os(crate::schema::env::CUPTI)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        // Both ask `python3`: where it hangs, their patience runs out at the same time.
        let (python, cupti) = std::thread::scope(|scope| {
            let python = scope.spawn(tools::python);
            let cupti = cupti::find(preferred.as_deref(), driver_major);
            (python.join().unwrap_or_default(), cupti)
        });
        Self {
            cupti,
            gpu,
            permissions: permissions::gather(),
            places: places::gather(sessions),
            tools: tools::profilers(),
            python,
            injection: std::env::var_os(super::environment::CUDA_INJECTION)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
        }
    }
}

impl Diagnosis {
    /// Judges what was found.
    pub fn new(facts: Facts) -> Self {
        Self {
            version: JSON_VERSION,
            colonel: format!("{} ({})", crate::VERSION, crate::COMMIT),
            capture: checks::capture(&facts),
            checks: checks::all(&facts),
            facts,
        }
    }

    /// The answer for a terminal.
    pub fn render(&self) -> String {
        let mut text = format!("colonel {}\n", self.colonel);
        for check in &self.checks {
            text += &render_check(check);
        }
        text.push('\n');
        text += checks::verdict(self.capture);
        text.push('\n');
        text
    }
}

/// A mark, the name, what was found; below it what to do.
fn render_check(check: &Check) -> String {
    let mark = match check.status {
        Status::Ok => " ",
        Status::Note => "-",
        Status::Missing => "!",
    };
    let found = check.found.iter().map(|line| (line.clone(), ""));
    let advice = check.advice.iter().map(|line| (line.clone(), "-> "));
    let mut text = String::new();
    for (at, (line, arrow)) in found.chain(advice).enumerate() {
        let head = if at == 0 {
            format!("{mark} {:<10}", check.name)
        } else {
            " ".repeat(12)
        };
        text += format!("{head}{arrow}{line}").trim_end();
        text.push('\n');
    }
    text
}
