//! All calls to CUPTI, in the order and under the rules of docs/architecture.md.
//!
//! From CUPTI 13 on a subscriber alone makes every CUDA-graph launch dearer, for good. So nothing here runs before the
//! first window, unless the gate has to be seen by a CUPTI callback.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use cupti_sys::callbacks::{CallbackData, SubscriberHandle, SubscriberParams};
use cupti_sys::constants::*;
use cupti_sys::loader::{self, Cupti, Found};

use crate::inject::buffers::BUFFER_BYTES;
use crate::inject::config::Config;
use crate::inject::decode::Layout;
use crate::inject::entry;
use crate::inject::guard;
use crate::inject::guest::Guest;
use crate::inject::kinds::{self, Kinds};
use crate::inject::log::log;
use crate::inject::threads::now_ns;
use crate::inject::writer::Message;
use crate::schema::manifest::{self, Problem};

/// Clocks of CUPTI and of the tables count as one up to here: two reads of one clock lie this far apart.
const SAME_CLOCK_NS: i64 = 1_000_000;

/// CUPTI, once we have subscribed.
pub(crate) struct Attached {
    pub(crate) cupti: Cupti,
    pub(crate) layout: Layout,
    pub(crate) attached_ns: i64,
    pub(crate) clock_offset_ns: i64,
    subscriber: SubscriberHandle,
    driver_get_version: Option<unsafe extern "C" fn(*mut i32) -> u32>,
    /// The driver's CUDA version.
    pub(crate) driver_version: Option<u32>,
    buffers_registered: AtomicBool,
    kinds: Kinds,
    /// Correlation ids that went to our own marks.
    pub(crate) marks: AtomicU32,
}

// SAFETY: the handle is an opaque token for CUPTI's thread-safe functions; nothing dereferences it.
unsafe impl Send for Attached {}
// SAFETY: as above.
unsafe impl Sync for Attached {}

thread_local! {
    /// This thread asks for a correlation id: the callback leaves it here.
    static MARK: Cell<Mark> = const { Cell::new(Mark::NotAsked) };
}

#[derive(Debug, Clone, Copy)]
enum Mark {
    NotAsked,
    Asked,
    Seen(u32),
}

fn problem(code: &str, message: String) -> Problem {
    Problem {
        code: code.to_owned(),
        message,
        time_ns: now_ns(),
    }
}

