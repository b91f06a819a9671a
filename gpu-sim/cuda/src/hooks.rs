//! The door for the stand-in libcupti: it finds [`colonel_sim_hooks`] by `dlsym` in this library.

use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use sim_abi::{ABI, Hooks, Resource, state, trace};

use crate::device;
use crate::objects::{Context, Stream, current, handle};

const CONTEXT_CREATED: u32 = 1;
const STREAM_CREATED: u32 = 3;

pub(crate) static HOOKS: Hooks = Hooks {
    abi: ABI,
    state: AtomicU32::new(state::UNINITIALIZED),
    tracer: AtomicPtr::new(std::ptr::null_mut()),
    poisoned: AtomicU32::new(0),
    graph_execs: AtomicU32::new(0),
    current_context,
    visit,
    device_count,
    device_attribute,
    device_identity,
};

#[unsafe(no_mangle)]
extern "C" fn colonel_sim_hooks() -> *const Hooks {
    &raw const HOOKS
}

/// Whether anybody listens.
pub(crate) fn is_traced() -> bool {
    !HOOKS.tracer.load(Ordering::Acquire).is_null()
}

/// Tells the tracer, if there is one.
pub(crate) fn resource(resource: &Resource) {
    if let Some(tracer) = trace::tracer(&HOOKS) {
        (tracer.resource)(resource);
    }
}

pub(crate) fn context_resource(cbid: u32, context: &'static Context) -> Resource {
    Resource {
        device: context.device(),
        context_id: context.id(),
        stream_id: context.streams().first().map_or(0, |stream| stream.id()),
        context: handle(context),
        ..Resource::of(cbid)
    }
}

pub(crate) fn stream_resource(cbid: u32, stream: &'static Stream) -> Resource {
    Resource {
        device: stream.context.device(),
        context_id: stream.context.id(),
        stream_id: stream.id(),
        priority: stream.priority,
        stream_flag: stream.flag,
        context: handle(stream.context),
        stream: handle(stream),
        ..Resource::of(cbid)
    }
}

extern "C" fn current_context() -> *mut c_void {
    current().map_or(std::ptr::null_mut(), handle)
}

extern "C" fn visit(visitor: extern "C" fn(&Resource, *mut c_void), user: *mut c_void) {
    for context in Context::all() {
        visitor(&context_resource(CONTEXT_CREATED, context), user);
        for stream in context.streams() {
            visitor(&stream_resource(STREAM_CREATED, stream), user);
        }
    }
}

extern "C" fn device_attribute(attribute: u32) -> i32 {
    device::attribute(attribute).unwrap_or(0)
}

extern "C" fn device_identity(ordinal: u32, uuid: &mut [u8; 16], memory: &mut u64) -> *const c_char {
    *uuid = device::uuid(ordinal);
    *memory = device::MEMORY_BYTES;
    device::NAME.as_ptr()
}

extern "C" fn device_count() -> u32 {
    device::count()
}
