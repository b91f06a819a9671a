//! CUPTI's numbers as words: those of colonel's tables, and the functions behind callback ids.

use crate::constants::*;
use crate::functions::Functions;
use std::ffi::CStr;

/// Direction of a copy, as in `memcpys.copy_kind`.
pub fn memcpy_kind_name(kind: u8) -> &'static str {
    match u32::from(kind) {
        MEMCPY_HTOD => "HtoD",
        MEMCPY_DTOH => "DtoH",
        MEMCPY_HTOA => "HtoA",
        MEMCPY_ATOH => "AtoH",
        MEMCPY_ATOA => "AtoA",
        MEMCPY_ATOD => "AtoD",
        MEMCPY_DTOA => "DtoA",
        MEMCPY_DTOD => "DtoD",
        MEMCPY_HTOH => "HtoH",
        MEMCPY_PTOP => "PtoP",
        _ => "unknown",
    }
}

/// Kind of memory, as in `memcpys.src_kind`.
pub fn memory_kind_name(kind: u16) -> &'static str {
    match u32::from(kind) {
        MEMORY_PAGEABLE => "pageable",
        MEMORY_PINNED => "pinned",
        MEMORY_DEVICE => "device",
        MEMORY_ARRAY => "array",
        MEMORY_MANAGED => "managed",
        MEMORY_DEVICE_STATIC => "device_static",
        MEMORY_MANAGED_STATIC => "managed_static",
        _ => "unknown",
    }
}

/// What took the time, as in `overheads.overhead_kind`.
pub fn overhead_kind_name(kind: u32) -> &'static str {
    match kind {
        OVERHEAD_DRIVER_COMPILER => "driver_compiler",
        OVERHEAD_CUPTI_BUFFER_FLUSH => "cupti_buffer_flush",
        OVERHEAD_CUPTI_INSTRUMENTATION => "cupti_instrumentation",
        OVERHEAD_CUPTI_RESOURCE => "cupti_resource",
        OVERHEAD_RUNTIME_TRIGGERED_MODULE_LOADING => "runtime_triggered_module_loading",
        OVERHEAD_LAZY_FUNCTION_LOADING => "lazy_function_loading",
        OVERHEAD_COMMAND_BUFFER_FULL => "command_buffer_full",
        OVERHEAD_ACTIVITY_BUFFER_REQUEST => "activity_buffer_request",
        OVERHEAD_UVM_ACTIVITY_INIT => "uvm_activity_init",
        _ => "unknown",
    }
}

/// What was waited for, as in `synchronizations.sync_kind`.
pub fn sync_kind_name(kind: u32) -> &'static str {
    match kind {
        SYNC_EVENT_SYNCHRONIZE => "event",
        SYNC_STREAM_WAIT_EVENT => "stream_wait_event",
        SYNC_STREAM_SYNCHRONIZE => "stream",
        SYNC_CONTEXT_SYNCHRONIZE => "context",
        _ => "unknown",
    }
}

/// Kind of stream, as in `streams.stream_kind`.
pub fn stream_flag_name(flag: u32) -> &'static str {
    match flag {
        STREAM_DEFAULT => "default",
        STREAM_NON_BLOCKING => "non_blocking",
        STREAM_NULL => "null",
        STREAM_MASK => "mask",
        _ => "unknown",
    }
}

/// Name of a callback in its domain as the library has it (`cudaLaunchKernel_v7000`), `None` where it knows none.
///
/// # Safety
/// `functions` are those of a libcupti that is still loaded, beside the driver.
pub unsafe fn callback_name(functions: &Functions, domain: u32, cbid: u32) -> Option<String> {
    let get_name = functions.cuptiGetCallbackName?;
    let mut name = std::ptr::null();
    // SAFETY: the caller's contract; CUPTI answers an id that it doesn't know with an error.
    let result = unsafe { get_name(domain, cbid, &raw mut name) };
    if result != SUCCESS || name.is_null() {
        return None;
    }
    // SAFETY: not null, so a string constant of the library.
    let name = unsafe { CStr::from_ptr(name) };
    Some(name.to_string_lossy().into_owned())
}

/// The function as programs call it: without the version and default-stream endings that CUPTI adds to names of the
/// runtime (`cudaLaunchKernel_ptsz_v7000`) and driver (`cuLaunchKernel_ptsz`). Driver versions (`_v2`) are part of it.
pub fn function_name(callback_name: &str) -> &str {
    let is_version = |end: &str| end.len() >= 4 && end.bytes().all(|byte| byte.is_ascii_digit());
    let name = match callback_name.rsplit_once("_v") {
        Some((name, end)) if is_version(end) => name,
        _ => callback_name,
    };
    ["_ptsz", "_ptds"]
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_number_has_a_word_of_its_own_and_others_are_unknown() {
        fn check(constants: &[(&str, u32)], word: impl Fn(u32) -> &'static str) {
            let mut words: Vec<_> = constants.iter().map(|(_, value)| word(*value)).collect();
            assert_eq!(words[0], "unknown", "{}", constants[0].0);
            words.sort_unstable();
            words.dedup();
            assert_eq!(words.len(), constants.len());
            assert_eq!(word(200), "unknown");
        }
        check(MEMCPY_KINDS, |kind| memcpy_kind_name(kind as u8));
        check(MEMORY_KINDS, |kind| memory_kind_name(kind as u16));
        check(OVERHEADS, overhead_kind_name);
        check(SYNC_KINDS, sync_kind_name);
        check(STREAM_FLAGS, stream_flag_name);
    }

    #[test]
    fn functions_lose_the_endings_that_programs_do_not_write() {
        assert_eq!(function_name("cudaLaunchKernel_v7000"), "cudaLaunchKernel");
        assert_eq!(function_name("cudaGraphLaunch_ptsz_v10000"), "cudaGraphLaunch");
        assert_eq!(function_name("cuLaunchKernel_ptsz"), "cuLaunchKernel");
        assert_eq!(function_name("cuMemcpyHtoD_v2"), "cuMemcpyHtoD_v2");
        assert_eq!(function_name("cuMemcpyDtoD_v2_ptds"), "cuMemcpyDtoD_v2");
        assert_eq!(function_name("cuInit"), "cuInit");
    }
}
