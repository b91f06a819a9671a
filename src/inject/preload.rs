//! The functions that ours shadow: found in the copy of the library that the process has mapped.
//!
//! `RTLD_NEXT` is no use: it is NULL where Python loaded the runtime locally.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use libloading::os::unix::Library;

type Function = unsafe extern "C" fn() -> u32;
type FunctionOfSix = unsafe extern "C" fn(usize, usize, usize, usize, usize, usize) -> u32;

/// What cudaProfilerStart returns where no runtime is mapped: cudaErrorSharedObjectInitFailed.
const CUDA_ERROR_SHARED_OBJECT_INIT_FAILED: u32 = 303;

/// One shadowed function, looked up once.
#[derive(Debug)]
pub(crate) struct Shadowed {
    name: &'static CStr,
    libraries: &'static [&'static str],
    basename: &'static str,
    real: AtomicPtr<c_void>,
}

impl Shadowed {
    /// A function of the CUDA runtime.
    pub(crate) const fn of_runtime(name: &'static CStr) -> Shadowed {
        Shadowed {
            name,
            libraries: &["libcudart.so.13", "libcudart.so.12"],
            basename: "libcudart",
            real: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// A function of the CUDA driver.
    pub(crate) const fn of_driver(name: &'static CStr) -> Shadowed {
        Shadowed {
            name,
            libraries: &["libcuda.so.1"],
            basename: "libcuda.so",
            real: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// Calls the real one, which takes nothing.
    pub(crate) fn call(&self) -> u32 {
        let real = self.address();
        if real.is_null() {
            return CUDA_ERROR_SHARED_OBJECT_INIT_FAILED;
        }
        // SAFETY: a symbol of this name in CUDA takes nothing and returns a status.
        unsafe { std::mem::transmute::<*mut c_void, Function>(real)() }
    }

    /// Calls the real one.
    ///
    /// # Safety
    /// It takes six words at most, and these are its arguments.
    pub(crate) unsafe fn call_with(&self, [a, b, c, d, e, f]: [usize; 6]) -> u32 {
        let real = self.address();
        if real.is_null() {
            return CUDA_ERROR_SHARED_OBJECT_INIT_FAILED;
        }
        // SAFETY: words are passed in registers, and a function does not look at those that it does not take.
        unsafe { std::mem::transmute::<*mut c_void, FunctionOfSix>(real)(a, b, c, d, e, f) }
    }

    /// The real one, looked up once; null if there is none.
    pub(crate) fn address(&self) -> *mut c_void {
        let mut real = self.real.load(Ordering::Acquire);
        if real.is_null() {
            real = self.find();
            self.real.store(real, Ordering::Release);
        }
        real
    }

    fn find(&self) -> *mut c_void {
        let mapped = self
            .libraries
            .iter()
            .map(|name| (*name).to_owned())
            .chain(mapped_libraries(self.basename));
        for name in mapped {
            // SAFETY: takes the copy that is mapped, or none; looking a name up has no effect.
            let symbol = unsafe {
                let Ok(library) = Library::open(Some(&name), libc::RTLD_LAZY | libc::RTLD_NOLOAD) else {
                    continue;
                };
                libc::dlsym(library.into_raw(), self.name.as_ptr())
            };
            if !symbol.is_null() {
                return symbol;
            }
        }
        std::ptr::null_mut()
    }
}

/// True where the process has a shared CUDA runtime mapped.
pub(crate) fn shared_runtime_is_mapped() -> bool {
    !mapped_libraries("libcudart").is_empty()
}

/// True where calls by name reach our cudaProfilerStart: we were preloaded.
pub(crate) fn is_interposed(ours: *const c_void) -> bool {
    // SAFETY: looking a name up has no effect.
    let first = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"cudaProfilerStart".as_ptr()) };
    std::ptr::eq(first, ours)
}

/// Paths of the mapped libraries whose file name begins with `basename`.
fn mapped_libraries(basename: &str) -> Vec<String> {
    struct Search<'a> {
        basename: &'a str,
        found: Vec<String>,
    }
    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
        crate::inject::guard::ffi(0, || {
            // SAFETY: the loader passes a valid entry, and `data` is the search below.
            let (search, name): (&mut Search<'_>, *const c_char) =
                unsafe { (&mut *data.cast::<Search<'_>>(), (*info).dlpi_name) };
            if !name.is_null() {
                // SAFETY: the loader's names are zero-terminated.
                let path = unsafe { CStr::from_ptr(name) }.to_string_lossy();
                if path
                    .rsplit('/')
                    .next()
                    .is_some_and(|file| file.starts_with(search.basename))
                {
                    search.found.push(path.into_owned());
                }
            }
            0
        })
    }
    let mut search = Search {
        basename,
        found: Vec::new(),
    };
    // SAFETY: `visit` takes what is passed here, and both live through the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search.found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_by_the_start_of_their_name() {
        assert!(mapped_libraries("libc.so").iter().all(|path| path.contains("/libc.so")));
        assert_eq!(mapped_libraries("libc.so").len(), 1);
        assert!(mapped_libraries("libnothing-of-this-name").is_empty());
    }

    #[test]
    fn without_a_runtime_the_call_fails_as_one_that_can_not_be_loaded() {
        static START: Shadowed = Shadowed::of_runtime(c"cudaProfilerStart");
        assert_eq!(START.call(), CUDA_ERROR_SHARED_OBJECT_INIT_FAILED);
    }
}
