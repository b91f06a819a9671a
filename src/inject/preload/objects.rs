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
    /// Where it lies, unlike any other that is mapped.
    pub(crate) base: usize,
    /// The name by which others ask for it.
    pub(crate) soname: Option<String>,
}

impl Object {
    pub(crate) fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// One while the loader shows it: it may be unmapped any time after. Nothing in here allocates, since a call from a signal
/// handler may have come over an allocation.
#[derive(Clone, Copy)]
struct Shown<'a> {
    info: &'a libc::dl_phdr_info,
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

impl<'a> Shown<'a> {
    fn base(self) -> usize {
        usize::try_from(self.info.dlpi_addr).unwrap_or_default()
    }

    fn path(self) -> &'a CStr {
        match self.info.dlpi_name.is_null() {
            true => c"",
            // SAFETY: the loader's names are zero-terminated.
            false => unsafe { CStr::from_ptr(self.info.dlpi_name) },
        }
    }

    fn place(self, offset: u64) -> usize {
        self.base().wrapping_add(usize::try_from(offset).unwrap_or_default())
    }

    fn of_type(self, kind: u32) -> impl Iterator<Item = &'a libc::Elf64_Phdr> {
        let headers = match self.info.dlpi_phdr.is_null() {
            true => &[],
            // SAFETY: the loader gives as many headers.
            false => unsafe { slice::from_raw_parts(self.info.dlpi_phdr, usize::from(self.info.dlpi_phnum)) },
        };
        headers.iter().filter(move |header| header.p_type == kind)
    }

    fn addresses(self) -> Range<usize> {
        let ends = self
            .of_type(libc::PT_LOAD)
            .map(|header| self.place(header.p_vaddr.wrapping_add(header.p_memsz)));
        let begins = self.of_type(libc::PT_LOAD).map(|header| self.place(header.p_vaddr));
        begins.min().unwrap_or(0)..ends.max().unwrap_or(0)
    }

    /// Its dynamic section.
    fn entries(self) -> impl Iterator<Item = &'a Entry> {
        let section = self.of_type(libc::PT_DYNAMIC).next();
        let mut next = section.map_or(std::ptr::null(), |header| {
            std::ptr::with_exposed_provenance::<Entry>(self.place(header.p_vaddr))
        });
        std::iter::from_fn(move || {
            // SAFETY: null or within the dynamic section, which ends with a zero tag.
            let entry = unsafe { next.as_ref() }.filter(|entry| entry.tag != DT_NULL)?;
            next = next.wrapping_add(1);
            Some(entry)
        })
    }

    fn texts(self, tag: usize) -> impl Iterator<Item = &'a CStr> {
        let strings = self.entries().find(|entry| entry.tag == DT_STRTAB).map(|entry| {
            // Most loaders have put the address there, some leave the offset.
            let is_offset = entry.value < self.base();
            if is_offset {
                self.base().wrapping_add(entry.value)
            } else {
                entry.value
            }
        });
        let wanted = self.entries().filter(move |entry| entry.tag == tag);
        wanted.filter_map(move |entry| {
            let text = std::ptr::with_exposed_provenance::<c_char>(strings?.wrapping_add(entry.value));
            // SAFETY: the string table of a mapped object, whose texts are zero-terminated.
            Some(unsafe { CStr::from_ptr(text) })
        })
    }

    /// Whether its file name, or its name for others, begins so.
    fn is_named(self, start: &str) -> bool {
        let file_name = self.path().to_bytes().rsplit(|byte| *byte == b'/').next();
        let mut names = file_name
            .into_iter()
            .chain(self.texts(DT_SONAME).map(CStr::to_bytes).take(1));
        names.any(|name| name.starts_with(start.as_bytes()))
    }
}

/// Calls `act` for each object, in the order of loading, until it gives false.
fn visit(mut act: impl FnMut(Shown<'_>) -> bool) {
    type Act<'a> = &'a mut dyn FnMut(Shown<'_>) -> bool;
    unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, _: usize, act: *mut c_void) -> c_int {
        guard::ffi(1, || {
            // SAFETY: the loader passes a valid entry, and `act` is the one below.
            let (info, act) = unsafe { (&*info, &mut *act.cast::<Act<'_>>()) };
            c_int::from(!act(Shown { info }))
        })
    }
    let mut act: Act<'_> = &mut act;
    // SAFETY: `each` takes what is passed here, and both live through the call.
    unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut act).cast()) };
}

fn owned(text: &CStr) -> String {
    text.to_string_lossy().into_owned()
}

