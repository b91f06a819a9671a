//! The functions that ours shadow: found in the copy of the library that the process has mapped.
//!
//! The "next" symbol after ours is no use: it is NULL where Python loaded the runtime locally. Where two runtimes are mapped (libraries of
//! CUDA 12 and 13 in one process), a call reaches the one that its caller was linked against. Ours have no version, so
//! that they stand for those of either.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use libloading::os::unix::Library;

mod objects;

use crate::inject::guest::Guest;
use crate::inject::preload::objects::Object;

type Function = unsafe extern "C" fn() -> u32;
type FunctionOfSix = unsafe extern "C" fn(usize, usize, usize, usize, usize, usize) -> u32;

const RUNTIME: &str = "libcudart";

/// What cudaProfilerStart returns where no runtime is mapped: cudaErrorSharedObjectInitFailed.
const CUDA_ERROR_SHARED_OBJECT_INIT_FAILED: u32 = 303;

/// A process has one CUDA runtime, now and then a second; of more, calls are looked up anew.
const MAX_RUNTIMES: usize = 4;

static UNDECIDED: AtomicU64 = AtomicU64::new(0);

/// One shadowed function.
#[derive(Debug)]
pub(crate) struct Shadowed {
    name: &'static CStr,
    /// How the names of the libraries begin that may have it.
    library: &'static str,
    /// The only real one that there is, and how many objects had been loaded then.
    real: AtomicPtr<c_void>,
    loads: AtomicU64,
    /// The real one of each runtime, where there are several.
    reals: [Real; MAX_RUNTIMES],
}

/// What a runtime has under the name of a shadowed function.
#[derive(Debug)]
struct Real {
    /// Where the runtime lies.
    runtime: AtomicUsize,
    address: AtomicPtr<c_void>,
}

impl Shadowed {
    /// A function of the CUDA runtime.
    pub(crate) const fn of_runtime(name: &'static CStr) -> Shadowed {
        Shadowed::new(name, RUNTIME)
    }

    /// A function of the CUDA driver.
    pub(crate) const fn of_driver(name: &'static CStr) -> Shadowed {
        Shadowed::new(name, "libcuda.so")
    }

    const fn new(name: &'static CStr, library: &'static str) -> Shadowed {
        let reals = [const {
            Real {
                runtime: AtomicUsize::new(0),
                address: AtomicPtr::new(std::ptr::null_mut()),
            }
        }; MAX_RUNTIMES];
        Shadowed {
            name,
            library,
            real: AtomicPtr::new(std::ptr::null_mut()),
            loads: AtomicU64::new(0),
            reals,
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

    /// The real one; null if there is none. Of several runtimes, that of the caller.
    pub(crate) fn address(&self) -> *mut c_void {
        // There is one driver only, whatever comes.
        let loads = if self.library == RUNTIME { objects::loads() } else { 1 };
        if self.loads.load(Ordering::Acquire) == loads {
            return self.real.load(Ordering::Acquire);
        }
        let found = objects::named(self.library);
        if let [_, _, ..] = found.as_slice()
            && self.library == RUNTIME
        {
            return meant(&found).map_or(std::ptr::null_mut(), |runtime| self.in_runtime(runtime));
        }
        let real = found
            .iter()
            .map(|library| self.find(library))
            .find(|real| !real.is_null());
        let Some(real) = real else { return std::ptr::null_mut() };
        self.real.store(real, Ordering::Release);
        self.loads.store(loads, Ordering::Release);
        real
    }

    fn in_runtime(&self, runtime: &Object) -> *mut c_void {
        let place = self.reals.iter().find(|real| {
            let taken = real
                .runtime
                .compare_exchange(0, runtime.base(), Ordering::AcqRel, Ordering::Acquire);
            taken.is_ok() || taken == Err(runtime.base())
        });
        let known = place.map_or(std::ptr::null_mut(), |real| real.address.load(Ordering::Acquire));
        if !known.is_null() {
            return known;
        }
        let found = self.find(runtime);
        if let Some(real) = place {
            real.address.store(found, Ordering::Release);
        }
        found
    }

    fn find(&self, library: &Object) -> *mut c_void {
        // SAFETY: takes the copy that is mapped, or none; looking a name up has no effect.
        unsafe {
            match Library::open(Some(&library.path), libc::RTLD_LAZY | libc::RTLD_NOLOAD) {
                Ok(library) => libc::dlsym(library.into_raw(), self.name.as_ptr()),
                Err(_) => std::ptr::null_mut(),
            }
        }
    }
}

/// The runtime that a caller means: the one that the object from which the call came was linked against, as the loader
/// would have it. The first one, if it was linked against none of them.
fn meant(runtimes: &[Object]) -> Option<&Object> {
    let objects = objects::all();
    let object_at = |address: usize| objects.iter().find(|object| object.holds(address));
    let needed = object_at(meant as *const () as usize)
        .and_then(objects::caller)
        .and_then(object_at)
        .map_or_else(Vec::new, Object::needed);
    let is_needed = |runtime: &&Object| {
        let soname = runtime.soname();
        needed
            .iter()
            .any(|name| Some(name) == soname.as_ref() || name == runtime.file_name())
    };
    runtimes.iter().find(is_needed).or_else(|| {
        UNDECIDED.fetch_add(1, Ordering::Relaxed);
        runtimes.first()
    })
}

/// Calls of which it was not clear where they belong.
pub(crate) fn tell_problems(guest: &Guest) {
    let calls = UNDECIDED.load(Ordering::Relaxed);
    if calls > 0 {
        let runtimes: Vec<String> = objects::named(RUNTIME)
            .into_iter()
            .map(|runtime| runtime.path)
            .collect();
        guest.problem(
            "several_cuda_runtimes",
            format!(
                "this process has several CUDA runtimes ({}), and {calls} calls came from code that was linked against \
                 none of them: they went to the first",
                runtimes.join(", ")
            ),
        );
    }
}

/// True where the process has a shared CUDA runtime mapped.
pub(crate) fn shared_runtime_is_mapped() -> bool {
    !objects::named(RUNTIME).is_empty()
}

/// True where calls by name reach our cudaProfilerStart: we were preloaded.
pub(crate) fn is_interposed(ours: *const c_void) -> bool {
    // SAFETY: looking a name up has no effect.
    let first = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"cudaProfilerStart".as_ptr()) };
    std::ptr::eq(first, ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_runtime_the_call_fails_as_one_that_can_not_be_loaded() {
        static START: Shadowed = Shadowed::of_runtime(c"cudaProfilerStart");
        assert_eq!(START.call(), CUDA_ERROR_SHARED_OBJECT_INIT_FAILED);
    }
}
