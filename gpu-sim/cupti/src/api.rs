//! The exported functions. `COLONEL_SIM_CALLS=FILE` appends a line for each call (`PID FUNCTION RESULT`), so that a
//! test can tell what a client called and when.

use std::ffi::{CStr, CString, c_char, c_void};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use cupti_sys::constants::*;
use cupti_sys::functions::{BufferCompleted, BufferRequested, Callback};
use cupti_sys::layouts::record_size;
use cupti_sys::records::SubscriberParams;
use sim_abi::{Header, cbid, magic, now_ns};

use crate::attributes;
use crate::buffers::{POOL, refuse_in_callback};
use crate::correlation;
use crate::driver::{self, attach, not_initialized};
use crate::faults::{complain, faults, first_disable};
use crate::flush;
use crate::kinds::{self, KINDS_ENABLED};
use crate::records::strides;
use crate::subscriber;
use crate::teardown::die_if_torn_down;
use crate::version::{api_version, shown};

/// Exports functions whose body gives `Ok` or the error to return.
macro_rules! exports {
    ($( fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block )*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name($($arg: $type),*) -> u32 {
            let body = || -> Result<(), u32> { $body };
            $crate::api::noted(stringify!($name), body())
        }
    )* };
}

pub(crate) use exports;

/// The call's result code, noted.
pub(crate) fn noted(function: &str, result: Result<(), u32>) -> u32 {
    let result = result.err().unwrap_or(SUCCESS);
    note(function, result);
    result
}

fn note(function: &str, result: u32) {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let path = std::env::var_os("COLONEL_SIM_CALLS")?;
        OpenOptions::new().create(true).append(true).open(path).ok()
    });
    if let Some(mut file) = file.as_ref() {
        // One write, so that lines of several threads and processes do not mix; a full disk is the test's own fault.
        let _ = file.write_all(format!("{} {function} {result}\n", std::process::id()).as_bytes());
    }
}

fn give<T>(place: *mut T, value: T) -> Result<(), u32> {
    if place.is_null() {
        return Err(ERROR_INVALID_PARAMETER);
    }
    // SAFETY: not null, and the caller's to write to.
    unsafe { place.write(value) };
    Ok(())
}

fn fault(code: Option<u32>) -> Result<(), u32> {
    code.map_or(Ok(()), Err)
}

/// What a call that needs no driver does without one: fine up to 13.1, a crash in 13.2, an error from 13.3.
pub(crate) fn without_driver() -> Result<(), u32> {
    match api_version() {
        _ if driver::hooks().is_some() => Ok(()),
        ..API_VERSION_13_2 => Ok(()),
        API_VERSION_13_2..API_VERSION_13_3 => {
            complain("a call before libcuda.so.1 is mapped: CUPTI 13.2 dies of SIGSEGV here")
        }
        _ => Err(ERROR_UNKNOWN),
    }
}

/// The kind, if the version played has it.
fn known_kind(kind: u32) -> Result<u32, u32> {
    record_size(kind, api_version()).map(|_| kind).ok_or(ERROR_INVALID_KIND)
}

fn subscribe(
    place: *mut *mut c_void,
    callback: Option<Callback>,
    userdata: *mut c_void,
    params: Option<&SubscriberParams>,
) -> Result<(), u32> {
    let callback = callback.filter(|_| !place.is_null()).ok_or(ERROR_INVALID_PARAMETER)?;
    if faults().subscribe.is_some() {
        show_holder(params, UNNAMED);
    }
    fault(faults().subscribe)?;
    attach()?;
    match subscriber::subscribe(callback, userdata, name_of(params)) {
        Ok(handle) => give(place, handle),
        Err(holder) => {
            show_holder(params, &holder.name);
            Err(ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED)
        }
    }
}

/// What CUPTI calls a subscriber without a name: so torch.profiler's shows on an H100.
const UNNAMED: &CStr = c"CUPTI for <not provided>";

/// `CUPTI for NAME`, as CUPTI itself puts it.
fn name_of(params: Option<&SubscriberParams>) -> CString {
    let Some(params) = params.filter(|params| !params.subscriber_name.is_null()) else {
        return UNNAMED.into();
    };
    // SAFETY: not null, and the client gives a C string.
    let name = unsafe { CStr::from_ptr(params.subscriber_name) }.to_bytes();
    let kept = &name[..name.len().min(SUBSCRIBER_NAME_MAX_LEN)];
    CString::new([b"CUPTI for ".as_slice(), kept].concat()).unwrap_or_default()
}