/// Those whose file name, or whose name for others, begins with `start`, in the order of loading.
pub(crate) fn named(start: &str) -> Vec<Object> {
    let mut found = Vec::new();
    visit(|shown| {
        if shown.is_named(start) {
            found.push(Object {
                path: owned(shown.path()),
                base: shown.base(),
                soname: shown.texts(DT_SONAME).next().map(owned),
            });
        }
        true
    });
    found
}

/// Where the only one lies whose name begins so. None for none or several. Does not allocate.
pub(crate) fn only(start: &str) -> Option<usize> {
    let (mut base, mut count) = (0, 0);
    visit(|shown| {
        if shown.is_named(start) {
            (base, count) = (shown.base(), count + 1);
        }
        count < 2
    });
    (count == 1).then_some(base)
}

/// The addresses of the object in which one lies.
pub(crate) fn around(address: usize) -> Option<Range<usize>> {
    let mut found = None;
    visit(|shown| {
        found = Some(shown.addresses()).filter(|addresses| addresses.contains(&address));
        found.is_none()
    });
    found
}

/// The libraries that the object in which an address lies was linked against.
pub(crate) fn needed_by(address: usize) -> Vec<String> {
    let mut needed = Vec::new();
    visit(|shown| {
        let is_it = shown.addresses().contains(&address);
        if is_it {
            needed.extend(shown.texts(DT_NEEDED).map(owned));
        }
        !is_it
    });
    needed
}

/// How many were loaded so far, those that are gone included: where it is as it was, none has come.
pub(crate) fn loads() -> u64 {
    let mut loads = 0;
    visit(|shown| {
        loads = shown.info.dlpi_adds;
        false
    });
    loads
}

unsafe extern "C" {
    /// Of libgcc, by which panics unwind.
    fn _Unwind_Backtrace(visit: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int, data: *mut c_void) -> c_int;
    fn _Unwind_GetIP(frame: *mut c_void) -> usize;
}

/// Where this library, which lies at `own`, was called from: the innermost address on the stack that lies in another object.
pub(crate) fn caller(own: &Range<usize>) -> Option<usize> {
    struct Search<'a>(&'a Range<usize>, Option<usize>);
    unsafe extern "C" fn look(frame: *mut c_void, search: *mut c_void) -> c_int {
        guard::ffi(1, || {
            // SAFETY: the unwinder passes a valid frame, and `search` is the one below.
            let (search, address) = unsafe { (&mut *search.cast::<Search<'_>>(), _Unwind_GetIP(frame)) };
            // It is where the call returns to, which may lie behind the last function.
            search.1 = Some(address.wrapping_sub(1)).filter(|address| !search.0.contains(address));
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

    fn own() -> Range<usize> {
        around(caller as *const () as usize).unwrap()
    }

    fn path_of(address: usize) -> String {
        let mut path = String::new();
        visit(|shown| {
            if shown.addresses().contains(&address) {
                path = owned(shown.path());
            }
            path.is_empty()
        });
        path
    }

    #[test]
    fn objects_are_found_by_the_start_of_their_name() {
        let found = named("libc.so");
        assert!(found.len() == 1 && found[0].path.contains("/libc.so"), "{found:?}");
        assert_eq!(only("libc.so"), Some(found[0].base));
        assert!(named("libnothing-of-this-name").is_empty() && only("libnothing-of-this-name").is_none());
        assert!(named("lib").len() > 1 && only("lib").is_none());
        assert!(loads() >= named("lib").len() as u64);
    }

    #[test]
    fn an_object_says_its_name_and_what_it_was_linked_against() {
        assert_eq!(named("libc.so")[0].soname.as_deref(), Some("libc.so.6"));
        let needed = needed_by(own().start);
        assert!(needed.contains(&"libc.so.6".to_owned()), "{needed:?}");
        assert!(needed_by(1).is_empty() && around(1).is_none(), "nothing lies there");
    }

    #[test]
    fn the_caller_is_who_called_this_library() {
        unsafe extern "C" fn compare(found: *const c_void, _: *const c_void) -> c_int {
            let by = path_of(caller(&own()).unwrap());
            // SAFETY: the key that is passed below.
            unsafe { &*found.cast::<std::cell::RefCell<String>>() }.replace(by);
            0
        }
        let found = std::cell::RefCell::new(String::new());
        // SAFETY: an array of one, of which `compare` reads nothing.
        unsafe { libc::bsearch((&raw const found).cast(), c"".as_ptr().cast(), 1, 1, Some(compare)) };
        assert!(found.borrow().contains("/libc.so"), "{found:?}");
    }
}
