//! Kernel names: each distinct one is copied, demangled and shortened once.
//!
//! CUPTI gives a pointer that all records of a kernel share. A module may be unloaded and the address taken by another
//! name, so a pointer is looked at again once in every buffer.

use std::collections::HashMap;
use std::ffi::{CStr, c_char};

use crate::schema::names::Name;

/// Longer names are cut: they are of machine-made templates and would grow every table.
const MAX_NAME_BYTES: usize = 32 * 1024;

#[derive(Debug, Clone, Copy)]
struct Seen {
    id: u32,
    generation: u32,
}

/// Every name of this process, by number.
#[derive(Debug, Default)]
pub(crate) struct Names {
    names: Vec<Name>,
    by_text: HashMap<Vec<u8>, u32>,
    by_pointer: HashMap<usize, Seen>,
    generation: u32,
    last: Option<(usize, u32)>,
}

impl Names {
    /// A new buffer begins: pointers seen before are looked at again.
    pub(crate) fn next_buffer(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.last = None;
    }

    /// Number of the name that a record points to.
    ///
    /// # Safety
    /// `pointer` is null or points to a string that ends in a zero byte and is not freed during the call.
    pub(crate) unsafe fn resolve(&mut self, pointer: *const c_char) -> u32 {
        let address = pointer as usize;
        if let Some((last, id)) = self.last
            && last == address
        {
            return id;
        }
        let id = match self.by_pointer.get(&address) {
            Some(seen) if seen.generation == self.generation => seen.id,
            _ => {
                let text: &[u8] = if pointer.is_null() {
                    b""
                } else {
                    // SAFETY: the caller's promise.
                    unsafe { CStr::from_ptr(pointer) }.to_bytes()
                };
                let id = self.intern(text);
                self.by_pointer.insert(
                    address,
                    Seen {
                        id,
                        generation: self.generation,
                    },
                );
                id
            }
        };
        self.last = Some((address, id));
        id
    }

    /// Number of a name.
    pub(crate) fn intern(&mut self, text: &[u8]) -> u32 {
        let text = text.get(..MAX_NAME_BYTES).unwrap_or(text);
        if let Some(id) = self.by_text.get(text) {
            return *id;
        }
        let id = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(Name::new(String::from_utf8_lossy(text).into_owned()));
        self.by_text.insert(text.to_vec(), id);
        id
    }

    /// The name of a number given by `resolve` or `intern`.
    pub(crate) fn get(&self, id: u32) -> Option<&Name> {
        self.names.get(id as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_demangle_once_and_fall_back_to_the_mangled_one() {
        let mut names = Names::default();
        let id = names.intern(b"_ZN4vllm15rms_norm_kernelIfEEvPT_i");
        let name = names.get(id).expect("just interned").clone();
        assert_eq!(name.demangled, "void vllm::rms_norm_kernel<float>(float*, int)");
        assert_eq!(name.short, "rms_norm_kernel");
        let odd = names.intern(b"_Zwhat is this");
        assert_eq!(names.get(odd).expect("just interned").demangled, "_Zwhat is this");
        let bytes = names.intern(&[b'a', 0xff, b'b']);
        assert_eq!(names.get(bytes).expect("just interned").mangled, "a\u{fffd}b");
        assert_eq!(names.intern(b"_Zwhat is this"), odd);
    }

    #[test]
    fn a_reused_address_gets_its_new_name_in_the_next_buffer() {
        let mut names = Names::default();
        let mut text = *b"first\0";
        names.next_buffer();
        // SAFETY: `text` ends in a zero byte and lives on.
        let first = unsafe { names.resolve(text.as_ptr().cast()) };
        text.copy_from_slice(b"other\0");
        names.next_buffer();
        // SAFETY: as above.
        let other = unsafe { names.resolve(text.as_ptr().cast()) };
        assert_ne!(first, other);
        assert_eq!(names.get(other).expect("resolved").mangled, "other");
        // SAFETY: null is allowed.
        let none = unsafe { names.resolve(std::ptr::null()) };
        assert_eq!(names.get(none).expect("resolved").mangled, "");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_intern(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let mut names = Names::default();
            let mut mangled = b"_Z".to_vec();
            mangled.extend(bytes);
            let id = names.intern(&mangled);
            proptest::prop_assert!(names.get(id).is_some());
        }
    }
}
