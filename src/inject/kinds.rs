//! Which kinds of record are on. CUPTI remembers how they were turned on and off, see docs/architecture.md ("On and off").

use std::sync::atomic::{AtomicBool, Ordering};

use cupti_sys::constants::*;
use cupti_sys::loader::Cupti;

use crate::inject::contexts;

/// What tells of contexts and streams, as they are made: of no cost to launches, so on before there is one.
const OF_CONTEXTS: [u32; 3] = [KIND_DEVICE, KIND_CONTEXT, KIND_STREAM];

/// Kinds of every capture beside those; without the first there is none. API calls come on top of them with `--trace api`.
const OF_WORK: [u32; 6] = [
    KIND_CONCURRENT_KERNEL,
    KIND_MEMCPY,
    KIND_MEMCPY2,
    KIND_MEMSET,
    KIND_SYNCHRONIZATION,
    KIND_OVERHEAD,
];

const OF_CALLS: [u32; 2] = [KIND_RUNTIME, KIND_DRIVER];

/// All that may be on.
pub(crate) fn all() -> impl Iterator<Item = u32> {
    OF_CONTEXTS.into_iter().chain(OF_WORK).chain(OF_CALLS)
}

type Toggle = unsafe extern "C" fn(u32) -> u32;

/// The kinds of this process.
///
/// The kinds of work are turned on once there is a context. Where they were on before, CUPTI 13 gives the threads that
/// launch after a window no new correlation ids, in later windows neither, so that nothing would belong to these.
#[derive(Debug)]
pub(crate) struct Kinds {
    /// CUDA was initialised just now: there is no context yet, and we are called back as one is made.
    awaits_context: AtomicBool,
    /// Records are wanted.
    wanted: AtomicBool,
    /// They were turned on where no context was known of: synchronizations stay on then, which keeps the ids coming.
    blind: AtomicBool,
    /// API calls are on. Turning them off and on again would stop the kernel records of graphs captured meanwhile.
    calls: AtomicBool,
}

impl Kinds {
    pub(crate) fn new(awaits_context: bool) -> Kinds {
        Kinds {
            awaits_context: AtomicBool::new(awaits_context),
            wanted: AtomicBool::new(false),
            blind: AtomicBool::new(false),
            calls: AtomicBool::new(false),
        }
    }

    /// Turns them on, at once or as the first context is made. The error is what CUPTI says.
    pub(crate) fn enable(&self, cupti: &Cupti, with_calls: bool) -> Result<(), u32> {
        let enable = cupti.functions.cuptiActivityEnable.ok_or(ERROR_NOT_SUPPORTED)?;
        toggle(enable, OF_CONTEXTS);
        if with_calls && !self.calls.swap(true, Ordering::AcqRel) {
            toggle(enable, OF_CALLS);
        }
        self.wanted.store(true, Ordering::SeqCst);
        // With calls on there is always somebody for whom ids are counted.
        if !self.calls.load(Ordering::Acquire) {
            if self.awaits_context.load(Ordering::SeqCst) {
                return Ok(());
            }
            self.blind.fetch_or(!contexts::is_any_known(), Ordering::AcqRel);
        }
        of_work(enable)
    }

    /// CUPTI calls back as a context was made, on the thread that makes it.
    pub(crate) fn context_made(&self, cupti: &Cupti) -> Result<(), u32> {
        let was_awaited = self.awaits_context.swap(false, Ordering::SeqCst);
        match cupti.functions.cuptiActivityEnable {
            Some(enable) if was_awaited && self.wanted.load(Ordering::SeqCst) => of_work(enable),
            _ => Ok(()),
        }
    }

    /// Turns them off; what was launched before still arrives. Not where that could hang the program.
    pub(crate) fn disable(&self, cupti: &Cupti) {
        self.wanted.store(false, Ordering::SeqCst);
        let Some(disable) = cupti.functions.cuptiActivityDisable.filter(|_| can_disable(cupti)) else {
            return;
        };
        let blind = self.blind.load(Ordering::Acquire);
        let kept = |kind: &u32| blind && *kind == KIND_SYNCHRONIZATION;
        toggle(
            disable,
            OF_CONTEXTS.into_iter().chain(OF_WORK).filter(|kind| !kept(kind)),
        );
    }

    /// The same, API calls too, as the guest does when it gives up.
    pub(crate) fn disable_for_good(&self, cupti: &Cupti) {
        self.blind.store(false, Ordering::Release);
        self.disable(cupti);
        if let Some(disable) = cupti.functions.cuptiActivityDisable.filter(|_| can_disable(cupti))
            && self.calls.load(Ordering::Acquire)
        {
            toggle(disable, OF_CALLS);
        }
    }
}

fn of_work(enable: Toggle) -> Result<(), u32> {
    let [kernels, others @ ..] = OF_WORK;
    // SAFETY: a call by value.
    match unsafe { enable(kernels) } {
        SUCCESS => toggle(enable, others),
        status => return Err(status),
    }
    Ok(())
}

fn toggle(call: Toggle, kinds: impl IntoIterator<Item = u32>) {
    for kind in kinds {
        // SAFETY: a call by value.
        unsafe { call(kind) };
    }
}

/// Whether kinds may be turned off while the program runs. Before 13.0 Update 1 `cuptiActivityDisable` waits for a lock of
/// the driver with one of CUPTI's held, and a thread that launches a graph holds the former and waits for the latter: on
/// an H100 the program hung in 23 of 82 runs.
pub(crate) fn can_disable(cupti: &Cupti) -> bool {
    cupti.version >= API_VERSION_13_0_UPDATE_1
}

/// What the session says where they can't be.
pub(crate) fn why_records_stay_on(cupti: &Cupti) -> String {
    format!(
        "`{}` (API {}) can hang a program that launches CUDA graphs while records are turned off, so they stayed on after \
         the window and the program ran on at the speed that it has in one; use CUPTI 13.0.85 or newer (CUDA 13.0 Update \
         1), which can turn them off",
        cupti.path.display(),
        cupti.version
    )
}
