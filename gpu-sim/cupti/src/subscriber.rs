//! The one subscriber and the callbacks that it has turned on.

use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use cupti_sys::constants::*;
use cupti_sys::functions::Callback;
use cupti_sys::records::{CallbackData, ResourceData};
use sim_abi::{ApiCall, Header, Hooks, Resource, Status};

/// Who subscribed. Leaked: a callback may be under way in another thread while it unsubscribes.
pub(crate) struct Subscriber {
    callback: Callback,
    userdata: *mut c_void,
    pub(crate) name: CString,
}

static SUBSCRIBER: AtomicPtr<Subscriber> = AtomicPtr::new(std::ptr::null_mut());

const DOMAINS: usize = 7;
const WORDS: usize = 16;
/// A bit for each callback id of each domain.
static ENABLED: [[AtomicU64; WORDS]; DOMAINS] = [const { [const { AtomicU64::new(0) }; WORDS] }; DOMAINS];

fn current() -> Option<&'static Subscriber> {
    // SAFETY: null or leaked by `subscribe`.
    unsafe { SUBSCRIBER.load(Ordering::Acquire).as_ref() }
}

/// Installs the subscriber and returns its handle; the one that is there already is the error.
pub(crate) fn subscribe(
    callback: Callback,
    userdata: *mut c_void,
    name: CString,
) -> Result<*mut c_void, &'static Subscriber> {
    let subscriber = Box::into_raw(Box::new(Subscriber {
        callback,
        userdata,
        name,
    }));
    let null = std::ptr::null_mut();
    match SUBSCRIBER.compare_exchange(null, subscriber, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(subscriber.cast()),
        Err(holder) => {
            // SAFETY: just made above, and nobody else has seen it.
            drop(unsafe { Box::from_raw(subscriber) });
            // SAFETY: leaked by an earlier `subscribe`.
            Err(unsafe { &*holder })
        }
    }
}

/// Removes the subscriber, if this is its handle.
pub(crate) fn unsubscribe(handle: *mut c_void) -> Result<(), u32> {
    let null = std::ptr::null_mut();
    if handle.is_null() {
        return Err(ERROR_INVALID_PARAMETER);
    }
    let removed = SUBSCRIBER.compare_exchange(handle.cast(), null, Ordering::AcqRel, Ordering::Acquire);
    removed.map_err(|_| ERROR_INVALID_PARAMETER)?;
    ENABLED
        .iter()
        .flatten()
        .for_each(|word| word.store(0, Ordering::Release));
    Ok(())
}

/// Forgets any subscriber.
pub(crate) fn clear() {
    let handle = SUBSCRIBER.load(Ordering::Acquire);
    let _ = unsubscribe(handle.cast());
}

/// Whether `handle` is the subscriber's.
pub(crate) fn check(handle: *mut c_void) -> Result<(), u32> {
    let known = !handle.is_null() && handle.cast() == SUBSCRIBER.load(Ordering::Acquire);
    if known { Ok(()) } else { Err(ERROR_INVALID_PARAMETER) }
}

/// Turns one callback on or off.
pub(crate) fn enable(domain: u32, cbid: u32, enable: bool) -> Result<(), u32> {
    let words = ENABLED
        .get(domain as usize)
        .filter(|_| domain != 0)
        .ok_or(ERROR_INVALID_PARAMETER)?;
    let word = words.get(cbid as usize / 64).ok_or(ERROR_INVALID_PARAMETER)?;
    let bit = 1 << (cbid % 64);
    if enable {
        word.fetch_or(bit, Ordering::AcqRel)
    } else {
        word.fetch_and(!bit, Ordering::AcqRel)
    };
    Ok(())
}

/// Turns all callbacks of a domain on or off.
pub(crate) fn enable_domain(domain: u32, enable: bool) -> Result<(), u32> {
    let words = ENABLED
        .get(domain as usize)
        .filter(|_| domain != 0)
        .ok_or(ERROR_INVALID_PARAMETER)?;
    words
        .iter()
        .for_each(|word| word.store(if enable { u64::MAX } else { 0 }, Ordering::Release));
    Ok(())
}

/// Whether somebody is called back for these calls.
pub(crate) fn wants(domain: u32, cbid: u32) -> bool {
    wanted(domain, cbid).is_some()
}

