//! What NVTX costs an armed process, a call: the built `libcolonel_guest.so`, called as a library with NVTX calls it.
//! `plain` is the call of a function that does nothing, as NVTX makes it.

use std::ffi::{CStr, c_char, c_void};
use std::hint::black_box;
use std::path::Path;
use std::ptr;

use criterion::{Criterion, criterion_group, criterion_main};
use libloading::os::unix::Library;

const FUNCTIONS: usize = 16;

type Function = *mut c_void;
type Initialize = unsafe extern "C" fn(unsafe extern "C" fn(u32) -> *const c_void) -> i32;

/// The functions of a library with NVTX, as the guest has replaced them.
struct Nvtx {
    core: [Function; FUNCTIONS],
    core2: [Function; FUNCTIONS],
    places: [[*mut Function; FUNCTIONS + 1]; 2],
}

#[repr(C)]
struct Callbacks {
    size: usize,
    module: unsafe extern "C" fn(u32, *mut *mut *mut Function, *mut u32) -> i32,
}

static CALLBACKS: Callbacks = Callbacks {
    size: size_of::<Callbacks>(),
    module,
};
static mut NVTX: Nvtx = Nvtx {
    core: [ptr::null_mut(); FUNCTIONS],
    core2: [ptr::null_mut(); FUNCTIONS],
    places: [[ptr::null_mut(); FUNCTIONS + 1]; 2],
};

unsafe extern "C" fn export_table(id: u32) -> *const c_void {
    if id == 1 {
        (&raw const CALLBACKS).cast()
    } else {
        ptr::null()
    }
}

unsafe extern "C" fn module(id: u32, places: *mut *mut *mut Function, length: *mut u32) -> i32 {
    // SAFETY: called by the guest, from `attach` below, on the only thread.
    unsafe {
        let nvtx = &raw mut NVTX;
        let (functions, all) = match id {
            1 => (&mut (*nvtx).core, &mut (*nvtx).places[0]),
            5 => (&mut (*nvtx).core2, &mut (*nvtx).places[1]),
            _ => return 0,
        };
        for (place, function) in all.iter_mut().zip(functions) {
            *place = function;
        }
        *places = all.as_mut_ptr();
        *length = 16;
    }
    1
}

/// Loads the guest as NVTX and the CUDA driver do, and gives its functions: an armed process.
fn attach(session: &Path, gate: &str) -> &'static Nvtx {
    let program = std::env::current_exe().expect("a path");
    let guest = program
        .ancestors()
        .nth(2)
        .expect("a target folder")
        .join("libcolonel_guest.so");
    // SAFETY: no other thread runs yet; the guest's entry is called with NVTX's own protocol.
    unsafe {
        std::env::set_var("COLONEL_SESSION", session);
        std::env::set_var("COLONEL_GATE", gate);
        let library = Library::open(Some(&guest), libc::RTLD_LAZY)
            .unwrap_or_else(|error| panic!("{error}: `cargo build --release -p colonel-guest` makes it"));
        let initialize = *library
            .get::<Initialize>(b"InitializeInjectionNvtx2\0")
            .expect("an NVTX entry");
        let cuda = *library
            .get::<unsafe extern "C" fn() -> i32>(b"InitializeInjection\0")
            .expect("a CUDA entry");
        std::mem::forget(library);
        assert_eq!((initialize(export_table), cuda()), (1, 1));
        (&raw const NVTX).as_ref().expect("a static")
    }
}

/// A function of NVTX as one of this type.
macro_rules! function {
    ($of:expr, $type:ty) => {
        // SAFETY: NVTX's functions of this number have this type.
        unsafe { std::mem::transmute::<Function, $type>($of) }
    };
}

unsafe extern "C" fn nothing(_: *const c_char) -> i32 {
    0
}

fn nvtx(criterion: &mut Criterion) {
    // Names are compared with the pattern at each push, and none matches.
    let session = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(session.path().join("processes")).expect("a folder");
    let nvtx = attach(session.path(), "nvtx:step*");
    let push = function!(nvtx.core[9], unsafe extern "C" fn(*const c_char) -> i32);
    let pop = function!(nvtx.core[11], unsafe extern "C" fn() -> i32);
    let start = function!(nvtx.core[5], unsafe extern "C" fn(*const c_char) -> u64);
    let end = function!(nvtx.core[7], unsafe extern "C" fn(u64));
    let mark = function!(nvtx.core[2], unsafe extern "C" fn(*const c_char));
    let create = function!(nvtx.core2[12], unsafe extern "C" fn(*const c_char) -> usize);
    let register = function!(nvtx.core2[10], unsafe extern "C" fn(usize, *const c_char) -> usize);
    let push_in = function!(nvtx.core2[4], unsafe extern "C" fn(usize, *const [u64; 6]) -> i32);
    let pop_in = function!(nvtx.core2[5], unsafe extern "C" fn(usize) -> i32);
    let name: &CStr = c"model.layers.11.self_attn.qkv_proj";
    let mut group = criterion.benchmark_group("nvtx, armed");
    // SAFETY: all of these are the guest's functions, called with texts that live.
    unsafe {
        group.bench_function("plain", |bencher| {
            bencher.iter(|| black_box(nothing as unsafe extern "C" fn(_) -> _)(name.as_ptr()))
        });
        group.bench_function("push and pop", |bencher| {
            bencher.iter(|| {
                push(black_box(name).as_ptr());
                pop()
            });
        });
        for _ in 0..20 {
            push(name.as_ptr());
        }
        group.bench_function("push and pop within 20", |bencher| {
            bencher.iter(|| {
                push(black_box(name).as_ptr());
                pop()
            });
        });
        let domain = create(c"vllm".as_ptr());
        let string = register(domain, name.as_ptr());
        // Version, size, a registered message: the layout of nvtxEventAttributes_t.
        let event: [u64; 6] = [3 | 48 << 16, 0, 0, 0, 3, string as u64];
        group.bench_function("push and pop, domain and registered string", |bencher| {
            bencher.iter(|| {
                push_in(domain, black_box(&raw const event));
                pop_in(domain)
            });
        });
        group.bench_function("start and end", |bencher| {
            bencher.iter(|| end(start(black_box(name).as_ptr())))
        });
        group.bench_function("mark", |bencher| bencher.iter(|| mark(black_box(name).as_ptr())));
    }
    group.finish();
}

criterion_group!(benches, nvtx);
criterion_main!(benches);
