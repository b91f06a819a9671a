//! What the loader has mapped, and what each object says of itself. No name is looked up here: that may wait for the
//! loader's lock.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ops::Range;
use std::slice;

use crate::inject::guard;

/// An executable or library.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) path: String,
    addresses: Range<usize>,
    base: usize,
    /// Its dynamic section.
    dynamic: *const Entry,
}

/// `Elf64_Dyn`.
#[repr(C)]
struct Entry {
    tag: usize,
    value: usize,
}

const DT_NULL: usize = 0;
const DT_NEEDED: usize = 1;
const DT_STRTAB: usize = 5;
const DT_SONAME: usize = 14;

impl Object {
    fn of(info: &libc::dl_phdr_info) -> Object {
        let base = usize::try_from(info.dlpi_addr).unwrap_or_default();
        let headers = match info.dlpi_phdr.is_null() {
            true => &[],
            // SAFETY: the loader gives as many headers.
            false => unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) },
        };
        let place = |offset: u64| base.wrapping_add(usize::try_from(offset).unwrap_or_default());
        let of_type = |kind: u32| headers.iter().filter(move |header| header.p_type == kind);
        let ends = of_type(libc::PT_LOAD).map(|header| place(header.p_vaddr.wrapping_add(header.p_memsz)));
        let begins = of_type(libc::PT_LOAD).map(|header| place(header.p_vaddr));
        let dynamic = of_type(libc::PT_DYNAMIC).map(|header| place(header.p_vaddr)).next();
        let name = match info.dlpi_name.is_null() {
            true => c"",
            // SAFETY: the loader's names are zero-terminated.
            false => unsafe { CStr::from_ptr(info.dlpi_name) },
        };
        Object {
            path: name.to_string_lossy().into_owned(),
            addresses: begins.min().unwrap_or(0)..ends.max().unwrap_or(0),
            base,
            dynamic: dynamic.map_or(std::ptr::null(), std::ptr::with_exposed_provenance),
        }
    }

    /// Where it lies, unlike any other that is mapped.
    pub(crate) fn base(&self) -> usize {
        self.base
    }

    pub(crate) fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    pub(crate) fn holds(&self, address: usize) -> bool {
        self.addresses.contains(&address)
    }

    /// The name by which others ask for it.
    pub(crate) fn soname(&self) -> Option<String> {
        self.texts(DT_SONAME).next()
    }

    /// The libraries that it was linked against.
    pub(crate) fn needed(&self) -> Vec<String> {
        self.texts(DT_NEEDED).collect()
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let mut next = self.dynamic;
        std::iter::from_fn(move || {
            // SAFETY: null or within the dynamic section, which ends with a zero tag; the object stays mapped.
            let entry = unsafe { next.as_ref() }.filter(|entry| entry.tag != DT_NULL)?;
            next = next.wrapping_add(1);
            Some(entry)
        })
    }

    fn texts(&self, tag: usize) -> impl Iterator<Item = String> {
        let strings = self.entries().find(|entry| entry.tag == DT_STRTAB).map(|entry| {
            // Most loaders have put the address there, some leave the offset.
            let is_offset = entry.value < self.base;
            if is_offset {
                self.base.wrapping_add(entry.value)
            } else {
                entry.value
            }
        });
        let wanted = self.entries().filter(move |entry| entry.tag == tag);
        wanted.filter_map(move |entry| {
            let text = std::ptr::with_exposed_provenance::<c_char>(strings?.wrapping_add(entry.value));
            // SAFETY: the string table of a mapped object, whose texts are zero-terminated.
            Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        })
    }
}

/// Calls `act` for each object, in the order of loading, until it gives false.
fn visit(mut act: impl FnMut(&libc::dl_phdr_info) -> bool) {
    type Act<'a> = &'a mut dyn FnMut(&libc::dl_phdr_info) -> bool;
    unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, _: usize, act: *mut c_void) -> c_int {
        guard::ffi(1, || {
            // SAFETY: the loader passes a valid entry, and `act` is the one below.
            let (info, act) = unsafe { (&*info, &mut *act.cast::<Act<'_>>()) };
            c_int::from(!act(info))
        })
    }
    let mut act: Act<'_> = &mut act;
    // SAFETY: `each` takes what is passed here, and both live through the call.
    unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut act).cast()) };
}

