//! Which CUPTI is played: `COLONEL_SIM_CUPTI`, default 13.0.

use std::sync::OnceLock;

use cupti_sys::constants::*;

use crate::faults::{self, Faults};

/// Names of the versions and what their `cuptiGetVersion` gives (of the newest update where it differs).
const VERSIONS: [(&str, u32); 11] = [
    ("12.4", API_VERSION_12_4),
    ("12.5", API_VERSION_12_5),
    ("12.6", API_VERSION_12_6),
    ("12.8", API_VERSION_12_8),
    ("12.9", 28),
    ("13.0", 130_001),
    ("13.1", 130_101),
    ("13.2", 130_202),
    ("13.3", 130_301),
    ("13.4", 130_401),
    ("13.5", API_VERSION_13_5),
];
const DEFAULT: u32 = 130_001;

/// The API version played: decides layouts and behaviour.
pub(crate) fn api_version() -> u32 {
    static VERSION: OnceLock<u32> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let wanted = std::env::var("COLONEL_SIM_CUPTI").ok();
        let version = parse(wanted.as_deref());
        version.unwrap_or_else(|| {
            let names = VERSIONS.map(|(name, _)| name).join(", ");
            faults::complain(&format!(
                "COLONEL_SIM_CUPTI is `{}`, not one of {names}",
                wanted.unwrap_or_default()
            ))
        })
    })
}

fn parse(wanted: Option<&str>) -> Option<u32> {
    match wanted {
        None | Some("") => Some(DEFAULT),
        Some(wanted) => VERSIONS
            .iter()
            .find(|(name, _)| *name == wanted)
            .map(|(_, version)| *version),
    }
}

/// What `cuptiGetVersion` gives: the version played, unless a fault says otherwise.
pub(crate) fn shown(faults: &Faults) -> u32 {
    match (faults.old, faults.major) {
        (true, _) => 18,
        (_, Some(major)) => major * 10_000,
        _ => api_version(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_wheels() {
        assert_eq!(parse(None), Some(130_001));
        assert_eq!(
            ["12.4", "12.9", "13.5"].map(|name| parse(Some(name))),
            [Some(22), Some(28), Some(130_500)]
        );
        assert_eq!(parse(Some("11.8")), None);
    }

    #[test]
    fn a_fault_may_lie_about_the_version() {
        let old = Faults {
            old: true,
            ..Faults::default()
        };
        let major = Faults {
            major: Some(14),
            ..Faults::default()
        };
        assert_eq!([shown(&old), shown(&major)], [18, 140_000]);
    }
}
