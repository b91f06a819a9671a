//! What each device did when: kept while it is sampled, from what the driver submits.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sim_abi::truth::Truth;
use sim_abi::{Op, Submission, op};

/// Samplers that run.
static SAMPLERS: AtomicU32 = AtomicU32::new(0);
static BUSY: Mutex<BTreeMap<u32, Vec<Busy>>> = Mutex::new(BTreeMap::new());

/// Something ran.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Busy {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) truth: Truth,
}

fn busy() -> MutexGuard<'static, BTreeMap<u32, Vec<Busy>>> {
    BUSY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sampler starts.
pub(crate) fn watch() {
    SAMPLERS.fetch_add(1, Ordering::AcqRel);
}

/// A sampler ends.
pub(crate) fn unwatch(device: u32) {
    SAMPLERS.fetch_sub(1, Ordering::AcqRel);
    busy().remove(&device);
}

/// Takes note of work.
pub(crate) fn submitted(submission: &Submission, ops: &[Op]) {
    if SAMPLERS.load(Ordering::Acquire) == 0 {
        return;
    }
    let mut busy = busy();
    busy.entry(submission.device).or_default().extend(ops.iter().map(|op| {
        let start = submission.base_ns + op.offset_ns;
        Busy {
            start,
            end: start + op.duration_ns,
            truth: truth(op),
        }
    }));
}

fn truth(op: &Op) -> Truth {
    if op.kind != op::KERNEL || op.kernel.is_null() {
        return Truth::COPY;
    }
    // SAFETY: kernels and their names are never freed.
    let name = unsafe { CStr::from_ptr((*op.kernel).name) };
    Truth::of_kernel(&name.to_string_lossy())
}

/// What ran on a device in a stretch of time, and after; what ended before is forgotten.
pub(crate) fn since(device: u32, start: u64) -> Vec<Busy> {
    let mut busy = busy();
    let of_device = busy.entry(device).or_default();
    of_device.retain(|one| one.end > start);
    of_device.sort_by_key(|one| one.start);
    of_device.clone()
}