/// Those whose file name, or whose name for others, begins with `start`, in the order of loading.
pub(crate) fn named(start: &str) -> Vec<Object> {
    let mut found = Vec::new();
    visit(|info| {
        let object = Object::of(info);
        let is_meant = |name: &str| name.starts_with(start);
        if is_meant(object.file_name()) || object.soname().is_some_and(|name| is_meant(&name)) {
            found.push(object);
        }
        true
    });
    found
}

/// All, in the order of loading.
pub(crate) fn all() -> Vec<Object> {
    let mut objects = Vec::new();
    visit(|info| {
        objects.push(Object::of(info));
        true
    });
    objects
}

/// How many were loaded so far, those that are gone included: where it is as it was, none has come.
pub(crate) fn loads() -> u64 {
    let mut loads = 0;
    visit(|info| {
        loads = info.dlpi_adds;
        false
    });
    loads
}

unsafe extern "C" {
    /// Of libgcc, by which panics unwind.
    fn _Unwind_Backtrace(visit: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int, data: *mut c_void) -> c_int;
    fn _Unwind_GetIP(frame: *mut c_void) -> usize;
}

/// Where this library was called from: the innermost address on the stack that lies in another object.
pub(crate) fn caller(own: &Object) -> Option<usize> {
    struct Search<'a>(&'a Object, Option<usize>);
    unsafe extern "C" fn look(frame: *mut c_void, search: *mut c_void) -> c_int {
        guard::ffi(1, || {
            // SAFETY: the unwinder passes a valid frame, and `search` is the one below.
            let (search, address) = unsafe { (&mut *search.cast::<Search<'_>>(), _Unwind_GetIP(frame)) };
            // It is where the call returns to, which may lie behind the last function.
            search.1 = Some(address.wrapping_sub(1)).filter(|address| !search.0.holds(*address));
            c_int::from(search.1.is_some())
        })
    }
    let mut search = Search(own, None);
    // SAFETY: `look` takes what is passed here, and both live through the call.
    unsafe { _Unwind_Backtrace(look, (&raw mut search).cast()) };
    search.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_by_the_start_of_their_name() {
        assert!(named("libc.so").iter().all(|object| object.path.contains("/libc.so")));
        assert_eq!(named("libc.so").len(), 1);
        assert!(named("libnothing-of-this-name").is_empty());
        assert!(loads() >= all().len() as u64 - 1, "the kernel's own was not loaded");
    }

    #[test]
    fn an_object_says_its_name_and_what_it_was_linked_against() {
        let libc = &named("libc.so")[0];
        assert_eq!(libc.soname().as_deref(), Some("libc.so.6"));
        let all = all();
        let own = all
            .iter()
            .find(|object| object.holds(caller as *const () as usize))
            .unwrap();
        assert_eq!(own.soname(), None, "the test's program");
        assert!(own.needed().contains(&"libc.so.6".to_owned()), "{:?}", own.needed());
    }

    #[test]
    fn the_caller_is_who_called_this_library() {
        unsafe extern "C" fn compare(found: *const c_void, _: *const c_void) -> c_int {
            let objects = all();
            let is_own = |object: &&Object| object.holds(caller as *const () as usize);
            let by = caller(objects.iter().find(is_own).unwrap()).unwrap();
            let by = objects.iter().find(|object| object.holds(by)).unwrap();
            // SAFETY: the key that is passed below.
            unsafe { &*found.cast::<std::cell::RefCell<String>>() }.replace(by.path.clone());
            0
        }
        let found = std::cell::RefCell::new(String::new());
        // SAFETY: an array of one, of which `compare` reads nothing.
        unsafe { libc::bsearch((&raw const found).cast(), c"".as_ptr().cast(), 1, 1, Some(compare)) };
        assert!(found.borrow().contains("/libc.so"), "{found:?}");
    }
}
