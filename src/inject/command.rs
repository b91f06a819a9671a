//! What the gate is asked, and whether that can be done with the windows that are open.

use std::time::Duration;

use crate::schema::manifest::{BURST, Window};

/// Characters of a window's name in a refusal.
const NAME_SHOWN: usize = 80;

/// What opens a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The process's start.
    Process,
    /// cudaProfilerStart.
    Profiler,
    /// `colonel start`.
    Manual,
    /// A client that nests its windows.
    Region,
    /// An NVTX range.
    Nvtx,
    /// The clock, within a window of another trigger.
    Burst,
}

impl Trigger {
    /// Its name in the session.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Trigger::Process => "process",
            Trigger::Profiler => "profiler",
            Trigger::Manual => "manual",
            Trigger::Region => "region",
            Trigger::Nvtx => "nvtx",
            Trigger::Burst => BURST,
        }
    }

    /// Opened by the process itself under its gate, not by a client of the socket.
    pub(crate) fn is_gates_own(self) -> bool {
        matches!(self, Trigger::Process | Trigger::Profiler)
    }
}

/// A wish for the gate.
#[derive(Debug)]
pub(crate) enum Command {
    /// Open a window.
    Open(Open),
    /// Close windows. With the correlation id of the call that asks, where it is known.
    Close(Which, Option<u32>),
}

/// A window to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) trigger: Trigger,
    pub(crate) name: Option<String>,
    /// Close it by itself after this long.
    pub(crate) length: Option<Duration>,
    /// Correlation id of the call that asks, where it is known.
    pub(crate) mark: Option<u32>,
    /// Number of this wish, for who withdraws it without knowing whether it was done.
    pub(crate) wish: Option<u64>,
}

impl Open {
    /// Without name, length and mark.
    pub(crate) fn by(trigger: Trigger) -> Open {
        Open {
            trigger,
            name: None,
            length: None,
            mark: None,
            wish: None,
        }
    }

    /// Whether it can be opened beside those that are open.
    pub(crate) fn check(&self, open: &[Window]) -> Result<(), String> {
        let in_the_way = match self.trigger {
            Trigger::Region | Trigger::Nvtx => None,
            Trigger::Process | Trigger::Profiler => open.iter().find(|window| window.trigger == self.trigger.name()),
            Trigger::Manual => open.iter().rfind(|window| !is_burst(window)),
            Trigger::Burst if open.iter().all(is_burst) => {
                return Err("no window is open to record a burst of".to_owned());
            }
            Trigger::Burst => open.iter().find(|window| is_burst(window)),
        };
        match in_the_way {
            None => Ok(()),
            Some(window) => Err(format!("a window is open already: number {}", described(window))),
        }
    }
}

/// Whether the clock opened it.
pub(crate) fn is_burst(window: &Window) -> bool {
    window.trigger == Trigger::Burst.name()
}

fn described(window: &Window) -> String {
    match &window.name {
        None => window.number.to_string(),
        Some(name) => {
            let shown: String = name.chars().take(NAME_SHOWN).collect();
            let rest = if shown.len() < name.len() { "…" } else { "" };
            format!("{}, `{shown}{rest}`", window.number)
        }
    }
}

/// Windows to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Every one that is open.
    All,
    /// This one.
    Number(u32),
    /// The one that cudaProfilerStart opened.
    Profiler,
    /// The one that this wish opened.
    Wish(u64),
}

impl Which {
    /// Numbers of those that are meant, of the open ones; there is one at least.
    pub(crate) fn among(self, open: &[Window]) -> Result<Vec<u32>, String> {
        let is_meant = |window: &&Window| match self {
            Which::All => true,
            Which::Number(number) => window.number == number,
            Which::Profiler => window.trigger == Trigger::Profiler.name(),
            // The gate knows its number, if it has one.
            Which::Wish(_) => false,
        };
        let meant: Vec<u32> = open.iter().filter(is_meant).map(|window| window.number).collect();
        if !meant.is_empty() {
            return Ok(meant);
        }
        let there_are = match open.last() {
            None => "no window is open".to_owned(),
            Some(newest) => format!("{} open, the newest is number {}", open.len(), described(newest)),
        };
        Err(match self {
            Which::Number(number) => format!("window {number} is not open: {there_are}"),
            Which::All | Which::Profiler | Which::Wish(_) => there_are,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(number: u32, trigger: Trigger, name: Option<&str>) -> Window {
        Window {
            number,
            start_ns: 0,
            end_ns: None,
            trigger: trigger.name().to_owned(),
            name: name.map(str::to_owned),
            sealed_ns: None,
            sampled: false,
        }
    }

    #[test]
    fn regions_nest_and_the_others_do_not_open_twice() {
        let open = |trigger, windows: &[Window]| Open::by(trigger).check(windows);
        let profiler = [window(1, Trigger::Profiler, None)];
        let region = [
            window(1, Trigger::Region, None),
            window(4, Trigger::Region, Some("bs8")),
        ];
        for trigger in [Trigger::Process, Trigger::Profiler, Trigger::Manual, Trigger::Region] {
            assert_eq!(open(trigger, &[]), Ok(()), "{trigger:?}");
        }
        assert_eq!(open(Trigger::Region, &profiler), Ok(()));
        assert_eq!(open(Trigger::Profiler, &region), Ok(()));
        assert_eq!(
            open(Trigger::Process, &region),
            Ok(()),
            "with --after it may come second"
        );
        let refused = |number: &str| Err(format!("a window is open already: number {number}"));
        assert_eq!(open(Trigger::Profiler, &profiler), refused("1"));
        assert_eq!(open(Trigger::Manual, &profiler), refused("1"));
        assert_eq!(open(Trigger::Manual, &region), refused("4, `bs8`"));
    }

    #[test]
    fn a_long_name_is_cut_in_words() {
        let name = "é".repeat(50_000);
        let refusal = Open::by(Trigger::Manual).check(&[window(1, Trigger::Region, Some(&name))]);
        assert_eq!(
            refusal.unwrap_err().chars().count(),
            "a window is open already: number 1, `…`".chars().count() + NAME_SHOWN
        );
    }

    #[test]
    fn who_is_meant_by_a_stop() {
        let open = [
            window(1, Trigger::Process, None),
            window(2, Trigger::Profiler, None),
            window(5, Trigger::Region, Some("bs8")),
        ];
        assert_eq!(Which::All.among(&open), Ok(vec![1, 2, 5]));
        assert_eq!(Which::Number(2).among(&open), Ok(vec![2]));
        assert_eq!(Which::Profiler.among(&open), Ok(vec![2]));
        assert_eq!(
            Which::Number(3).among(&open),
            Err("window 3 is not open: 3 open, the newest is number 5, `bs8`".to_owned())
        );
        assert_eq!(
            Which::Number(3).among(&[]),
            Err("window 3 is not open: no window is open".to_owned())
        );
        assert_eq!(Which::All.among(&[]), Err("no window is open".to_owned()));
        assert!(Which::Profiler.among(&open[..1]).is_err());
    }
}
