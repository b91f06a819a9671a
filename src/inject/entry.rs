//! How we get into a process, out of it, and past a fork.
//!
//! All entries lead to one idempotent start. There is no constructor: it would run in every shell and compiler of the
//! command's process tree.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, Ordering};
use std::time::Duration;

use crate::inject::command::{Open, Trigger};
use crate::inject::config::{Config, GateBy, GateKind};
use crate::inject::descriptors;
use crate::inject::guest::Guest;
use crate::inject::late::Call;
use crate::inject::log::{self, log};
use crate::inject::losses::Reason;
use crate::inject::preload::{self, Shadowed};
use crate::inject::process_file::{self, Identity};
use crate::inject::steward;
use crate::inject::wake::Wake;
use crate::inject::{attach, guard, nvtx, windows};

pub use crate::inject::graphs::calls::{GraphCall, Role};

/// Longest stay of the host's exit for the last records to be sealed.
const EXIT_WAIT: Duration = Duration::from_secs(3);

static GUEST: AtomicPtr<Guest> = AtomicPtr::new(ptr::null_mut());
static START: AtomicU8 = AtomicU8::new(UNSTARTED);
static HANDLERS: AtomicBool = AtomicBool::new(false);
static CUDA_INITIALIZED: AtomicBool = AtomicBool::new(false);
static CUDA_INITIALIZES: AtomicBool = AtomicBool::new(false);
static SEEN_BY: AtomicU8 = AtomicU8::new(BY_NOTHING);

const UNSTARTED: u8 = 0;
const STARTING: u8 = 1;
const STARTED: u8 = 2;

const BY_NOTHING: u8 = 0;
const BY_PRELOAD: u8 = 1;
const BY_CALLBACK: u8 = 2;

static CUDA_PROFILER_START: Shadowed = Shadowed::of_runtime(c"cudaProfilerStart");
static CUDA_PROFILER_STOP: Shadowed = Shadowed::of_runtime(c"cudaProfilerStop");
static CU_PROFILER_START: Shadowed = Shadowed::of_driver(c"cuProfilerStart");
static CU_PROFILER_STOP: Shadowed = Shadowed::of_driver(c"cuProfilerStop");

/// The guest of this process, once started.
pub(crate) fn guest() -> Option<&'static Guest> {
    // SAFETY: the pointer is null or to a leaked guest.
    unsafe { GUEST.load(Ordering::Acquire).as_ref() }
}

/// True once the driver has called us: CUPTI may be called from then on.
pub(crate) fn cuda_is_initialized() -> bool {
    CUDA_INITIALIZED.load(Ordering::Acquire)
}

/// True while the driver calls us: there is no context yet.
pub(crate) fn cuda_initializes() -> bool {
    CUDA_INITIALIZES.load(Ordering::SeqCst)
}

/// How cudaProfilerStart/Stop is seen, for the process file.
pub(crate) fn gate_by() -> Option<&'static str> {
    match SEEN_BY.load(Ordering::Acquire) {
        BY_PRELOAD => Some("preload"),
        BY_CALLBACK => Some("callback"),
        _ => None,
    }
}

/// The driver initialises: called on the host's thread inside cuInit. `ours`: address of our cudaProfilerStart.
pub fn initialize_injection(ours: *const c_void) -> i32 {
    let done = guard::ffi(1, || {
        nvtx::quietly(|| {
            if let Some(guest) = start() {
                CUDA_INITIALIZES.store(true, Ordering::SeqCst);
                cuda_initialized(guest, ours);
            }
        });
        1
    });
    // Also after a failure of ours.
    CUDA_INITIALIZES.store(false, Ordering::SeqCst);
    done
}

