//! What CUPTI passes to a subscriber's callback and takes when one subscribes.

use std::ffi::{c_char, c_void};

/// A subscriber, opaque.
pub type SubscriberHandle = *mut c_void;

/// What a callback of the driver or runtime domain gets (`CUpti_CallbackData`).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CallbackData {
    /// [`SITE_ENTER`](crate::constants::SITE_ENTER) or [`SITE_EXIT`](crate::constants::SITE_EXIT).
    pub callback_site: u32,
    /// Name of the function.
    pub function_name: *const c_char,
    /// Its parameters, a struct of the function's own.
    pub function_params: *const c_void,
    /// Where its result lies, at the exit.
    pub function_return_value: *mut c_void,
    /// Kernel launched, for launches.
    pub symbol_name: *const c_char,
    /// Context current in the calling thread, null before there is one.
    pub context: *mut c_void,
    /// CUPTI's id of it.
    pub context_uid: u32,
    /// A word kept from enter to exit.
    pub correlation_data: *mut u64,
    /// Joins with activity records.
    pub correlation_id: u32,
}

/// What a callback of the resource domain gets (`CUpti_ResourceData`).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ResourceData {
    /// Context.
    pub context: *mut c_void,
    /// Stream, for callbacks about one.
    pub stream: *mut c_void,
    /// More, by callback.
    pub resource_descriptor: *mut c_void,
}

/// How to subscribe (`CUpti_SubscriberParams`), in the form of 13.2; earlier libraries know the first 32 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SubscriberParams {
    /// Bytes of this struct that are set: [`SubscriberParams::size`].
    pub struct_size: usize,
    /// Our name, null for none.
    pub subscriber_name: *const c_char,
    /// Where the name of the other subscriber goes, null for nowhere.
    pub old_subscriber_name: *mut c_char,
    /// Bytes there, [`OLD_SUBSCRIBER_NAME_MIN_LEN`](crate::constants::OLD_SUBSCRIBER_NAME_MIN_LEN) at least.
    pub old_subscriber_size: usize,
    /// Whether other subscribers may be there, since 13.2.
    pub allow_multiple_subscribers: u8,
    /// Padding.
    pub padding: [u8; 7],
}

impl SubscriberParams {
    /// The `struct_size` that a library of this API version expects.
    pub const fn size(api_version: u32) -> usize {
        if api_version >= crate::constants::API_VERSION_13_2 {
            40
        } else {
            32
        }
    }
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<CallbackData>() == 72 && offset_of!(CallbackData, symbol_name) == 32);
    assert!(offset_of!(CallbackData, context_uid) == 48 && offset_of!(CallbackData, correlation_id) == 64);
    assert!(size_of::<ResourceData>() == 24);
    assert!(size_of::<SubscriberParams>() == 40 && offset_of!(SubscriberParams, allow_multiple_subscribers) == 32);
};
