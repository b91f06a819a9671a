//! A bare CUPTI client for `CUDA_INJECTION64_PATH`: counts records and writes the counts as JSON at exit. It knows
//! nothing of colonel, so what it counts shows what the stand-in libcupti does. Settings come from `SIM_CLIENT_*`.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeSet;
use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use cupti_sys::constants::*;
use cupti_sys::functions::Functions;
use cupti_sys::layouts::Strides;
use cupti_sys::records::{CallbackData, Kernel, Synchronization, read};
use libloading::os::unix::Library;

/// What was seen.
#[derive(Debug, Default, serde::Serialize)]
struct Seen {
    version: u32,
    results: Vec<(String, u32)>,
    kernels: u64,
    memcpys: u64,
    peer_memcpys: u64,
    memsets: u64,
    api_calls: u64,
    synchronizations: u64,
    devices: u64,
    contexts: u64,
    streams: u64,
    overheads: u64,
    unreadable_bytes: usize,
    zero_timestamps: u64,
    reversed: u64,
    unfinished: u64,
    names_not_utf8: u64,
    names: BTreeSet<String>,
    /// Graph nodes of the kernels that took longer than a millisecond, in the order of their records.
    overlong_nodes: Vec<u32>,
    /// Kernels whose graph node does not carry the id of their graph.
    wrong_graph_nodes: u64,
    correlation_ids: BTreeSet<u32>,
    graphs: BTreeSet<u32>,
    threads_of_completion: BTreeSet<i32>,
    main_thread: i32,
    dropped: usize,
    windows: u64,
}

static SEEN: Mutex<Option<Seen>> = Mutex::new(None);
static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
static REFUSE: AtomicBool = AtomicBool::new(false);

fn with_seen(see: impl FnOnce(&mut Seen)) {
    see(SEEN.lock().unwrap().get_or_insert_default());
}

fn setting(name: &str) -> Option<String> {
    std::env::var(format!("SIM_CLIENT_{name}")).ok()
}

fn buffer_layout() -> Layout {
    let bytes = setting("BUFFER")
        .and_then(|bytes| bytes.parse().ok())
        .unwrap_or(64 << 10);
    Layout::from_size_align(bytes, 8).unwrap()
}

unsafe extern "C" fn requested(buffer: *mut *mut u8, size: *mut usize, limit: *mut usize) {
    let layout = buffer_layout();
    // SAFETY: the layout is not empty, and CUPTI gives three valid places.
    unsafe {
        buffer.write(if REFUSE.load(Ordering::Relaxed) {
            std::ptr::null_mut()
        } else {
            alloc(layout)
        });
        size.write(layout.size());
        limit.write(0);
    }
}

unsafe extern "C" fn completed(_: *mut c_void, _: u32, buffer: *mut u8, _: usize, valid: usize) {
    // SAFETY: CUPTI hands back `valid` bytes of records in a buffer of ours.
    let mut bytes = unsafe { std::slice::from_raw_parts(buffer, valid) };
    with_seen(|seen| {
        let strides = Strides::new(seen.version);
        // SAFETY: no preconditions.
        seen.threads_of_completion.insert(unsafe { libc::gettid() });
        while let Some((kind, record)) = strides.next(&mut bytes) {
            see(seen, kind, record);
        }
        seen.unreadable_bytes += bytes.len();
    });
    // SAFETY: allocated by `requested` with this layout.
    unsafe { dealloc(buffer, buffer_layout()) };
}

fn see(seen: &mut Seen, kind: u32, record: &[u8]) {
    match kind {
        KIND_CONCURRENT_KERNEL | KIND_KERNEL => see_kernel(seen, &read(record)),
        KIND_MEMCPY => seen.memcpys += 1,
        KIND_MEMCPY2 => seen.peer_memcpys += 1,
        KIND_MEMSET => seen.memsets += 1,
        KIND_DRIVER | KIND_RUNTIME => seen.api_calls += 1,
        KIND_SYNCHRONIZATION => {
            seen.synchronizations += u64::from(read::<Synchronization>(record).sync_type == SYNC_STREAM_SYNCHRONIZE);
        }
        KIND_DEVICE => seen.devices += 1,
        KIND_CONTEXT => seen.contexts += 1,
        KIND_STREAM => seen.streams += 1,
        KIND_OVERHEAD => seen.overheads += 1,
        _ => {}
    }
}

fn see_kernel(seen: &mut Seen, kernel: &Kernel) {
    seen.kernels += 1;
    seen.zero_timestamps += u64::from(kernel.start == 0);
    seen.unfinished += u64::from(kernel.start != 0 && kernel.end == 0);
    seen.reversed += u64::from(kernel.end != 0 && kernel.end < kernel.start);
    if kernel.end.saturating_sub(kernel.start) > 1_000_000 {
        seen.overlong_nodes.push(kernel.graph_node_id as u32);
    }
    seen.wrong_graph_nodes += u64::from(kernel.graph_node_id >> 32 != u64::from(kernel.graph_id));
    seen.correlation_ids.insert(kernel.correlation_id);
    seen.graphs.insert(kernel.graph_id);
    // SAFETY: the name of a kernel record is a C string.
    match unsafe { CStr::from_ptr(kernel.name) }.to_str() {
        Ok(name) => {
            seen.names.insert(name.to_owned());
        }
        Err(_) => seen.names_not_utf8 += 1,
    }
}