/// A library with NVTX initialises it: called with NVTX's table of tables. `ours`: address of this library's entry.
///
/// The guest does not start here: NVTX is also in programs without CUDA.
///
/// # Safety
/// `table` is null or what NVTX passes to an injection.
pub unsafe fn initialize_injection_nvtx(table: *const c_void, ours: *const c_void) -> i32 {
    guard::ffi(0, || {
        if table.is_null() {
            return 0;
        }
        guard::quiet_panics();
        register_handlers();
        // SAFETY: the caller's promise.
        let table = unsafe { std::mem::transmute::<*const c_void, nvtx::GetExportTable>(table) };
        nvtx::initialize(table, ours)
    })
}

/// An extension of NVTX initialises: it goes to the tool whose place we took, if there was one.
pub fn initialize_injection_nvtx_extension(module: *mut c_void, ours: *const c_void) -> i32 {
    guard::ffi(0, || nvtx::initialize_extension(module, ours))
}

/// The host calls cudaProfilerStart.
pub fn cuda_profiler_start() -> u32 {
    guard::ffi(0, || start_then(&CUDA_PROFILER_START))
}

/// The host calls cudaProfilerStop.
pub fn cuda_profiler_stop() -> u32 {
    guard::ffi(0, || stop_then(&CUDA_PROFILER_STOP))
}

/// The host calls cuProfilerStart.
pub fn cu_profiler_start() -> u32 {
    guard::ffi(0, || start_then(&CU_PROFILER_START))
}

/// The host calls cuProfilerStop.
pub fn cu_profiler_stop() -> u32 {
    guard::ffi(0, || stop_then(&CU_PROFILER_STOP))
}

fn start_then(real: &Shadowed) -> u32 {
    // Our own failure must not keep the host's call from being made.
    guard::ffi((), || {
        if let Some(guest) = start().filter(|guest| opens_by_preload(guest)) {
            guest.profiler_called(Call::Start, None, true);
        }
    });
    real.call()
}

fn stop_then(real: &Shadowed) -> u32 {
    guard::ffi((), || {
        if let Some(guest) = guest().filter(|guest| opens_by_preload(guest)) {
            guest.profiler_called(Call::Stop, None, true);
        }
    });
    real.call()
}

fn opens_by_preload(guest: &Guest) -> bool {
    guest.config.gate == GateKind::Profiler && SEEN_BY.load(Ordering::Acquire) != BY_CALLBACK
}

/// CUPTI calls back at the exit of cuProfilerStart, on the host's thread.
pub(crate) fn profiler_started(mark: Option<u32>) {
    if let Some(guest) = guest() {
        guest.profiler_called(Call::Start, mark, false);
    }
}

/// CUPTI calls back at the entry of cuProfilerStop, on the host's thread.
pub(crate) fn profiler_stopped(mark: Option<u32>) {
    if let Some(guest) = guest() {
        guest.profiler_called(Call::Stop, mark, false);
    }
}

/// CUPTI calls back as a context was made, on the host's thread.
pub(crate) fn context_made() {
    if let Some(guest) = guest() {
        guest.context_made();
    }
}

/// Starts the guest if there is a session and nobody has yet.
fn start() -> Option<&'static Guest> {
    match START.compare_exchange(UNSTARTED, STARTING, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            let started = try_start();
            START.store(STARTED, Ordering::Release);
            started
        }
        Err(_) => guest(),
    }
}

fn try_start() -> Option<&'static Guest> {
    let config = Config::from_environment()?;
    guard::quiet_panics();
    log::enable(config.log);
    if !config.session.is_dir() {
        log!("session folder `{}` is gone: staying out", config.session.display());
        return None;
    }
    descriptors::hold_closed_standard();
    let wake = Wake::new().ok()?;
    let guest: &'static Guest = Box::leak(Box::new(Guest::new(config, Identity::of_this_process(), wake)));
    if guest.identity.process_path(&guest.config.session).exists() {
        // `exec` keeps pid and start time. What the program before had not sealed is gone with its memory.
        guest.losses.add("records", Reason::NotSealed, None);
        guest.problem(
            "replaced_by_exec",
            "this process recorded as another program before it became this one by `exec`; of that one only what was \
             on disk is left, and its windows are counted from 1 again"
                .to_owned(),
        );
    }
    GUEST.store(ptr::from_ref(guest).cast_mut(), Ordering::Release);
    register_handlers();
    if let Err(error) = steward::start(guest) {
        guest.gate.turn_off();
        guest.problem("no_thread", format!("failed to start the steward thread: {error}"));
        let _ = process_file::write(guest, None, None);
        return None;
    }
    log!(
        "armed: gate {}, session {}",
        guest.config.gate_name(),
        guest.config.session.display()
    );
    Some(guest)
}

