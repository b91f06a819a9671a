//! Another client of the activity API, as torch.profiler (Kineto) is one: without a subscriber it registers its own
//! buffer callbacks over those of the client and turns kinds on, and off again when its session ends. The fault
//! `takeover=N` starts it after N kernels and ends it after N more.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashSet;
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use cupti_sys::constants::*;

use crate::buffers::{POOL, lock};
use crate::faults::{faults, first_disable};
use crate::kinds::KINDS_ENABLED;

/// What Kineto turns on for CUDA activities.
const ITS_KINDS: [u32; 5] = [
    KIND_CONCURRENT_KERNEL,
    KIND_MEMCPY,
    KIND_MEMSET,
    KIND_RUNTIME,
    KIND_SYNCHRONIZATION,
];
const ITS_BUFFER: Layout = match Layout::from_size_align(4 << 20, 8) {
    Ok(layout) => layout,
    Err(_) => panic!("4 MiB are no layout"),
};

/// Counts kernels; starts or ends the other client's session when their number says so.
pub(crate) fn count(kernels: u64) {
    static KERNELS: AtomicU64 = AtomicU64::new(0);
    let Some(after) = faults().takeover else { return };
    let before = KERNELS.fetch_add(kernels, Ordering::AcqRel);
    let crosses = |mark: u64| before < mark && mark <= before + kernels;
    if crosses(after) {
        POOL.register(requested, completed, true);
        ITS_KINDS.into_iter().for_each(|kind| KINDS_ENABLED.enable(kind));
    }
    if crosses(2 * after) {
        ITS_KINDS
            .into_iter()
            .for_each(|kind| KINDS_ENABLED.disable(kind, first_disable()));
    }
}

static ITS_BUFFERS: Mutex<Option<HashSet<usize>>> = Mutex::new(None);

unsafe extern "C" fn requested(buffer: *mut *mut u8, size: *mut usize, limit: *mut usize) {
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc(ITS_BUFFER) };
    lock(&ITS_BUFFERS).get_or_insert_default().insert(memory as usize);
    // SAFETY: CUPTI gives three valid places.
    unsafe {
        buffer.write(memory);
        size.write(ITS_BUFFER.size());
        limit.write(0);
    }
}

/// Buffers that the client before it had lent arrive here, too: it does not know them and leaves them alone.
unsafe extern "C" fn completed(_: *mut c_void, _: u32, buffer: *mut u8, _: usize, _: usize) {
    let known = lock(&ITS_BUFFERS).get_or_insert_default().remove(&(buffer as usize));
    if known {
        // SAFETY: made by `requested` with this layout, and handed back just now.
        unsafe { dealloc(buffer, ITS_BUFFER) };
    }
}
