//! Why a device can't be sampled, in words.

use cupti_sys::constants::*;
use cupti_sys::counters::{Failure, Unavailable};

/// Code and message of a problem.
pub(super) type Refusal = (&'static str, String);

const GOES_ON: &str = "the rest of the capture goes on without hardware counters";

pub(super) fn unavailable(why: &Unavailable) -> Refusal {
    let code = match why {
        Unavailable::TooOld { .. } => "counters_need_newer_cupti",
        Unavailable::NoHelper { .. } => "counters_need_nvperf",
    };
    (code, format!("{why}; {GOES_ON}"))
}

pub(super) fn failed(failure: &Failure, device: u32) -> Refusal {
    match failure.code {
        ERROR_INSUFFICIENT_PRIVILEGES | ERROR_VIRTUALIZED_DEVICE_INSUFFICIENT_PRIVILEGES => (
            "counters_need_permission",
            format!(
                "the driver keeps hardware counters for administrators (`{}` gave {}); run as root or with \
                 CAP_SYS_ADMIN, or load the driver with NVreg_RestrictProfilingToAdminUsers=0; {GOES_ON}",
                failure.call, failure.code
            ),
        ),
        ERROR_HARDWARE_BUSY | ERROR_INVALID_OPERATION => (
            "counters_busy",
            format!(
                "another client holds the hardware counters of device {device} ({failure}): another process under \
                 colonel, ncu, nsys with GPU metrics or DCGM's profiling; end it (`dcgmi profile --pause` for DCGM), then \
                 run again; {GOES_ON}"
            ),
        ),
        ERROR_INVALID_CHIP_NAME => (
            "counters_unknown_chip",
            format!(
                "this libcupti does not know the chip of device {device} ({failure}); use a newer one (COLONEL_CUPTI); \
                 {GOES_ON}"
            ),
        ),
        ERROR_NOT_SUPPORTED
        | ERROR_VIRTUALIZED_DEVICE_NOT_SUPPORTED
        | ERROR_CONFIDENTIAL_COMPUTING_NOT_SUPPORTED
        | ERROR_MIG_DEVICE_NOT_SUPPORTED
        | ERROR_SLI_DEVICE_NOT_SUPPORTED
        | ERROR_WSL_DEVICE_NOT_SUPPORTED => (
            "counters_unsupported",
            format!("device {device} can't be sampled ({failure}); {GOES_ON}"),
        ),
        _ => (
            "counters_failed",
            format!("device {device} could not be sampled: {failure}; {GOES_ON}"),
        ),
    }
}

pub(super) fn no_context() -> Refusal {
    (
        "counters_no_context",
        format!(
            "no GPU was sampled: samples are taken of GPUs whose primary context is alive, and this process works in \
             contexts of its own (cuCtxCreate), or closed its window before the first sample; {GOES_ON}"
        ),
    )
}

pub(super) fn no_metric(device: u32, chip: &str) -> Refusal {
    (
        "counters_unknown_chip",
        format!(
            "none of the metrics asked for can be sampled in one pass on device {device} (chip {chip}); name others with \
             --counters=METRIC; {GOES_ON}"
        ),
    )
}
