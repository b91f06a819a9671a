//! The functions that ours shadow: found in the copy of the library that the process has mapped.
//!
//! The "next" symbol after ours is no use: it is NULL where Python loaded the runtime locally. Where two runtimes are mapped (libraries of
//! CUDA 12 and 13 in one process), a call reaches the one that its caller was linked against. Ours have no version, so
//! that they stand for those of either.

use std::ffi::{CStr, c_void};
use std::ops::Range;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use libloading::os::unix::Library;

mod last_caller;
mod objects;

use crate::inject::guest::Guest;
use crate::inject::preload::last_caller::LastCaller;
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
    /// The only real one that there is, where its library lies, and how many objects had been loaded then.
    real: AtomicPtr<c_void>,
    library_at: AtomicUsize,
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
            library_at: AtomicUsize::new(0),
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
    ///
    /// Once it is known, no look-up by name is made, which would allocate and wait for the loader.
    pub(crate) fn address(&self) -> *mut c_void {
        // There is one driver only, whatever comes.
        let loads = if self.library == RUNTIME { objects::loads() } else { 1 };
        if self.loads.load(Ordering::Acquire) == loads {
            return self.real.load(Ordering::Acquire);
        }
        if let Some(real) = self.of_last_caller(loads) {
            return real;
        }
        let known = self.library_at.load(Ordering::Acquire);
        if known != 0 && objects::only(self.library) == Some(known) {
            self.loads.store(loads, Ordering::Release);
            return self.real.load(Ordering::Acquire);
        }
        let found = objects::named(self.library);
        if self.library == RUNTIME && found.len() > 1 {
            return self.of_caller(&found, loads);
        }
        let mut reals = found.iter().map(|library| (library, self.find(library)));
        let Some((library, real)) = reals.find(|(_, real)| !real.is_null()) else {
            return std::ptr::null_mut();
        };
        self.real.store(real, Ordering::Release);
        self.library_at.store(library.base, Ordering::Release);
        self.loads.store(loads, Ordering::Release);
        real
    }

    /// That of the object which made this thread's last call, where it makes this one, too.
    fn of_last_caller(&self, loads: u64) -> Option<*mut c_void> {
        let last = last_caller::get().filter(|last| last.loads == loads && self.library == RUNTIME)?;
        let caller = objects::caller(&own()?)?;
        let real = self.known_in(last.runtime).filter(|_| last.holds(loads, caller))?;
        count_undecided(last.is_linked);
        Some(real)
    }

    /// That of the runtime which the calling object was linked against; of the first one, if it was linked against none.
    fn of_caller(&self, runtimes: &[Object], loads: u64) -> *mut c_void {
        let caller = own().and_then(|own| objects::caller(&own));
        let linked = caller.and_then(|caller| linked(runtimes, caller));
        count_undecided(linked.is_some());
        let Some(runtime) = linked.or(runtimes.first()) else {
            return std::ptr::null_mut();
        };
        if let Some(object) = caller.and_then(objects::around) {
            last_caller::set(LastCaller::new(loads, object, runtime.base, linked.is_some()));
        }
        self.in_runtime(runtime)
    }

    fn place_of(&self, runtime: usize) -> Option<&Real> {
        self.reals.iter().find(|real| {
            let taken = real
                .runtime
                .compare_exchange(0, runtime, Ordering::AcqRel, Ordering::Acquire);
            taken.is_ok() || taken == Err(runtime)
        })
    }

    fn known_in(&self, runtime: usize) -> Option<*mut c_void> {
        let known = self.place_of(runtime)?.address.load(Ordering::Acquire);
        (!known.is_null()).then_some(known)
    }

    fn in_runtime(&self, runtime: &Object) -> *mut c_void {
        if let Some(known) = self.known_in(runtime.base) {
            return known;
        }
        let found = self.find(runtime);
        if let Some(real) = self.place_of(runtime.base) {
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

/// Where this library lies, which is never unloaded.
fn own() -> Option<Range<usize>> {
    static OWN: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
    let [begin, end] = &OWN;
    if end.load(Ordering::Acquire) == 0 {
        let found = objects::around(own as *const () as usize)?;
        begin.store(found.start, Ordering::Release);
        end.store(found.end, Ordering::Release);
    }
    Some(begin.load(Ordering::Acquire)..end.load(Ordering::Acquire))
}

fn count_undecided(is_linked: bool) {
    UNDECIDED.fetch_add(u64::from(!is_linked), Ordering::Relaxed);
}

/// The runtime that the object in which a caller lies was linked against, as the loader would have it.
fn linked(runtimes: &[Object], caller: usize) -> Option<&Object> {
    let needed = objects::needed_by(caller);
    let is_needed = |runtime: &&Object| {
        needed
            .iter()
            .any(|name| Some(name) == runtime.soname.as_ref() || name == runtime.file_name())
    };
    runtimes.iter().find(is_needed)
}

/// Calls of which it was not clear where they belong.
pub(crate) fn tell_problems(guest: &Guest) {
    let calls = UNDECIDED.load(Ordering::Relaxed);
    if calls > 0 {
        let runtimes: Vec<String> = objects::named(RUNTIME)
            .into_iter()
            .map(|runtime| runtime.path)
            .collect();
        guest.count_problem(
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
