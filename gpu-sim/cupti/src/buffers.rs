//! The client's buffers: asked for on the thread that has a record to write, filled there, and put into line for
//! handing back once full. With per-thread buffers each launching thread fills one of its own, else all share one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cupti_sys::functions::{BufferCompleted, BufferRequested};

use crate::faults::complain;
use crate::version::api_version;

/// First version in which a client may refuse a buffer without bringing CUPTI down.
const REFUSAL_SINCE: u32 = 27;

/// Enters a lock, whatever became of the thread that held it last.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buffer of the client's, being filled or full.
pub(crate) struct Buffer {
    start: *mut u8,
    size: usize,
    used: usize,
    records: usize,
    /// Records that the client allows, 0 for any number.
    limit: usize,
    /// When the last of its records is finished.
    ready_at: u64,
}

// SAFETY: the memory is lent to us by the client until we hand it back; whoever has the `Buffer` uses it alone.
unsafe impl Send for Buffer {}

impl Buffer {
    /// Appends a record; false if there is no room.
    fn append(&mut self, record: &[u8], ready_at: u64) -> bool {
        let at_limit = self.limit != 0 && self.records == self.limit;
        if at_limit || record.len() > self.size - self.used {
            return false;
        }
        // SAFETY: the client lent us `size` bytes at `start`, and the record fits behind the `used` ones.
        unsafe { std::ptr::copy_nonoverlapping(record.as_ptr(), self.start.add(self.used), record.len()) };
        self.used += record.len();
        self.records += 1;
        self.ready_at = self.ready_at.max(ready_at);
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    pub(crate) fn ready_at(&self) -> u64 {
        self.ready_at
    }

    /// The records written so far.
    pub(crate) fn records_mut(&mut self) -> &mut [u8] {
        // SAFETY: `used` bytes at `start` were written by `append`.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.used) }
    }
}

/// How the client hands out buffers and takes them back.
struct Callbacks {
    requested: BufferRequested,
    completed: BufferCompleted,
}

type Slot = Mutex<Option<Buffer>>;

/// All buffers of one CUPTI.
pub(crate) struct Pool {
    /// Replaced, never freed: one may be running.
    callbacks: AtomicPtr<Callbacks>,
    per_thread: AtomicBool,
    /// Buffers being filled: those of threads, and the one for all.
    slots: Mutex<Vec<Arc<Slot>>>,
    shared: Slot,
    /// Asked for by a thread that then found another had been quicker.
    spare: Mutex<Vec<Buffer>>,
    full: Mutex<VecDeque<Buffer>>,
    retired: Condvar,
    /// Buffers out of line that the worker has yet to hand back.
    worker_has: AtomicUsize,
    dropped: AtomicU64,
}

pub(crate) static POOL: Pool = Pool::new();

thread_local! {
    static OWN_SLOT: RefCell<Option<Arc<Slot>>> = const { RefCell::new(None) };
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as being inside one of the client's buffer callbacks.
struct InCallback;

impl InCallback {
    fn enter() -> InCallback {
        IN_CALLBACK.set(true);
        InCallback
    }
}

impl Drop for InCallback {
    fn drop(&mut self) {
        IN_CALLBACK.set(false);
    }
}

/// Some functions must not be called from a buffer callback: the real CUPTI takes its locks in the wrong order then.
pub(crate) fn refuse_in_callback(function: &str) {
    if IN_CALLBACK.get() {
        complain(&format!(
            "{function} called from a buffer callback: the real CUPTI deadlocks here"
        ));
    }
}

impl Pool {
    pub(crate) const fn new() -> Pool {
        Pool {
            callbacks: AtomicPtr::new(std::ptr::null_mut()),
            per_thread: AtomicBool::new(false),
            slots: Mutex::new(Vec::new()),
            shared: Mutex::new(None),
            spare: Mutex::new(Vec::new()),
            full: Mutex::new(VecDeque::new()),
            retired: Condvar::new(),
            worker_has: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    pub(crate) fn register(&self, requested: BufferRequested, completed: BufferCompleted, per_thread: bool) {
        self.per_thread.store(per_thread, Ordering::Release);
        self.callbacks.store(
            Box::into_raw(Box::new(Callbacks { requested, completed })),
            Ordering::Release,
        );
    }

    fn callbacks(&self) -> Option<&'static Callbacks> {
        // SAFETY: null or leaked by `register`.
        unsafe { self.callbacks.load(Ordering::Acquire).as_ref() }
    }

    /// Counts records that are lost.
    pub(crate) fn drop_records(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// How many were lost since it was last asked.
    pub(crate) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// Lets `write` append records to the buffer of this thread.
    pub(crate) fn write(&self, write: impl FnOnce(&mut Writer<'_>)) {
        let own = if self.per_thread.load(Ordering::Acquire) {
            self.own_slot()
        } else {
            None
        };
        let slot = own.as_deref().unwrap_or(&self.shared);
        write(&mut Writer {
            pool: self,
            slot,
            held: None,
        });
    }

    /// The slot of this thread; None while the thread is being torn down.
    fn own_slot(&self) -> Option<Arc<Slot>> {
        let slot = OWN_SLOT.try_with(|own| {
            let mut own = own.borrow_mut();
            let slot = own.get_or_insert_with(|| {
                let slot = Arc::new(Slot::default());
                lock(&self.slots).push(Arc::clone(&slot));
                slot
            });
            Arc::clone(slot)
        });
        slot.ok()
    }

    /// Puts a buffer that takes no more records into line.
    fn retire(&self, buffer: Buffer) {
        lock(&self.full).push_back(buffer);
        self.retired.notify_one();
    }

    /// A buffer with room for a record of `needed` bytes; None if the client gives none.
    fn fresh(&self, needed: usize) -> Option<Buffer> {
        if let Some(buffer) = lock(&self.spare).pop() {
            return Some(buffer);
        }
        let callbacks = self.callbacks()?;
        let (mut start, mut size, mut limit) = (std::ptr::null_mut(), 0, 0);
        {
            let _in_callback = InCallback::enter();
            // SAFETY: the client's callback, given three places to write to.
            unsafe { (callbacks.requested)(&raw mut start, &raw mut size, &raw mut limit) };
        }
        if start.is_null() {
            if api_version() < REFUSAL_SINCE {
                complain("the client refused a buffer: before API version 27 the real CUPTI may crash here");
            }
            return None;
        }
        if !(start as usize).is_multiple_of(8) {
            complain("the client's buffer is not aligned to 8 bytes");
        }
        let buffer = Buffer {
            start,
            size,
            used: 0,
            records: 0,
            limit,
            ready_at: 0,
        };
        if size < needed {
            self.complete(buffer);
            return None;
        }
        Some(buffer)
    }

    /// Hands a buffer back on this thread.
    pub(crate) fn complete(&self, buffer: Buffer) {
        let Some(callbacks) = self.callbacks() else { return };
        let _in_callback = InCallback::enter();
        // SAFETY: the client's callback, given a buffer that it lent us.
        unsafe { (callbacks.completed)(std::ptr::null_mut(), 0, buffer.start, buffer.size, buffer.used) };
    }

    /// Takes the full buffers that `wanted` accepts out of the line.
    pub(crate) fn take_full(&self, wanted: impl Fn(&Buffer) -> bool) -> Vec<Buffer> {
        let mut full = lock(&self.full);
        let (taken, kept): (Vec<_>, Vec<_>) = full.drain(..).partition(|buffer| wanted(buffer));
        full.extend(kept);
        taken
    }

    /// The worker's round: hands back the full buffers that are finished at `now`.
    pub(crate) fn complete_ready(&self, now: u64) {
        let ready = {
            let mut full = lock(&self.full);
            let (ready, kept): (Vec<_>, Vec<_>) = full.drain(..).partition(|buffer| buffer.ready_at <= now);
            full.extend(kept);
            // Under the lock: a flush that finds them gone finds them counted.
            self.worker_has.store(ready.len(), Ordering::Release);
            ready
        };
        for buffer in ready {
            self.complete(buffer);
            self.worker_has.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits until the worker has handed back what it took: a flush returns when all is delivered.
    pub(crate) fn wait_for_worker(&self) {
        while self.worker_has.load(Ordering::Acquire) > 0 {
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }

    /// Takes the buffers being filled that `wanted` accepts, and forgets slots of threads that are gone.
    pub(crate) fn take_current(&self, wanted: impl Fn(&Buffer) -> bool) -> Vec<Buffer> {
        let slots = lock(&self.slots).clone();
        let mut taken: Vec<_> = slots
            .iter()
            .filter_map(|slot| lock(slot).take_if(|buffer| wanted(buffer)))
            .collect();
        taken.extend(lock(&self.shared).take_if(|buffer| wanted(buffer)));
        taken.extend(
            std::mem::take(&mut *lock(&self.spare))
                .into_iter()
                .filter(|buffer| wanted(buffer)),
        );
        drop(slots);
        lock(&self.slots).retain(|slot| Arc::strong_count(slot) > 1 || lock(slot).is_some());
        taken
    }

    /// Shows the records of each buffer that is neither handed back nor about to be. One that is just filling up may be
    /// shown twice.
    pub(crate) fn change_undelivered(&self, mut change: impl FnMut(&mut [u8])) {
        let slots = lock(&self.slots).clone();
        for slot in slots.iter().map(|slot| &**slot).chain([&self.shared]) {
            if let Some(buffer) = lock(slot).as_mut() {
                change(buffer.records_mut());
            }
        }
        for buffer in lock(&self.full).iter_mut() {
            change(buffer.records_mut());
        }
    }

    /// Waits until a buffer is retired or `timeout` is over.
    pub(crate) fn wait_for_retired(&self, timeout: std::time::Duration) {
        let full = lock(&self.full);
        let _ = self.retired.wait_timeout(full, timeout);
    }

    /// When the next full buffer is ready; None if there is none.
    pub(crate) fn next_ready_at(&self) -> Option<u64> {
        lock(&self.full).iter().map(Buffer::ready_at).min()
    }
}

/// Writes records into one slot, holding it between records but never while the client is called.
pub(crate) struct Writer<'a> {
    pool: &'a Pool,
    slot: &'a Slot,
    held: Option<MutexGuard<'a, Option<Buffer>>>,
}

impl Writer<'_> {
    /// Appends a record that is finished at `ready_at`. Lost, and counted, if there is no buffer for it.
    pub(crate) fn push(&mut self, record: &[u8], ready_at: u64) {
        loop {
            let held = self.held.get_or_insert_with(|| lock(self.slot));
            if held.as_mut().is_some_and(|buffer| buffer.append(record, ready_at)) {
                return;
            }
            let full = held.take();
            self.held = None;
            if let Some(full) = full {
                self.pool.retire(full);
            }
            let Some(fresh) = self.pool.fresh(record.len()) else {
                return self.pool.drop_records(1);
            };
            let mut held = lock(self.slot);
            if held.is_none() {
                *held = Some(fresh);
            } else {
                drop(held);
                lock(&self.pool.spare).push(fresh);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::c_void;
    use std::sync::atomic::AtomicUsize;

    const SIZE: usize = 64;
    static LENT: AtomicUsize = AtomicUsize::new(0);
    static RETURNED: Mutex<Vec<usize>> = Mutex::new(Vec::new());

    unsafe extern "C" fn requested(buffer: *mut *mut u8, size: *mut usize, limit: *mut usize) {
        LENT.fetch_add(1, Ordering::Relaxed);
        let memory = Box::leak(Box::new([0_u64; SIZE / 8]));
        // SAFETY: the pool gives three valid places.
        unsafe {
            buffer.write(memory.as_mut_ptr().cast());
            size.write(SIZE);
            limit.write(0);
        }
    }

    unsafe extern "C" fn completed(_: *mut c_void, _: u32, _: *mut u8, size: usize, valid: usize) {
        assert_eq!(size, SIZE);
        lock(&RETURNED).push(valid);
    }

    unsafe extern "C" fn refused(buffer: *mut *mut u8, size: *mut usize, _: *mut usize) {
        // SAFETY: as above.
        unsafe {
            buffer.write(std::ptr::null_mut());
            size.write(0);
        }
    }

    #[test]
    fn records_fill_buffers_one_after_the_other_and_none_is_torn() {
        let pool = Pool::new();
        pool.register(requested, completed, false);
        pool.write(|writer| (0..7).for_each(|number| writer.push(&[number; 24], u64::from(number))));

        assert_eq!(
            LENT.load(Ordering::Relaxed),
            4,
            "two records of 24 bytes in each buffer of 64"
        );
        assert_eq!(pool.next_ready_at(), Some(1));
        let mut full = pool.take_full(|buffer| buffer.ready_at() <= 3);
        assert_eq!(full.iter().map(Buffer::ready_at).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(full[1].records_mut()[..], [[2; 24], [3; 24]].concat());
        full.into_iter().for_each(|buffer| pool.complete(buffer));
        assert_eq!(*lock(&RETURNED), [48, 48]);
        assert_eq!(pool.take_current(|buffer| !buffer.is_empty()).len(), 1);
        assert_eq!(pool.take_current(|_| true).len(), 0);
    }

    #[test]
    fn records_without_a_buffer_are_counted_once() {
        let pool = Pool::new();
        pool.write(|writer| writer.push(&[0; 24], 0));
        pool.register(refused, completed, true);
        pool.write(|writer| (0..3).for_each(|_| writer.push(&[0; 24], 0)));
        assert_eq!([pool.take_dropped(), pool.take_dropped()], [4, 0]);
    }
}
