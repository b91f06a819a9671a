//! Kernel names: each distinct one is copied, demangled and shortened once.
//!
//! CUPTI gives a pointer that all records of a kernel share. A module may be unloaded and the address taken by another
//! name, so a pointer is looked at again once in every buffer.

use std::collections::HashMap;
use std::ffi::{CStr, c_char};

use cpp_demangle::{DemangleOptions, ParseOptions, Symbol};

/// Longer names are cut: they are of machine-made templates and would grow every table.
const MAX_NAME_BYTES: usize = 32 * 1024;
/// Longer mangled names are not demangled: the demangler's time and depth grow with them.
const MAX_DEMANGLE_BYTES: usize = 8 * 1024;
const MAX_DEMANGLED_BYTES: usize = 64 * 1024;
const MAX_DEPTH: u32 = 160;

/// A kernel's name in its three forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) mangled: String,
    pub(crate) demangled: String,
    pub(crate) short: String,
}

impl Name {
    fn new(mangled: String) -> Name {
        let demangled = demangle(&mangled).unwrap_or_else(|| mangled.clone());
        let short = short_name(&demangled).to_owned();
        Name {
            mangled,
            demangled,
            short,
        }
    }
}

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

/// Demangles an Itanium C++ name; `None` where it is none or asks too much.
fn demangle(mangled: &str) -> Option<String> {
    if !mangled.starts_with("_Z") || mangled.len() > MAX_DEMANGLE_BYTES {
        return None;
    }
    // A crafted name could trip an assertion of the demangler; the name then stays as it is.
    std::panic::catch_unwind(|| {
        let parse = ParseOptions::default().recursion_limit(MAX_DEPTH);
        // The compiler's suffixes of clones (`.constprop.0`) are no part of the name.
        let plain = mangled.split('.').next()?;
        let symbol = Symbol::new_with_options(plain, &parse).ok()?;
        let options = DemangleOptions::default().recursion_limit(MAX_DEPTH);
        let mut text = Bounded(String::new());
        symbol.structured_demangle(&mut text, &options).ok()?;
        Some(text.0)
    })
    .ok()
    .flatten()
    .filter(|text| !text.is_empty())
}

/// Refuses to grow past the bound: substitutions can make a short name explode.
struct Bounded(String);

impl std::fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.0.len() + text.len() > MAX_DEMANGLED_BYTES {
            return Err(std::fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// The function's own name: `void at::native::foo<float>(int)` → `foo`.
pub(crate) fn short_name(name: &str) -> &str {
    let mut open = Vec::new();
    let mut start = 0;
    let mut end = name.len();
    let mut previous = ' ';
    for (index, character) in name.char_indices() {
        match character {
            // `(anonymous namespace)::` opens a name, it does not end one.
            '(' if open.is_empty() && name[index..].starts_with("(anonymous namespace)") => open.push(character),
            // Within parentheses these compare: `enable_if<((8)>(0)), void>`.
            '<' | '>' if open.last() == Some(&'(') => {}
            '(' | '<' | '[' | '{' => {
                if open.is_empty() && index > start {
                    end = end.min(index);
                    if character == '(' {
                        break;
                    }
                }
                open.push(character);
            }
            '>' if previous == '-' => {}
            ')' | '>' | ']' | '}' => {
                let opened = open.pop();
                if opened.is_none() {
                    return name;
                }
            }
            ' ' | ':' if open.is_empty() => {
                start = index + 1;
                end = name.len();
            }
            _ => {}
        }
        previous = character;
    }
    match name.get(start..end) {
        Some(short) if !short.is_empty() => short,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_the_functions_own() {
        for (name, short) in [
            (
                "nvjet_sm90_tst_128x8_64x12_4x1_v_bz_TNT",
                "nvjet_sm90_tst_128x8_64x12_4x1_v_bz_TNT",
            ),
            (
                "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>(int, float)",
                "vectorized_elementwise_kernel",
            ),
            ("rms_norm(float*, int)", "rms_norm"),
            ("(anonymous namespace)::softmax<float>(int)", "softmax"),
            (
                "void (anonymous namespace)::elementwise_kernel_with_index<int>(int)",
                "elementwise_kernel_with_index",
            ),
            (
                "void cutlass::device_kernel<flash::enable_sm90<flash::Fwd<(bool)1>>>(flash::Fwd::Params)",
                "device_kernel",
            ),
            (
                "std::enable_if<(((8)>(0)))&&vllm::_typeConvert<c10::BFloat16>::exists, void>::type \
                 vllm::fused_add_rms_norm_kernel<c10::BFloat16, 8, true>(c10::BFloat16*, long)",
                "fused_add_rms_norm_kernel",
            ),
            ("void f<(a)((x<y))>(int)", "f"),
            ("", ""),
            ("triton_poi_fused_add_0", "triton_poi_fused_add_0"),
        ] {
            assert_eq!(short_name(name), short, "{name}");
        }
    }

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
        fn any_name_has_a_short_one_inside_it(text in ".{0,200}") {
            proptest::prop_assert!(text.contains(short_name(&text)));
        }

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
