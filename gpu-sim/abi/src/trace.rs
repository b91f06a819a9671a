//! How an API function of the stand-ins is written: the [`api!`](crate::api) macro exports it under its C name and, only
//! while somebody traces, announces its begin and end with its arguments.

use std::ffi::{c_char, c_void};
use std::sync::atomic::Ordering;

use crate::{ApiCall, Hooks, Scratch, Status, Tracer, status};

/// What is fixed about an API function.
pub struct Function {
    /// Callback domain.
    pub domain: u32,
    /// Callback id.
    pub cbid: u32,
    /// Its name, ending in NUL.
    pub name: &'static str,
}

/// The tracer, if there is one.
#[inline]
pub fn tracer(hooks: &Hooks) -> Option<&'static Tracer> {
    let tracer = hooks.tracer.load(Ordering::Acquire);
    // SAFETY: libcupti sets it to one of its own statics, and is never unloaded.
    unsafe { tracer.as_ref() }
}

/// Runs `body`, told to the tracer if there is one. `symbol` is only asked for then.
#[inline]
pub fn traced<P>(
    hooks: Option<&Hooks>,
    function: &Function,
    params: &P,
    symbol: impl FnOnce() -> *const c_char,
    body: impl FnOnce() -> Result<(), Status>,
) -> Status {
    let Some(tracer) = hooks.and_then(tracer) else {
        return status_of(body());
    };
    let call = ApiCall {
        domain: function.domain,
        cbid: function.cbid,
        name: function.name.as_ptr().cast(),
        params: std::ptr::from_ref(params).cast::<c_void>(),
        symbol: symbol(),
        scratch: Scratch::default(),
    };
    (tracer.enter)(&call);
    let result = status_of(body());
    (tracer.exit)(&call, result);
    result
}

fn status_of(result: Result<(), Status>) -> Status {
    result.err().unwrap_or(status::SUCCESS)
}

/// Writes `value` where a C caller wants it.
#[expect(
    clippy::not_unsafe_ptr_arg_deref,
    reason = "only for arguments of C functions, which their callers vouch for"
)]
pub fn give<T>(place: *mut T, value: T) -> Result<(), Status> {
    if place.is_null() {
        return Err(status::INVALID_VALUE);
    }
    // SAFETY: not null, and the caller of the C function vouches for the rest, as with the real library.
    unsafe { place.write(value) };
    Ok(())
}

/// Exports API functions. Each names its callback id; a launch names its kernel with `symbol`.
#[macro_export]
macro_rules! api {
    ($hooks:expr, $domain:expr; $(
        fn $name:ident[$cbid:expr]($($arg:ident: $type:ty),* $(,)?) $(symbol $symbol:expr,)? $body:block
    )*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name($($arg: $type),*) -> $crate::Status {
            #[repr(C)]
            struct Params { $($arg: $type),* }
            const FUNCTION: $crate::trace::Function = $crate::trace::Function {
                domain: $domain,
                cbid: $cbid,
                name: concat!(stringify!($name), "\0"),
            };
            #[expect(unused_mut, unused_assignments, reason = "only launches have a symbol")]
            let symbol = || { let mut symbol: *const std::ffi::c_char = std::ptr::null(); $(symbol = $symbol;)? symbol };
            $crate::trace::traced($hooks, &FUNCTION, &Params { $($arg),* }, symbol, || $body)
        }
    )* };
}