/// Attaches if nobody has yet. `None`: CUDA is not initialised, so it is too early.
pub(crate) fn attached(guest: &'static Guest) -> Result<Option<&'static Attached>, Problem> {
    if let Some(attached) = guest.attached.get() {
        return Ok(Some(attached));
    }
    // Subscribing would initialise CUDA in the host's stead, and call us back from within.
    if !entry::cuda_is_initialized() {
        return Ok(None);
    }
    let cupti = match loader::load(guest.config.cupti.as_deref()) {
        Ok(cupti) => cupti,
        Err(loader::LoadError::NoDriver) => return Ok(None),
        Err(error) => return Err(no_cupti(&error)),
    };
    log!("{} (API {}), {:?}", cupti.path.display(), cupti.version, cupti.found);
    let attached = subscribe(cupti)?;
    entry::finish_at_exit();
    guest.touch();
    // The gate lets one thread in at a time, so this is the first.
    let attached = guest.attached.get_or_init(|| attached);
    // Asked once the callback finds us: a context made from here on does not come unseen.
    if !entry::cuda_initializes() {
        attached.kinds.await_none();
    }
    Ok(Some(attached))
}

fn no_cupti(error: &loader::LoadError) -> Problem {
    problem("no_cupti", error.to_string())
}

/// The libcupti of this process, without attaching to it.
pub(crate) fn find_cupti(guest: &Guest) -> Result<Cupti, Problem> {
    match guest.attached.get() {
        Some(attached) => Ok(attached.cupti.clone()),
        None => loader::load(guest.config.cupti.as_deref()).map_err(|error| no_cupti(&error)),
    }
}

fn subscribe(cupti: Cupti) -> Result<Attached, Problem> {
    let functions = cupti.functions;
    let mut handle: SubscriberHandle = ptr::null_mut();
    let mut other = [0_u8; 256];
    let status = match (functions.cuptiSubscribe_v2, functions.cuptiSubscribe) {
        (Some(subscribe), _) => {
            let mut params = SubscriberParams {
                struct_size: SubscriberParams::size(cupti.version),
                subscriber_name: c"colonel".as_ptr(),
                old_subscriber_name: other.as_mut_ptr().cast::<c_char>(),
                old_subscriber_size: other.len(),
                allow_multiple_subscribers: 0,
                padding: [0; 7],
            };
            // SAFETY: all pointers live through the call; the callback is a function of this never-unloaded library.
            unsafe { subscribe(&raw mut handle, Some(on_callback), ptr::null_mut(), &raw mut params) }
        }
        (None, Some(subscribe)) => {
            // SAFETY: as above.
            unsafe { subscribe(&raw mut handle, Some(on_callback), ptr::null_mut()) }
        }
        (None, None) => {
            return Err(problem(
                "no_cupti",
                format!("`{}` has no cuptiSubscribe", cupti.path.display()),
            ));
        }
    };
    if status != SUCCESS {
        return Err(refused("cuptiSubscribe", status, &cupti, text(&other)));
    }
    let mut layout = Layout::of_version(cupti.version);
    if let Some(size_of) = functions.cuptiActivityGetStructSize {
        // A library newer than our table says itself how long its records are.
        for kind in kinds::all() {
            let mut size = 0_usize;
            // SAFETY: `size` lives through the call.
            if unsafe { size_of(kind, 0, &raw mut size) } == SUCCESS && size > 0 {
                layout.strides.set(kind, size);
            }
        }
    }
    let mut calls_back = false;
    if let Some(enable) = functions.cuptiEnableCallback {
        // SAFETY: the handle is the one just given. Failure only means that windows go by time.
        unsafe { enable(1, handle, DOMAIN_DRIVER_API, CBID_DRIVER_CU_DRIVER_GET_VERSION) };
        // SAFETY: as above. Without it kinds would wait for ever, so they don't (see `kinds`).
        calls_back = unsafe { enable(1, handle, DOMAIN_RESOURCE, CBID_RESOURCE_CONTEXT_CREATED) } == SUCCESS;
    }
    let clock_offset_ns = clock_offset(&cupti);
    Ok(Attached {
        layout,
        attached_ns: now_ns(),
        clock_offset_ns,
        subscriber: handle,
        driver_version: driver_get_version().and_then(driver_version),
        driver_get_version: driver_get_version(),
        buffers_registered: AtomicBool::new(false),
        kinds: Kinds::new(calls_back),
        marks: AtomicU32::new(0),
        cupti,
    })
}

fn text(bytes: &[u8]) -> Option<String> {
    let text = CStr::from_bytes_until_nul(bytes).ok()?.to_string_lossy();
    (!text.is_empty()).then(|| text.into_owned())
}

fn refused(call: &str, status: u32, cupti: &Cupti, other: Option<String>) -> Problem {
    let (code, message) = match status {
        ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED => (
            "other_subscriber",
            format!(
                "another profiler{} holds CUPTI in this process, and CUPTI takes one at a time; the program ran on \
                 unprofiled. Run it without that profiler (torch.profiler, nsys, ncu, cuda-gdb, compute-sanitizer: each \
                 keeps CUPTI until the process ends)",
                match other {
                    // What CUPTI says of a client that gave no name, torch.profiler among them.
                    Some(name) if !name.contains("<not provided>") => format!(" (`{name}`)"),
                    _ => String::new(),
                }
            ),
        ),
        ERROR_INSUFFICIENT_PRIVILEGES => (
            "no_permission",
            format!(
                "`{call}` needs more rights than this process has (status 35); run as root, or set the driver's \
                     NVreg_RestrictProfilingToAdminUsers=0"
            ),
        ),
        ERROR_NOT_INITIALIZED => (
            "cupti_not_initialized",
            format!(
                "`{call}` of `{}` (API {}) says that it could not initialise (status 15); it is likely newer than the \
                 driver. Point COLONEL_CUPTI at the libcupti of the CUDA version that the program uses",
                cupti.path.display(),
                cupti.version
            ),
        ),
        status => (
            "cupti_error",
            format!(
                "`{call}` of `{}` (API {}) failed with {status} ({})",
                cupti.path.display(),
                cupti.version,
                result_name(status)
            ),
        ),
    };
    problem(code, message)
}

/// To be added to CUPTI's times for Unix ns.
pub(crate) fn clock_offset(cupti: &Cupti) -> i64 {
    let Some(timestamp) = cupti.functions.cuptiGetTimestamp else {
        return 0;
    };
    // The quickest of some tries: a thread that is put aside between two reads would shift every record for good.
    let tries = (0..5).filter_map(|_| {
        let mut cupti_ns = 0_u64;
        let before = now_ns();
        // SAFETY: `cupti_ns` lives through the call.
        let status = unsafe { timestamp(&raw mut cupti_ns) };
        let took = now_ns() - before;
        (status == SUCCESS).then(|| (took, before + took / 2 - cupti_ns.cast_signed()))
    });
    match tries.min_by_key(|(took, _)| *took) {
        Some((took, offset)) if offset.abs() > took + SAME_CLOCK_NS => offset,
        _ => 0,
    }
}

fn driver_get_version() -> Option<unsafe extern "C" fn(*mut i32) -> u32> {
    // SAFETY: takes the copy that is mapped, or none; a symbol of this name in libcuda has this type.
    unsafe {
        let library =
            libloading::os::unix::Library::open(Some("libcuda.so.1"), libc::RTLD_LAZY | libc::RTLD_NOLOAD).ok()?;
        let function = library
            .get::<unsafe extern "C" fn(*mut i32) -> u32>(b"cuDriverGetVersion\0")
            .ok()
            .map(|f| *f);
        // One reference kept: the driver stays mapped for the process's life anyway.
        std::mem::forget(library);
        function
    }
}

fn driver_version(ask: unsafe extern "C" fn(*mut i32) -> u32) -> Option<u32> {
    let mut version = 0;
    // SAFETY: `version` lives through the call.
    let status = unsafe { ask(&raw mut version) };
    (status == 0).then(|| u32::try_from(version).ok()).flatten()
}

impl Attached {
    /// Also calls back for cudaProfilerStart/Stop, for hosts whose calls can't be interposed.
    pub(crate) fn watch_profiler_calls(&self) -> Result<(), Problem> {
        let Some(enable) = self.cupti.functions.cuptiEnableCallback else {
            return Err(problem(
                "cupti_error",
                "this libcupti has no cuptiEnableCallback".to_owned(),
            ));
        };
        for cbid in [CBID_DRIVER_CU_PROFILER_START, CBID_DRIVER_CU_PROFILER_STOP] {
            // SAFETY: the handle is our own subscription.
            let status = unsafe { enable(1, self.subscriber, DOMAIN_DRIVER_API, cbid) };
            if status != SUCCESS {
                return Err(refused("cuptiEnableCallback", status, &self.cupti, None));
            }
        }
        Ok(())
    }

    /// The newest correlation id: a harmless driver call is made, and its callback tells its id.
    pub(crate) fn mark(&self) -> Option<u32> {
        let call = self.driver_get_version?;
        self.marks.fetch_add(1, Ordering::Relaxed);
        MARK.set(Mark::Asked);
        let mut version = 0;
        // SAFETY: `version` lives through the call.
        unsafe { call(&raw mut version) };
        match MARK.replace(Mark::NotAsked) {
            Mark::Seen(id) => Some(id),
            Mark::Asked | Mark::NotAsked => None,
        }
    }

    /// Lends buffers (the first time) and turns the kinds on.
    pub(crate) fn enable(&self, config: &Config) -> Result<(), Problem> {
        let functions = &self.cupti.functions;
        if !self.buffers_registered.swap(true, Ordering::AcqRel) {
            self.set_attributes();
            let Some(register) = functions.cuptiActivityRegisterCallbacks else {
                return Err(problem(
                    "cupti_error",
                    "this libcupti has no cuptiActivityRegisterCallbacks".to_owned(),
                ));
            };
            // SAFETY: both callbacks are functions of this never-unloaded library.
            let status = unsafe { register(Some(buffer_requested), Some(buffer_completed)) };
            if status != SUCCESS {
                return Err(refused("cuptiActivityRegisterCallbacks", status, &self.cupti, None));
            }
        }
        let enabled = self.kinds.enable(&self.cupti, config.trace_api);
        enabled.map_err(|status| refused("cuptiActivityEnable", status, &self.cupti, None))
    }

    /// CUPTI calls back as a context was made. True: the kinds that it turned on are to be turned off once more.
    pub(crate) fn context_made(&self) -> Result<bool, Problem> {
        let made = self.kinds.context_made(&self.cupti);
        made.map_err(|status| refused("cuptiActivityEnable", status, &self.cupti, None))
    }

    /// Turns the kinds off; what was launched before still arrives. The error is why they stay on.
    pub(crate) fn disable(&self) -> Result<(), String> {
        let is_off = self.kinds.disable(&self.cupti);
        is_off
            .then_some(())
            .ok_or_else(|| kinds::why_records_stay_on(&self.cupti))
    }

    /// Turns everything off, API records too, as the guest does when it gives up.
    pub(crate) fn disable_for_good(&self) {
        self.kinds.disable_for_good(&self.cupti);
    }

    /// Delivers what is complete; `forced`: what is not, too. From one thread only: two flushes at once deadlock.
    pub(crate) fn flush(&self, forced: bool) {
        if let Some(flush) = self.cupti.functions.cuptiActivityFlushAll {
            // SAFETY: a call by value.
            unsafe { flush(if forced { FLUSH_FORCED } else { 0 }) };
        }
    }

    /// Id of an executable graph, as records have it.
    pub(crate) fn graph_exec_id(&self, exec: usize) -> Option<u32> {
        let ask = self.cupti.functions.cuptiGetGraphExecId?;
        let mut id = 0;
        // SAFETY: the executable is not destroyed meanwhile, and the place lives through the call.
        let status = unsafe { ask(ptr::with_exposed_provenance_mut(exec), &raw mut id) };
        (status == SUCCESS).then_some(id)
    }

    /// Records that CUPTI dropped since the last call.
    pub(crate) fn dropped(&self) -> u64 {
        let Some(dropped) = self.cupti.functions.cuptiActivityGetNumDroppedRecords else {
            return 0;
        };
        let mut count = 0_usize;
        // SAFETY: a null context asks for the global queue; `count` lives through the call.
        let status = unsafe { dropped(ptr::null_mut(), 0, &raw mut count) };
        if status == SUCCESS { count as u64 } else { 0 }
    }

    fn set_attributes(&self) {
        if let Some(number) = self.cupti.functions.cuptiSetThreadIdType {
            // As the kernel numbers them, as NVTX's ranges have it; by default half of a pthread id. A library that
            // refuses goes on with that.
            // SAFETY: takes a number.
            unsafe { number(THREAD_ID_TYPE_SYSTEM) };
        }
        let Some(set) = self.cupti.functions.cuptiActivitySetAttribute else {
            return;
        };
        // Off by default below 13.0. Zeroing is ours: otherwise CUPTI does it on the launching thread.
        for attribute in [ATTR_PER_THREAD_ACTIVITY_BUFFER, ATTR_ZEROED_OUT_ACTIVITY_BUFFER] {
            let mut value = 1_u8;
            let mut size = size_of::<u8>();
            // SAFETY: size and value live through the call. A library without the attribute refuses, no harm done.
            unsafe { set(attribute, &raw mut size, (&raw mut value).cast()) };
        }
    }
}

/// For the process file.
pub(crate) fn manifest_of(cupti: &Cupti) -> manifest::Cupti {
    manifest::Cupti {
        path: cupti.path.display().to_string(),
        api_version: cupti.version,
        found: match cupti.found {
            Found::Mapped => "mapped",
            Found::Preferred => "env",
            Found::BesideCuda => "beside_cudart",
            Found::LinkerPath => "soname",
            Found::Toolkit => "cuda_home",
        }
        .to_owned(),
    }
}

unsafe extern "C" fn buffer_requested(buffer: *mut *mut u8, size: *mut usize, max_records: *mut usize) {
    guard::ffi((), || {
        let memory = entry::guest().and_then(|guest| guest.pool.request());
        // SAFETY: CUPTI passes three places of its own to fill in.
        unsafe {
            if !max_records.is_null() {
                *max_records = 0;
            }
            if !buffer.is_null() && !size.is_null() {
                *buffer = memory.unwrap_or(ptr::null_mut());
                *size = if memory.is_some() { BUFFER_BYTES } else { 0 };
            }
        }
    });
}

unsafe extern "C" fn buffer_completed(_: *mut c_void, _: u32, buffer: *mut u8, _: usize, valid: usize) {
    guard::ffi((), || {
        let Some(guest) = entry::guest() else { return };
        let layout = guest.attached.get().map(|attached| &attached.layout);
        let Some(filled) = guest.pool.complete(buffer, valid, layout) else {
            return;
        };
        let sent = guest
            .writer
            .get()
            .is_some_and(|writer| writer.try_send(Message::Buffer(filled)).is_ok());
        if !sent {
            guest.pool.discard(filled, layout);
        }
    });
}

unsafe extern "C" fn on_callback(_: *mut c_void, domain: u32, cbid: u32, data: *const c_void) {
    guard::ffi((), || {
        if domain == DOMAIN_RESOURCE && cbid == CBID_RESOURCE_CONTEXT_CREATED {
            return entry::context_made();
        }
        if domain != DOMAIN_DRIVER_API || data.is_null() {
            return;
        }
        // SAFETY: CUPTI passes this struct for the driver domain; it lives through the callback.
        let data = unsafe { &*data.cast::<CallbackData>() };
        let mark = Some(data.correlation_id);
        match (cbid, data.callback_site) {
            (CBID_DRIVER_CU_DRIVER_GET_VERSION, SITE_ENTER) => {
                if matches!(MARK.get(), Mark::Asked) {
                    MARK.set(Mark::Seen(data.correlation_id));
                }
            }
            (CBID_DRIVER_CU_PROFILER_START, SITE_EXIT) => entry::profiler_started(mark),
            (CBID_DRIVER_CU_PROFILER_STOP, SITE_ENTER) => entry::profiler_stopped(mark),
            _ => {}
        }
    });
}
