//! Which kinds of record are on. CUPTI remembers how they were turned on and off, see docs/architecture.md ("On and off").

use std::sync::atomic::{AtomicBool, Ordering};

use cupti_sys::constants::*;
use cupti_sys::loader::Cupti;

use crate::inject::{contexts, entry};

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
    /// There may be no context yet, and we are called back as one is made.
    awaits_context: AtomicBool,
    /// Records are wanted.
    wanted: AtomicBool,
    /// The kinds of work were on before, or could have been: only the first time matters to CUPTI.
    began: AtomicBool,
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
            began: AtomicBool::new(false),
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
        if self.awaits_context.load(Ordering::SeqCst) {
            return Ok(());
        }
        if !self.began.swap(true, Ordering::AcqRel) {
            // The driver is not asked where calls are recorded, since these would be among them, nor from within cuInit.
            let is_blind = with_calls || entry::cuda_initializes() || !contexts::is_any_known();
            self.blind.store(is_blind, Ordering::Release);
        }
        of_work(enable)
    }

    /// There may be a context that we are not called back for.
    pub(crate) fn await_none(&self) {
        self.awaits_context.store(false, Ordering::SeqCst);
    }

    /// CUPTI calls back as a context was made, on the thread that makes it. True: they were turned on for a window whose
    /// records another thread turned off meanwhile, and are to be turned off once more.
    pub(crate) fn context_made(&self, cupti: &Cupti) -> Result<bool, u32> {
        if !self.awaits_context.swap(false, Ordering::SeqCst) {
            return Ok(false);
        }
        self.began.store(true, Ordering::Release);
        match cupti.functions.cuptiActivityEnable {
            Some(enable) if self.wanted.load(Ordering::SeqCst) => of_work(enable)?,
            _ => return Ok(false),
        }
        Ok(!self.wanted.load(Ordering::SeqCst))
    }

    /// Turns them off; what was launched before still arrives. False: they stay on, since that could hang the program.
    pub(crate) fn disable(&self, cupti: &Cupti) -> bool {
        self.wanted.store(false, Ordering::SeqCst);
        if self.awaits_context.load(Ordering::SeqCst) {
            // None of work is on. The others stay on for the context to come, which is not disturbed as it is made.
            return true;
        }
        if can_disable(cupti) {
            let blind = self.blind.load(Ordering::Acquire);
            let kept = |kind: &u32| blind && *kind == KIND_SYNCHRONIZATION;
            let off = OF_CONTEXTS.into_iter().chain(OF_WORK).filter(|kind| !kept(kind));
            disable_each(cupti, off);
        }
        can_disable(cupti)
    }

    /// All of them, API calls too, as the guest does when it gives up.
    pub(crate) fn disable_for_good(&self, cupti: &Cupti) {
        self.wanted.store(false, Ordering::SeqCst);
        if can_disable(cupti) {
            disable_each(cupti, OF_CONTEXTS.into_iter().chain(OF_WORK));
            if self.calls.load(Ordering::Acquire) {
                disable_each(cupti, OF_CALLS);
            }
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

fn disable_each(cupti: &Cupti, kinds: impl IntoIterator<Item = u32>) {
    if let Some(disable) = cupti.functions.cuptiActivityDisable {
        toggle(disable, kinds);
    }
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
fn can_disable(cupti: &Cupti) -> bool {
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Mutex;

    use cupti_sys::functions::Functions;
    use cupti_sys::loader::Found;

    use super::*;

    static KINDS: Mutex<Option<&Kinds>> = Mutex::new(None);

    /// As of a steward that turns the records off in the midst of this.
    unsafe extern "C" fn enable(kind: u32) -> u32 {
        if kind == KIND_CONCURRENT_KERNEL
            && let Some(kinds) = *KINDS.lock().unwrap()
        {
            kinds.disable(&cupti(None));
        }
        SUCCESS
    }

    fn cupti(enable: Option<Toggle>) -> Cupti {
        Cupti {
            functions: Functions {
                cuptiActivityEnable: enable,
                ..Functions::default()
            },
            path: PathBuf::new(),
            found: Found::Mapped,
            version: API_VERSION_13_1,
        }
    }

    fn awaiting() -> &'static Kinds {
        Box::leak(Box::new(Kinds::new(true)))
    }

    #[test]
    fn what_is_turned_on_as_a_window_closes_is_turned_off_once_more() {
        let cupti = cupti(Some(enable));
        let kinds = awaiting();
        assert_eq!(kinds.enable(&cupti, false), Ok(()));
        assert_eq!(kinds.context_made(&cupti), Ok(false), "the window is open");
        assert_eq!(
            kinds.context_made(&cupti),
            Ok(false),
            "nobody waits for a second context"
        );

        let kinds = awaiting();
        assert_eq!(kinds.enable(&cupti, false), Ok(()));
        *KINDS.lock().unwrap() = Some(kinds);
        assert_eq!(kinds.context_made(&cupti), Ok(true));

        let kinds = awaiting();
        *KINDS.lock().unwrap() = None;
        assert_eq!(kinds.context_made(&cupti), Ok(false), "no window is open");
    }
}
