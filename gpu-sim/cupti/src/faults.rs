//! What goes wrong on purpose: `COLONEL_SIM_FAULT`, a list with commas. gpu-sim/README.md says what each means.

use std::sync::OnceLock;

use cupti_sys::constants::{API_VERSION_13_0, API_VERSION_13_1};

use crate::version::api_version;

/// The faults asked for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Faults {
    pub(crate) subscribe: Option<u32>,
    pub(crate) enable: Option<u32>,
    pub(crate) register: Option<u32>,
    pub(crate) first_disable: Option<bool>,
    pub(crate) kept_ends: bool,
    pub(crate) zero_timestamps: Option<u64>,
    pub(crate) reversed: Option<u64>,
    pub(crate) drop: Option<u64>,
    pub(crate) late_ms: Option<u64>,
    pub(crate) takeover: Option<u64>,
    pub(crate) bad_name: Option<u64>,
    pub(crate) mangled: bool,
    pub(crate) old: bool,
    pub(crate) major: Option<u32>,
    pub(crate) slow_flush_ms: Option<u64>,
    pub(crate) hang_flush: bool,
    pub(crate) counters: Option<u32>,
    pub(crate) counters_room: Option<u64>,
    pub(crate) counters_starts: Option<u64>,
    pub(crate) counters_restarts: Option<u64>,
    pub(crate) slow_counters_ms: Option<u64>,
    pub(crate) unknown_chip: bool,
    pub(crate) no_time_trigger: bool,
}

impl Faults {
    fn parse(list: &str) -> Result<Faults, String> {
        let mut faults = Faults::default();
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            faults
                .set(item)
                .map_err(|expected| format!("COLONEL_SIM_FAULT: `{item}` {expected}"))?;
        }
        Ok(faults)
    }

    fn set(&mut self, item: &str) -> Result<(), &'static str> {
        let (name, value) = item
            .split_once('=')
            .map_or((item, None), |(name, value)| (name, Some(value)));
        let number = || {
            value
                .and_then(|value| value.parse::<u64>().ok())
                .ok_or("needs a number after `=`")
        };
        let every = || {
            number()
                .ok()
                .filter(|every| *every > 0)
                .ok_or("needs a number above 0 after `=`")
        };
        let code = || number().and_then(|code| u32::try_from(code).map_err(|_| "is too large"));
        match name {
            "subscribe" => self.subscribe = Some(code()?),
            "enable" => self.enable = Some(code()?),
            "register" => self.register = Some(code()?),
            "first-disable" => self.first_disable = Some(value != Some("off")),
            "overwritten-ends" => self.kept_ends = value == Some("off"),
            "zero-timestamps" => self.zero_timestamps = Some(every()?),
            "reversed" => self.reversed = Some(every()?),
            "drop" => self.drop = Some(every()?),
            "late" => self.late_ms = Some(number()?),
            "takeover" => self.takeover = Some(every()?),
            "bad-name" => self.bad_name = Some(every()?),
            "mangled" => self.mangled = true,
            "old" => self.old = true,
            "major" => self.major = Some(code()?),
            "slow-flush" => self.slow_flush_ms = Some(number()?),
            "hang-flush" => self.hang_flush = true,
            "counters" => self.counters = Some(code()?),
            "counters-room" => self.counters_room = Some(every()?),
            "counters-starts" => self.counters_starts = Some(every()?),
            "counters-restarts" => self.counters_restarts = Some(every()?),
            "slow-counters" => self.slow_counters_ms = Some(number()?),
            "unknown-chip" => self.unknown_chip = true,
            "no-time-trigger" => self.no_time_trigger = true,
            _ => return Err("is not a fault; gpu-sim/README.md lists them"),
        }
        Ok(())
    }

    /// The first `cuptiActivityDisable` does not stop the records of a graph made before it: so in 13.0.
    pub(crate) fn first_disable(&self, api_version: u32) -> bool {
        self.first_disable
            .unwrap_or((API_VERSION_13_0..API_VERSION_13_1).contains(&api_version))
    }
}

/// The faults of this process.
pub(crate) fn faults() -> &'static Faults {
    static FAULTS: OnceLock<Faults> = OnceLock::new();
    FAULTS.get_or_init(|| {
        let list = std::env::var("COLONEL_SIM_FAULT").unwrap_or_default();
        Faults::parse(&list).unwrap_or_else(|problem| complain(&problem))
    })
}

/// Whether the quirk of the first disable is played.
pub(crate) fn first_disable() -> bool {
    faults().first_disable(api_version())
}

/// Ends the process: whoever set up the test made a mistake, or the client did what the real CUPTI does not survive.
pub(crate) fn complain(problem: &str) -> ! {
    say(&format!("gpu-sim: libcupti: {problem}\n"));
    // SAFETY: no preconditions.
    unsafe { libc::abort() }
}

/// Writes a line to stderr; if that is closed, nothing is written.
pub(crate) fn say(line: &str) {
    // SAFETY: writes the bytes of a string that outlives the call.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_sets_what_it_names_and_nothing_else() {
        let faults = Faults::parse("subscribe=39, drop=10,mangled,,slow-flush=200,overwritten-ends=off").unwrap();
        let expected = Faults {
            subscribe: Some(39),
            drop: Some(10),
            mangled: true,
            kept_ends: true,
            slow_flush_ms: Some(200),
            ..Faults::default()
        };
        assert_eq!(faults, expected);
        assert_eq!(Faults::parse(",overwritten-ends").unwrap(), Faults::default());
    }

    #[test]
    fn a_mistake_is_named() {
        for (list, part) in [
            ("frob", "`frob` is not a fault"),
            ("drop=0", "above 0"),
            ("enable", "needs a number"),
        ] {
            let problem = Faults::parse(list).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn the_first_disable_quirk_is_that_of_13_0_unless_told() {
        let none = Faults::default();
        assert_eq!(
            [28, 130_001, 130_101].map(|version| none.first_disable(version)),
            [false, true, false]
        );
        assert!(!Faults::parse("first-disable=off").unwrap().first_disable(130_001));
        assert!(Faults::parse("first-disable").unwrap().first_disable(28));
    }
}