fn call(name: &str, result: u32) {
    with_seen(|seen| seen.results.push((name.to_owned(), result)));
}

fn kinds() -> Vec<u32> {
    let kinds = setting("KINDS").unwrap_or_else(|| "10,1,22,2".into());
    kinds.split(',').filter_map(|kind| kind.parse().ok()).collect()
}

fn enable(functions: &Functions) {
    for kind in kinds() {
        // SAFETY: CUPTI's function, called as documented.
        call("enable", unsafe { functions.cuptiActivityEnable.unwrap()(kind) });
    }
}

fn disable(functions: &Functions) {
    for kind in kinds() {
        // SAFETY: as above.
        call("disable", unsafe { functions.cuptiActivityDisable.unwrap()(kind) });
    }
}

fn flush(functions: &Functions, flag: u32) {
    // SAFETY: as above.
    call("flush", unsafe { functions.cuptiActivityFlushAll.unwrap()(flag) });
}

fn dropped(functions: &Functions) -> usize {
    let mut dropped = 0;
    // SAFETY: as above.
    unsafe { functions.cuptiActivityGetNumDroppedRecords.unwrap()(std::ptr::null_mut(), 0, &raw mut dropped) };
    dropped
}

/// Opens and closes windows: records are on from the exit of `cuProfilerStart` to the entry of `cuProfilerStop`.
unsafe extern "C" fn callback(_: *mut c_void, domain: u32, cbid: u32, data: *const c_void) {
    let functions = FUNCTIONS.get().unwrap();
    // SAFETY: callbacks of this domain get this struct.
    let data = unsafe { &*data.cast::<CallbackData>() };
    match (domain, cbid, data.callback_site) {
        (DOMAIN_DRIVER_API, 308, SITE_EXIT) => {
            with_seen(|seen| seen.windows += 1);
            enable(functions);
        }
        (DOMAIN_DRIVER_API, 309, SITE_ENTER) => {
            let flush_at_stop = setting("FLUSH_AT_STOP");
            if flush_at_stop.as_deref() == Some("before") {
                flush(functions, 0);
            }
            disable(functions);
            if flush_at_stop.is_none() {
                flush(functions, 0);
            }
            if setting("FINALIZE").is_some() {
                // SAFETY: as above.
                call("finalize", unsafe { functions.cuptiFinalize.unwrap()() });
            }
        }
        _ => {}
    }
}

extern "C" fn finish() {
    let functions = FUNCTIONS.get().unwrap();
    match setting("FIRST_AT_EXIT").as_deref() {
        Some("disable") => disable(functions),
        Some("dropped") => drop(dropped(functions)),
        _ => {}
    }
    let flag = setting("FINAL_FLUSH").and_then(|flag| flag.parse().ok()).unwrap_or(1);
    flush(functions, flag);
    let dropped = dropped(functions);
    with_seen(|seen| {
        seen.dropped = dropped;
        std::fs::write(setting("OUT").unwrap(), serde_json::to_string(seen).unwrap()).unwrap();
    });
}

fn finish_at_exit() {
    // SAFETY: the handler stays mapped, as the whole library does.
    unsafe { libc::atexit(finish) };
}

/// What the driver calls in `cuInit`.
#[unsafe(no_mangle)]
extern "C" fn InitializeInjection() -> i32 {
    let register_early = setting("HANDLER").as_deref() == Some("early");
    if register_early {
        finish_at_exit();
    }
    // SAFETY: the stand-in, which is never unloaded.
    let functions = unsafe {
        let library = Library::new("libcupti.so.13").unwrap();
        let functions = Functions::lookup(&library);
        std::mem::forget(library);
        functions
    };
    let functions = FUNCTIONS.get_or_init(|| functions);
    REFUSE.store(setting("REFUSE").is_some(), Ordering::Relaxed);
    let mut version = 0;
    let mut subscriber = std::ptr::null_mut();
    // SAFETY: as above.
    unsafe {
        functions.cuptiGetVersion.unwrap()(&raw mut version);
        with_seen(|seen| {
            seen.version = version;
            seen.main_thread = libc::gettid();
        });
        let subscribe = functions.cuptiSubscribe.unwrap();
        call(
            "subscribe",
            subscribe(&raw mut subscriber, Some(callback), std::ptr::null_mut()),
        );
        let register = functions.cuptiActivityRegisterCallbacks.unwrap();
        call("register", register(Some(requested), Some(completed)));
    }
    if setting("GATE").as_deref() == Some("profiler") {
        for cbid in [308, 309] {
            // SAFETY: as above.
            call("callback", unsafe {
                functions.cuptiEnableCallback.unwrap()(1, subscriber, DOMAIN_DRIVER_API, cbid)
            });
        }
    }
    if setting("GATE").is_none() || setting("ALSO_AT_START").is_some() {
        enable(functions);
    }
    if !register_early {
        finish_at_exit();
    }
    1
}
