//! Who may read hardware counters. Kernel records need no permission.

use std::fs;

use serde::Serialize;

/// Bit of CAP_SYS_ADMIN in the capability masks.
const CAP_SYS_ADMIN: u32 = 21;

/// What decides about counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Permissions {
    /// `RmProfilingAdminOnly` of the driver; `None` where it can't be read.
    pub admin_only: Option<bool>,
    /// Whether this process has CAP_SYS_ADMIN.
    pub sys_admin: bool,
}

/// How to get at hardware counters without permission.
pub(crate) fn how_to_open(is_container: bool) -> [&'static str; 2] {
    if is_container {
        [
            "start the container with `--cap-add SYS_ADMIN`",
            "or open them to all on the host: put `options nvidia NVreg_RestrictProfilingToAdminUsers=0` into \
             /etc/modprobe.d/nvidia-profiling.conf, then reboot",
        ]
    } else {
        [
            "run as root",
            "or open them to all: put `options nvidia NVreg_RestrictProfilingToAdminUsers=0` into \
             /etc/modprobe.d/nvidia-profiling.conf, then reboot",
        ]
    }
}

/// Looks around.
pub(super) fn gather() -> Permissions {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    Permissions {
        admin_only: admin_only(&read("/proc/driver/nvidia/params")),
        sys_admin: has_sys_admin(&read("/proc/self/status")),
    }
}

fn admin_only(params: &str) -> Option<bool> {
    let value = params
        .lines()
        .find_map(|line| line.strip_prefix("RmProfilingAdminOnly:"))?;
    Some(value.trim() != "0")
}

fn has_sys_admin(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> CAP_SYS_ADMIN & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_parameter_decides() {
        let params = "ResmanDebugLevel: 4294967295\nRmProfilingAdminOnly: 1\nTCEBypassMode: 0\n";
        assert_eq!(admin_only(params), Some(true));
        assert_eq!(admin_only("RmProfilingAdminOnly: 0\n"), Some(false));
        assert_eq!(admin_only(""), None);
    }

    #[test]
    fn the_capability_is_read_from_its_bit() {
        assert!(has_sys_admin("CapPrm:\t0\nCapEff:\t000001ffffffffff\n"));
        assert!(!has_sys_admin("CapEff:\t00000000a80425fb\n"), "docker's default");
        assert!(!has_sys_admin(""));
    }
}