/// Writes the name of the subscriber in the way where the client wants it, cut to what fits.
fn show_holder(params: Option<&SubscriberParams>, name: &CStr) {
    let wanted = |params: &&SubscriberParams| !params.old_subscriber_name.is_null() && params.old_subscriber_size > 0;
    let Some(params) = params.filter(wanted) else { return };
    let bytes = name.to_bytes();
    let kept = bytes.len().min(params.old_subscriber_size - 1);
    // SAFETY: the client has `old_subscriber_size` bytes there; `kept` and the NUL fit.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), params.old_subscriber_name.cast(), kept);
        params.old_subscriber_name.add(kept).write(0);
    }
}

/// The text of a result code; leaked once.
fn result_string(result: u32) -> Option<&'static CStr> {
    static TEXTS: OnceLock<Vec<(u32, CString)>> = OnceLock::new();
    let texts = TEXTS.get_or_init(|| {
        RESULTS
            .iter()
            .filter_map(|(name, code)| Some((*code, CString::new(*name).ok()?)))
            .collect()
    });
    texts
        .iter()
        .find(|(code, _)| *code == result)
        .map(|(_, text)| text.as_c_str())
}

fn callback_name(domain: u32, callback: u32) -> Option<&'static str> {
    let names = match domain {
        DOMAIN_DRIVER_API => cbid::DRIVER,
        DOMAIN_RUNTIME_API => cbid::RUNTIME,
        _ => return None,
    };
    names.iter().find(|(id, _)| *id == callback).map(|(_, name)| *name)
}

/// The record after `record` in a buffer of `valid` bytes.
fn next_record(buffer: *mut u8, valid: usize, record: *mut c_void) -> Result<*mut c_void, u32> {
    if buffer.is_null() {
        return Err(ERROR_INVALID_PARAMETER);
    }
    // SAFETY: the caller gives `valid` bytes of records at `buffer`.
    let bytes = unsafe { std::slice::from_raw_parts(buffer, valid) };
    let size_at = |offset: usize| {
        let kind = bytes
            .get(offset..)
            .and_then(<[u8]>::first_chunk)
            .ok_or(ERROR_MAX_LIMIT_REACHED)?;
        strides().get(u32::from_ne_bytes(*kind)).ok_or(ERROR_INVALID_KIND)
    };
    let offset = if record.is_null() {
        0
    } else {
        let offset = (record as usize)
            .checked_sub(buffer as usize)
            .ok_or(ERROR_INVALID_PARAMETER)?;
        offset + size_at(offset)?
    };
    if offset + size_at(offset)? > valid {
        return Err(ERROR_MAX_LIMIT_REACHED);
    }
    // SAFETY: within the buffer, as just checked.
    Ok(unsafe { buffer.add(offset) }.cast())
}

/// The header behind a handle of the stand-in driver, if it is of this kind.
fn header(handle: *const c_void, magic: u32) -> Result<&'static Header, u32> {
    // SAFETY: null or a handle that the stand-in driver gave out; each begins with its header.
    let header = unsafe { handle.cast::<Header>().as_ref() };
    header
        .filter(|header| header.magic == magic)
        .ok_or(ERROR_INVALID_PARAMETER)
}

