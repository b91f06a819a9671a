//! Threads that have called NVTX, each with its open ranges.
//!
//! A thread's lock is its own: another thread takes it for a moment as a window closes, or CUDA is initialised.

use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use crate::inject::guard;
use crate::inject::guest::lock;
use crate::inject::nvtx::stack::Stack;
use crate::inject::nvtx::{GENERATION, epoch, events, state};

/// A thread's ranges.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) id: u32,
    pub(crate) open: Mutex<Open>,
}

/// What is open on a thread.
#[derive(Debug, Default)]
pub(crate) struct Open {
    pub(crate) stack: Stack,
    /// Epoch of the last sweep that told of them.
    pub(crate) swept: u64,
    /// The range that opened this thread's window.
    pub(crate) holder: Option<Holder>,
}

/// Outermost range of a thread that matches the gate's pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Number by which the gate knows the wish.
    pub(crate) wish: u64,
    pub(crate) range: Held,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// Its place in the stack.
    Pushed(usize),
    /// Its id.
    Started(u64),
}

/// Longest wait for a lock of another thread, which may have been stopped, or be in a signal handler that ends the process.
const PATIENCE: Duration = Duration::from_millis(100);

/// The lock, if it can be had soon.
pub(crate) fn lock_soon<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    let until = Instant::now() + PATIENCE;
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_micros(50)),
        }
    }
}

/// Those that live, and the epoch in which each came.
#[derive(Debug, Default)]
pub(crate) struct Threads(Mutex<Vec<Arc<Thread>>>);

impl Threads {
    fn add(&self) -> Arc<Thread> {
        let mut threads = lock(&self.0);
        // Read under the lock: the sweep that follows finds this thread, or it came after it.
        let open = Open {
            swept: epoch(),
            ..Open::default()
        };
        let thread = Arc::new(Thread {
            // SAFETY: takes nothing and can't fail.
            id: unsafe { libc::gettid() }.cast_unsigned(),
            open: Mutex::new(open),
        });
        threads.push(Arc::clone(&thread));
        thread
    }

    fn remove(&self, thread: &Arc<Thread>) {
        lock(&self.0).retain(|other| !Arc::ptr_eq(other, thread));
    }

    pub(crate) fn all(&self) -> Vec<Arc<Thread>> {
        lock_soon(&self.0).map(|threads| threads.clone()).unwrap_or_default()
    }
}

#[derive(Default)]
struct Local(RefCell<Option<(u64, Arc<Thread>)>>);

thread_local! {
    /// This thread is in our own code: what calls NVTX from there is CUPTI or a signal handler. Apart from its ranges, since
    /// this needs no destructor: so it is known also as the thread ends, and is no call of the loader's.
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
    static LOCAL: Local = const { Local(RefCell::new(None)) };
}

impl Drop for Local {
    fn drop(&mut self) {
        let mine = self.0.get_mut().take();
        let Some((generation, thread)) = mine else { return };
        guard::ffi((), || {
            quietly(|| {
                if generation == GENERATION.load(Ordering::Acquire) {
                    events::thread_ends(&thread);
                    state().threads.remove(&thread);
                }
            });
        });
    }
}

/// While it lives, NVTX's calls on this thread are ignored.
struct Quiet {
    was_inside: bool,
}

impl Drop for Quiet {
    fn drop(&mut self) {
        IS_INSIDE.set(self.was_inside);
    }
}

/// Runs code that takes locks which NVTX's calls take, too: a signal handler that makes some would wait for itself.
pub(crate) fn quietly<T>(act: impl FnOnce() -> T) -> T {
    let _quiet = Quiet {
        was_inside: IS_INSIDE.replace(true),
    };
    act()
}

/// True on a thread that is in our own code, or in a signal handler that came over it.
pub(crate) fn is_quiet() -> bool {
    IS_INSIDE.get()
}

/// Gives the calling thread to `act`. None: the thread ends, or is in here already.
pub(crate) fn with<T>(act: impl FnOnce(&Arc<Thread>) -> T) -> Option<T> {
    if is_quiet() {
        return None;
    }
    let act = |local: &Local| {
        let generation = GENERATION.load(Ordering::Acquire);
        let is_known = matches!(&*local.0.borrow(), Some((known, _)) if *known == generation);
        if !is_known {
            local.0.replace(Some((generation, state().threads.add())));
        }
        let thread = local.0.borrow();
        thread.as_ref().map(|(_, thread)| act(thread))
    };
    quietly(|| LOCAL.try_with(act)).ok().flatten()
}