/// The subscriber, if it wants this callback.
fn wanted(domain: u32, cbid: u32) -> Option<&'static Subscriber> {
    let word = ENABLED.get(domain as usize)?.get(cbid as usize / 64)?;
    if word.load(Ordering::Acquire) & (1 << (cbid % 64)) == 0 {
        return None;
    }
    current()
}

/// The id in a handle of the stand-in driver, 0 for null.
pub(crate) fn id_of(handle: *mut c_void) -> u64 {
    // SAFETY: a handle that the stand-in driver gave out (or null); each begins with its header.
    unsafe { handle.cast::<Header>().as_ref() }.map_or(0, |header| header.id)
}

/// Tells the subscriber of an API call.
pub(crate) fn call(hooks: &Hooks, call: &ApiCall, site: u32, mut result: Status) {
    let Some(subscriber) = wanted(call.domain, call.cbid) else {
        return;
    };
    let context = (hooks.current_context)();
    let data = CallbackData {
        callback_site: site,
        function_name: call.name,
        function_params: call.params,
        function_return_value: if site == SITE_EXIT {
            (&raw mut result).cast()
        } else {
            std::ptr::null_mut()
        },
        symbol_name: call.symbol,
        context,
        context_uid: id_of(context) as u32,
        correlation_data: call.scratch.correlation_data.as_ptr(),
        correlation_id: call.scratch.correlation.get(),
    };
    // SAFETY: the client's callback, given what CUPTI promises to give it.
    unsafe { (subscriber.callback)(subscriber.userdata, call.domain, call.cbid, (&raw const data).cast()) };
}

/// `CUpti_GraphData`.
#[repr(C)]
struct GraphData {
    graph: *mut c_void,
    original_graph: *mut c_void,
    node: *mut c_void,
    original_node: *mut c_void,
    node_type: u32,
    dependency: *mut c_void,
    graph_exec: *mut c_void,
}

/// Tells the subscriber of something created or destroyed.
pub(crate) fn resource(resource: &Resource) {
    let Some(subscriber) = wanted(DOMAIN_RESOURCE, resource.cbid) else {
        return;
    };
    let graph = GraphData {
        graph: resource.graph,
        original_graph: resource.original_graph,
        node: resource.node,
        original_node: resource.original_node,
        node_type: resource.node_type,
        dependency: std::ptr::null_mut(),
        graph_exec: resource.graph_exec,
    };
    let of_graph = resource.cbid >= CBID_RESOURCE_GRAPH_CREATED;
    let data = ResourceData {
        context: resource.context,
        stream: resource.stream,
        resource_descriptor: if of_graph {
            (&raw const graph).cast_mut().cast()
        } else {
            std::ptr::null_mut()
        },
    };
    // SAFETY: as in `call`.
    unsafe {
        (subscriber.callback)(
            subscriber.userdata,
            DOMAIN_RESOURCE,
            resource.cbid,
            (&raw const data).cast(),
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn ignore(_: *mut c_void, _: u32, _: u32, _: *const c_void) {}

    #[test]
    fn there_is_one_subscriber_and_its_callbacks_go_with_it() {
        let null = std::ptr::null_mut();
        let handle = subscribe(ignore, null, c"CUPTI for first".into()).ok().unwrap();
        let holder = subscribe(ignore, null, c"second".into()).err().unwrap();
        assert_eq!(holder.name.as_c_str(), c"CUPTI for first");
        assert_eq!(check(handle), Ok(()));

        enable(DOMAIN_DRIVER_API, 308, true).unwrap();
        assert!(wanted(DOMAIN_DRIVER_API, 308).is_some());
        assert!(wanted(DOMAIN_DRIVER_API, 309).is_none() && wanted(DOMAIN_RUNTIME_API, 308).is_none());
        enable_domain(DOMAIN_RESOURCE, true).unwrap();
        assert!(wanted(DOMAIN_RESOURCE, 13).is_some());
        assert_eq!(
            [enable(0, 1, true), enable(99, 1, true)],
            [Err(ERROR_INVALID_PARAMETER); 2]
        );

        assert_eq!(
            unsubscribe(std::ptr::dangling_mut::<Subscriber>().cast()),
            Err(ERROR_INVALID_PARAMETER)
        );
        unsubscribe(handle).unwrap();
        assert!(wanted(DOMAIN_DRIVER_API, 308).is_none());
        assert_eq!(check(handle), Err(ERROR_INVALID_PARAMETER));
    }
}