fn cuda_initialized(guest: &'static Guest, ours: *const c_void) {
    CUDA_INITIALIZED.store(true, Ordering::Release);
    match guest.config.gate {
        GateKind::Process => guest.open_window(Open::by(Trigger::Process), true),
        GateKind::Manual => {}
        GateKind::Nvtx => nvtx::open_waiting(),
        GateKind::Profiler => {
            let by_callback = match guest.config.gate_by {
                GateBy::Callback => true,
                GateBy::Preload => false,
                GateBy::Auto => !preload::shared_runtime_is_mapped() || !preload::is_interposed(ours),
            };
            if by_callback {
                watch_by_callback(guest);
            } else {
                SEEN_BY.store(BY_PRELOAD, Ordering::Release);
                guest.reopen_deferred();
            }
            guest.touch();
            guest.wake.steward();
        }
    }
}

fn watch_by_callback(guest: &'static Guest) {
    SEEN_BY.store(BY_CALLBACK, Ordering::Release);
    let watched = attach::attached(guest).and_then(|attached| match attached {
        Some(attached) => attached.watch_profiler_calls(),
        None => Ok(()),
    });
    if let Err(problem) = watched {
        guest.gate.turn_off();
        guest.problem(&problem.code, problem.message);
    }
}

/// Once in a process and all its forks.
fn register_handlers() {
    if !HANDLERS.swap(true, Ordering::AcqRel) {
        // SAFETY: a function of this library, which is never unloaded.
        unsafe { libc::pthread_atfork(None, None, Some(after_fork_in_child)) };
        finish_at_exit();
    }
}

/// Handlers run last registered first. So this is called again once libcupti is loaded: a libcupti that is torn down
/// before our last flush takes the host with it (seen on the H100 as SIGSEGV at exit).
pub(crate) fn finish_at_exit() {
    // SAFETY: a function of this library, which is never unloaded.
    unsafe { libc::atexit(at_exit) };
}

/// The child starts clean: it has none of our threads, and what it inherited of our state is left alone, since locks
/// in it may be held for ever. Forked after cuInit it can't use CUDA, and CUPTI's inherited locks may be held, too: it
/// stays out for good.
extern "C" fn after_fork_in_child() {
    GUEST.store(ptr::null_mut(), Ordering::Release);
    SEEN_BY.store(BY_NOTHING, Ordering::Release);
    nvtx::forget();
    windows::forget();
    let start = if CUDA_INITIALIZED.load(Ordering::Acquire) {
        STARTED
    } else {
        UNSTARTED
    };
    START.store(start, Ordering::Release);
}

extern "C" fn at_exit() {
    guard::ffi((), finish);
}

fn finish() {
    // A child of `vfork` shares this memory and has none of the threads.
    if let Some(guest) = guest().filter(|guest| guest.identity.pid == std::process::id()) {
        guest.wake.finish(EXIT_WAIT);
    }
}

/// The host leaves without its handlers, as a forked EngineCore of vLLM does.
///
/// libc's own is not looked up, which may wait for the loader's lock: this is all that it does.
pub fn exit_now(status: i32) -> ! {
    guard::ffi((), finish);
    loop {
        // SAFETY: ends the process; no memory is touched.
        unsafe { libc::syscall(libc::SYS_exit_group, status) };
    }
}
