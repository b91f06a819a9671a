//! What NVTX and an injection agree on: the tables of functions that a library with NVTX hands over, and the attributes
//! of an event. Written from NVTX's documented protocol; tests/guest/hosts/nvtx.c is the other side of it.

use std::ffi::{c_char, c_void};

/// Asks a library with NVTX for one of its tables.
pub(crate) type GetExportTable = unsafe extern "C" fn(u32) -> *const c_void;

/// `InitializeInjectionNvtx2` of an injection.
pub(crate) type Initialize = unsafe extern "C" fn(Option<GetExportTable>) -> i32;

/// `InitializeInjectionNvtxExtension` of an injection.
pub(crate) type InitializeExtension = unsafe extern "C" fn(*mut c_void) -> i32;

/// Functions that NVTX calls.
pub(crate) type Function = *const c_void;

/// Export table of the callbacks.
pub(crate) const TABLE_CALLBACKS: u32 = 1;

/// `nvtxMarkA` and the like, without domains.
pub(crate) const CORE: u32 = 1;
/// Those with domains.
pub(crate) const CORE2: u32 = 5;

/// How a library lets its functions be replaced.
#[repr(C)]
pub(crate) struct Callbacks {
    size: usize,
    /// Gives, of a module, an array of places that each hold a function, and its length.
    module: Option<unsafe extern "C" fn(u32, *mut *mut *mut Function, *mut u32) -> i32>,
}

/// The functions of one module of one library.
pub(crate) struct Module {
    places: *mut *mut Function,
    length: usize,
}

impl Module {
    /// Asks for a module's functions.
    ///
    /// # Safety
    /// `table` is what NVTX passes to an injection.
    pub(crate) unsafe fn ask(table: GetExportTable, module: u32) -> Option<Module> {
        let (mut places, mut length) = (std::ptr::null_mut(), 0_u32);
        // SAFETY: NVTX gives null or a table of its own that is never freed; what it fills in lives through the call.
        let found = unsafe {
            let callbacks = table(TABLE_CALLBACKS).cast::<Callbacks>().as_ref()?;
            if callbacks.size < size_of::<Callbacks>() {
                return None;
            }
            (callbacks.module?)(module, &raw mut places, &raw mut length)
        };
        (found != 0 && !places.is_null()).then_some(Module {
            places,
            length: length as usize,
        })
    }

    fn place(&self, id: usize) -> Option<*mut Function> {
        if id >= self.length {
            return None;
        }
        // SAFETY: NVTX's array has this length.
        let place = unsafe { *self.places.add(id) };
        (!place.is_null()).then_some(place)
    }

    /// The function that is called now.
    pub(crate) fn get(&self, id: usize) -> Option<Function> {
        // SAFETY: NVTX's places stay valid, and only the thread that initialises writes them.
        self.place(id).map(|place| unsafe { *place })
    }

    /// Has another one called.
    pub(crate) fn set(&self, id: usize, function: Function) {
        if let Some(place) = self.place(id) {
            // SAFETY: as above.
            unsafe { *place = function };
        }
    }
}

pub(crate) const MESSAGE_ASCII: i32 = 1;
pub(crate) const MESSAGE_UNICODE: i32 = 2;
pub(crate) const MESSAGE_REGISTERED: i32 = 3;

/// `nvtxEventAttributes_t`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    pub(crate) version: u16,
    pub(crate) size: u16,
    pub(crate) category: u32,
    pub(crate) color_type: i32,
    pub(crate) color: u32,
    pub(crate) payload_type: i32,
    pub(crate) reserved: i32,
    /// A union of numbers of 32 and 64 bits.
    pub(crate) payload: u64,
    pub(crate) message_type: i32,
    /// A union of pointers.
    pub(crate) message: *const c_void,
}

impl Attributes {
    /// What a caller of its own version of NVTX gave; what it did not give is zero.
    ///
    /// # Safety
    /// `given` is null or points to as many bytes as its field `size` says.
    pub(crate) unsafe fn read(given: *const Attributes) -> Attributes {
        let mut read = Attributes {
            version: 0,
            size: 0,
            category: 0,
            color_type: 0,
            color: 0,
            payload_type: 0,
            reserved: 0,
            payload: 0,
            message_type: 0,
            message: std::ptr::null(),
        };
        if !given.is_null() {
            // SAFETY: the caller's promise; every byte of the destination is plain data.
            unsafe {
                let size = usize::from((*given).size).min(size_of::<Attributes>());
                std::ptr::copy_nonoverlapping(given.cast::<u8>(), (&raw mut read).cast::<u8>(), size);
            }
        }
        read
    }
}

/// A number that comes with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Payload {
    kind: i32,
    bits: u64,
}

impl Payload {
    pub(crate) fn of(attributes: &Attributes) -> Payload {
        Payload {
            kind: attributes.payload_type,
            bits: attributes.payload,
        }
    }

    /// As text; none of a type that is not a number.
    pub(crate) fn text(self) -> Option<String> {
        #[expect(clippy::cast_possible_truncation, reason = "a union: the lower half holds 32 bits")]
        let half = self.bits as u32;
        Some(match self.kind {
            1 => self.bits.to_string(),
            2 => self.bits.cast_signed().to_string(),
            3 => f64::from_bits(self.bits).to_string(),
            4 => half.to_string(),
            5 => half.cast_signed().to_string(),
            6 => f32::from_bits(half).to_string(),
            _ => return None,
        })
    }
}

/// Text as callers pass it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Text {
    Narrow(*const c_char),
    /// `wchar_t`: 32 bits on Linux.
    Wide(*const u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_lie_where_nvtx_has_them() {
        use std::mem::offset_of;
        let offsets = [
            offset_of!(Attributes, size),
            offset_of!(Attributes, category),
            offset_of!(Attributes, payload_type),
            offset_of!(Attributes, payload),
            offset_of!(Attributes, message_type),
            offset_of!(Attributes, message),
        ];
        assert_eq!((offsets, size_of::<Attributes>()), ([2, 4, 16, 24, 32, 40], 48));
    }

    #[test]
    fn a_shorter_struct_of_an_older_caller_is_not_read_past_its_end() {
        let mut given = [0xff_u8; size_of::<Attributes>()];
        given[2..4].copy_from_slice(&8_u16.to_ne_bytes());
        let given = Box::new(Aligned(given));
        // SAFETY: longer than its size says.
        let read = unsafe { Attributes::read((&raw const given.0).cast()) };
        assert_eq!((read.category, read.payload_type, read.message_type), (u32::MAX, 0, 0));
        // SAFETY: null is allowed.
        assert!(unsafe { Attributes::read(std::ptr::null()) }.message.is_null());
    }

    #[repr(align(8))]
    struct Aligned([u8; size_of::<Attributes>()]);

    #[test]
    fn payloads_are_text() {
        let text = |kind, bits| Payload { kind, bits }.text();
        assert_eq!(text(1, u64::MAX).as_deref(), Some("18446744073709551615"));
        assert_eq!(text(2, u64::MAX).as_deref(), Some("-1"));
        assert_eq!(text(3, 0.1_f64.to_bits()).as_deref(), Some("0.1"));
        assert_eq!(text(4, u64::MAX).as_deref(), Some("4294967295"));
        assert_eq!(text(5, u64::MAX).as_deref(), Some("-1"));
        assert_eq!(text(6, u64::from(2.5_f32.to_bits())).as_deref(), Some("2.5"));
        assert_eq!(text(0, 7), None);
        assert_eq!(
            text(0xDFBD_0009_u32.cast_signed(), 7),
            None,
            "a struct of the payload extension"
        );
    }
}