exports! {
    fn cuptiGetVersion(version: *mut u32) {
        without_driver()?;
        give(version, shown(faults()))
    }
    fn cuptiGetTimestamp(timestamp: *mut u64) {
        without_driver()?;
        give(timestamp, now_ns())
    }
    fn cuptiGetResultString(result: u32, text: *mut *const c_char) {
        give(text, result_string(result).ok_or(ERROR_INVALID_PARAMETER)?.as_ptr())
    }
    fn cuptiGetCallbackName(domain: u32, callback: u32, name: *mut *const c_char) {
        without_driver()?;
        give(name, callback_name(domain, callback).ok_or(ERROR_INVALID_PARAMETER)?.as_ptr().cast())
    }

    fn cuptiSubscribe(handle: *mut *mut c_void, callback: Option<Callback>, userdata: *mut c_void) {
        subscribe(handle, callback, userdata, None)
    }
    fn cuptiSubscribe_v2(
        handle: *mut *mut c_void,
        callback: Option<Callback>,
        userdata: *mut c_void,
        params: *const SubscriberParams,
    ) {
        // SAFETY: null or the caller's.
        let params = unsafe { params.as_ref() };
        if params.is_some_and(|params| ![32, 40].contains(&params.struct_size)) {
            return Err(ERROR_INVALID_PARAMETER);
        }
        subscribe(handle, callback, userdata, params)
    }
    fn cuptiUnsubscribe(handle: *mut c_void) {
        subscriber::unsubscribe(handle)
    }
    fn cuptiEnableCallback(enable: u32, handle: *mut c_void, domain: u32, callback: u32) {
        subscriber::check(handle)?;
        subscriber::enable(domain, callback, enable != 0)
    }
    fn cuptiEnableDomain(enable: u32, handle: *mut c_void, domain: u32) {
        subscriber::check(handle)?;
        subscriber::enable_domain(domain, enable != 0)
    }

    fn cuptiActivityRegisterCallbacks(requested: Option<BufferRequested>, completed: Option<BufferCompleted>) {
        without_driver()?;
        fault(faults().register)?;
        let callbacks = requested.zip(completed).ok_or(ERROR_INVALID_PARAMETER)?;
        POOL.register(callbacks.0, callbacks.1, attributes::per_thread_buffers());
        flush::start_worker();
        Ok(())
    }
    fn cuptiActivityEnable(kind: u32) {
        attach()?;
        fault(faults().enable)?;
        // Turning on what is on changes nothing: an H100's ids stood still all the same.
        let was_on = KINDS_ENABLED.is_enabled(kind);
        KINDS_ENABLED.enable(known_kind(kind)?);
        if kind == KIND_CONCURRENT_KERNEL && !was_on {
            correlation::recording(driver::has_context());
        }
        Ok(())
    }
    fn cuptiActivityDisable(kind: u32) {
        die_if_torn_down("cuptiActivityDisable");
        attach()?;
        if api_version() < API_VERSION_13_0_UPDATE_1 {
            kinds::die_beside_graph_launches(kind);
        }
        KINDS_ENABLED.disable(known_kind(kind)?, first_disable());
        let counts = |kind| KINDS_ENABLED.is_enabled(kind);
        if api_version() >= API_VERSION_13_0 && !counts(KIND_CONCURRENT_KERNEL) && !counts(KIND_SYNCHRONIZATION) {
            correlation::not_recording();
        }
        Ok(())
    }
    fn cuptiActivityEnableDriverApi(callback: u32, enable: u8) {
        attach()?;
        kinds::mute(DOMAIN_DRIVER_API, callback, enable == 0);
        Ok(())
    }
    fn cuptiActivityEnableRuntimeApi(callback: u32, enable: u8) {
        attach()?;
        kinds::mute(DOMAIN_RUNTIME_API, callback, enable == 0);
        Ok(())
    }
    fn cuptiActivityFlushAll(flag: u32) {
        die_if_torn_down("cuptiActivityFlushAll");
        attach()?;
        flush::flush_all(flag & FLUSH_FORCED != 0);
        Ok(())
    }
    fn cuptiActivityFlushPeriod(_milliseconds: u32) {
        // Full and finished buffers come back at once, with or without a period.
        attach().map(|_| ())
    }
    fn cuptiActivityGetNextRecord(buffer: *mut u8, valid: usize, record: *mut *mut c_void) {
        without_driver()?;
        // SAFETY: null or the caller's.
        let last = *unsafe { record.as_ref() }.ok_or(ERROR_INVALID_PARAMETER)?;
        give(record, next_record(buffer, valid, last)?)
    }
    fn cuptiActivityGetNumDroppedRecords(_context: *mut c_void, _stream: u32, dropped: *mut usize) {
        die_if_torn_down("cuptiActivityGetNumDroppedRecords");
        refuse_in_callback("cuptiActivityGetNumDroppedRecords");
        attach()?;
        if dropped.is_null() {
            return Err(ERROR_INVALID_PARAMETER);
        }
        give(dropped, POOL.take_dropped() as usize)
    }
    fn cuptiActivityGetAttribute(attribute: u32, size: *mut usize, value: *mut c_void) {
        attach()?;
        attributes::get(attribute, size, value)
    }
    fn cuptiActivitySetAttribute(attribute: u32, size: *mut usize, value: *mut c_void) {
        attach()?;
        attributes::set(attribute, size, value)
    }
    fn cuptiSetThreadIdType(kind: u32) {
        attach()?;
        attributes::number_threads(kind)
    }
    fn cuptiActivityGetStructSize(kind: u32, version: u32, size: *mut usize) {
        if api_version() < API_VERSION_13_2 {
            return Err(ERROR_NOT_SUPPORTED);
        }
        let version = if version == 0 { api_version() } else { version };
        give(size, record_size(kind, version).ok_or(ERROR_INVALID_KIND)?)
    }

    fn cuptiGetContextId(context: *mut c_void, id: *mut u32) {
        give(id, header(context, magic::CONTEXT)?.id as u32)
    }
    fn cuptiGetDeviceId(context: *mut c_void, id: *mut u32) {
        give(id, header(context, magic::CONTEXT)?.device)
    }
    fn cuptiGetStreamIdEx(_context: *mut c_void, stream: *mut c_void, _per_thread: u8, id: *mut u32) {
        let null_stream = 7;
        give(id, if stream as usize <= 2 { null_stream } else { header(stream, magic::STREAM)?.id as u32 })
    }
    fn cuptiGetGraphId(graph: *mut c_void, id: *mut u32) {
        give(id, header(graph, magic::GRAPH)?.id as u32)
    }
    fn cuptiGetGraphExecId(exec: *mut c_void, id: *mut u32) {
        let Ok(header) = header(exec, magic::GRAPH_EXEC) else {
            complain("cuptiGetGraphExecId of an executable that is gone")
        };
        give(id, header.id as u32)
    }
    fn cuptiGetGraphNodeId(node: *mut c_void, id: *mut u64) {
        give(id, header(node, magic::GRAPH_NODE)?.id)
    }

    fn cuptiFinalize() {
        let hooks = driver::hooks().ok_or_else(not_initialized)?;
        KINDS_ENABLED.disable_all();
        subscriber::clear();
        driver::detach(hooks);
        if api_version() >= API_VERSION_13_0 && hooks.graph_execs.load(Ordering::Acquire) > 0 {
            hooks.poisoned.store(1, Ordering::Release);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupti_sys::records::{Api, Kernel, Record};

    #[test]
    fn records_are_walked_to_the_end() {
        let size = strides().get(KIND_CONCURRENT_KERNEL).unwrap();
        let kernel = Kernel {
            kind: KIND_CONCURRENT_KERNEL,
            ..Kernel::zeroed()
        };
        let api = Api {
            kind: KIND_DRIVER,
            ..Api::zeroed()
        };
        let mut bytes = [&kernel.as_bytes()[..size], api.as_bytes()].concat();
        let start = bytes.as_mut_ptr();
        let walk = |valid, last: usize| {
            let last = if last == usize::MAX {
                std::ptr::null_mut()
            } else {
                start.wrapping_add(last).cast()
            };
            next_record(start, valid, last).map(|record| record as usize - start as usize)
        };
        assert_eq!(walk(size + 40, usize::MAX), Ok(0));
        assert_eq!(walk(size + 40, 0), Ok(size));
        assert_eq!(walk(size + 40, size), Err(ERROR_MAX_LIMIT_REACHED));
        assert_eq!(
            walk(size + 39, 0),
            Err(ERROR_MAX_LIMIT_REACHED),
            "the second record is cut off"
        );
        assert_eq!(walk(0, usize::MAX), Err(ERROR_MAX_LIMIT_REACHED));
    }

    #[test]
    fn names_of_callbacks_are_cuptis() {
        assert_eq!(callback_name(DOMAIN_DRIVER_API, 308), Some("cuProfilerStart\0"));
        assert_eq!(callback_name(DOMAIN_RUNTIME_API, 311), Some("cudaGraphLaunch_v10000\0"));
        assert_eq!(callback_name(DOMAIN_RUNTIME_API, 9_999), None);
        assert_eq!(
            result_string(39),
            Some(c"CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED")
        );
    }

    #[test]
    fn the_name_of_the_holder_is_cut_to_what_fits() {
        let mut place = [1 as c_char; 8];
        let params = SubscriberParams {
            struct_size: 32,
            subscriber_name: c"colonel".as_ptr(),
            old_subscriber_name: place.as_mut_ptr(),
            old_subscriber_size: place.len(),
            allow_multiple_subscribers: 0,
            padding: [0; 7],
        };
        assert_eq!(name_of(Some(&params)).as_c_str(), c"CUPTI for colonel");
        show_holder(Some(&params), c"CUPTI for nsys");
        assert_eq!(place.map(|byte| byte as u8), *b"CUPTI f\0");
    }
}
