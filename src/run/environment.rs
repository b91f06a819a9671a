//! What changes in the command's environment. Nothing else of it is touched.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::flavors::{Flavor, KnownTo};
use super::python::Python;
use super::settings::{Mode, Settings, Trace};
use crate::schema::env as variables;

/// The CUDA driver loads the library that it names.
pub const CUDA_INJECTION: &str = "CUDA_INJECTION64_PATH";
/// Libraries with NVTX load the library that it names.
pub const NVTX_INJECTION: &str = "NVTX_INJECTION64_PATH";
/// The dynamic linker's own.
pub const LD_PRELOAD: &str = "LD_PRELOAD";
/// The dynamic linker's own.
pub const LD_LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// Asks the environment that the command would have without us.
pub type Inherited<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Changes to an environment, in order; `None` removes a variable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    changes: Vec<(&'static str, Option<OsString>)>,
}

impl Environment {
    /// Sets a variable.
    pub fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.changes.push((name, Some(value.into())));
    }

    /// Sets a variable, or removes what an outer colonel left in it.
    pub fn set_or_remove(&mut self, name: &'static str, value: Option<OsString>) {
        self.changes.push((name, value));
    }

    /// Puts `first` in front of a list of paths, keeping what is there.
    pub fn prepend(&mut self, name: &'static str, first: &Path, inherited: Inherited<'_>) {
        let mut value = first.as_os_str().to_owned();
        if let Some(rest) = self
            .get(name)
            .map(OsStr::to_owned)
            .or_else(|| inherited(name))
            .filter(|r| !r.is_empty())
        {
            value.push(":");
            value.push(rest);
        }
        self.set(name, value);
    }

    /// The value that a variable is set to here.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.changes
            .iter()
            .rev()
            .find(|(known, _)| *known == name)
            .and_then(|(_, value)| value.as_deref())
    }

    /// Applies the changes to a command.
    pub fn apply(&self, command: &mut Command) {
        for (name, value) in &self.changes {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }

    /// What the flavor takes for granted. What the user has set stays as it is.
    pub fn set_defaults(&mut self, flavor: &Flavor, python: Option<&Python>, inherited: Inherited<'_>) {
        for default in flavor.environment {
            let known = match default.known_to {
                KnownTo::Colonel => true,
                KnownTo::Vllm => python.is_some_and(|python| python.vllm_variables.iter().any(|v| v == default.name)),
            };
            if known && inherited(default.name).is_none() {
                self.set(default.name, default.value);
            }
        }
    }

    /// What the guest and the Python package are told. Every variable is set or removed, so that no outer session's
    /// value leaks in.
    pub fn tell_guest(&mut self, settings: &Settings, evaluator: &str, session: &Path, runtime: &Path) {
        self.set(variables::SESSION, session);
        self.set(variables::EVALUATOR, evaluator);
        self.set(variables::RUNTIME, runtime);
        self.set(variables::GATE, settings.gate.name().into_owned());
        self.set(variables::GATE_BY, settings.gate_by.name());
        self.set_or_remove(variables::AFTER, settings.after.map(nanoseconds));
        self.set_or_remove(variables::FOR, settings.window.map(nanoseconds));
        let counters = settings.counters.as_ref();
        self.set_or_remove(
            variables::COUNTERS,
            counters.map(|counters| counters.metrics.clone().into()),
        );
        let interval = counters.and_then(|counters| counters.interval);
        self.set_or_remove(variables::COUNTERS_INTERVAL, interval.map(nanoseconds));
        let no_records = (settings.mode == Mode::Counters).then(|| "0".into());
        self.set_or_remove(variables::RECORDS, no_records);
        let bursts = (settings.mode == Mode::Sampled).then_some(settings.bursts);
        self.set_or_remove(variables::BURST, bursts.map(|bursts| nanoseconds(bursts.length)));
        self.set_or_remove(variables::BURST_EVERY, bursts.map(|bursts| nanoseconds(bursts.every)));
        let trace: Vec<&str> = settings.trace.iter().copied().map(Trace::name).collect();
        self.set_or_remove(variables::TRACE, (!trace.is_empty()).then(|| trace.join(",").into()));
    }
}

fn nanoseconds(duration: Duration) -> OsString {
    duration.as_nanos().to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepending_keeps_what_is_there() {
        let mut environment = Environment::default();
        environment.prepend(LD_PRELOAD, Path::new("/g.so"), &|_| Some("/a.so:/b.so".into()));
        assert_eq!(environment.get(LD_PRELOAD), Some(OsStr::new("/g.so:/a.so:/b.so")));
        environment.prepend(LD_PRELOAD, Path::new("/h.so"), &|_| Some("/a.so:/b.so".into()));
        assert_eq!(environment.get(LD_PRELOAD), Some(OsStr::new("/h.so:/g.so:/a.so:/b.so")));
    }

    #[test]
    fn an_empty_list_gets_no_colon() {
        // An empty entry in LD_LIBRARY_PATH is the current folder.
        let mut environment = Environment::default();
        environment.prepend(LD_LIBRARY_PATH, Path::new("/sim"), &|_| Some(OsString::new()));
        assert_eq!(environment.get(LD_LIBRARY_PATH), Some(OsStr::new("/sim")));
    }
}
