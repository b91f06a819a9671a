//! Memory lent to CUPTI. A fixed pool, recycled; the callbacks only move a pointer.
//!
//! Nothing here takes a lock, waits, or calls CUPTI: the callbacks run on the host's threads, inside CUPTI.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::inject::decode::{self, Layout};

/// One buffer: 4,854 kernel records of CUPTI 13.0. With per-thread buffers each launching thread holds one, so small
/// is better than the 4-8 MiB of others.
pub(crate) const BUFFER_BYTES: usize = 1 << 20;
/// Most buffers that wait to be written: half a second of 1 M kernels a second.
pub(crate) const POOL_BUFFERS: usize = 512;
/// Beyond the pool: buffers whose records are counted as lost. CUPTI below 12.9 may crash when refused one.
const OVERFLOW_BUFFERS: usize = 1024;

/// A filled buffer on its way to the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Filled {
    slot: usize,
    valid: usize,
}

/// The pool.
#[derive(Debug)]
pub(crate) struct Pool {
    slots: Box<[AtomicPtr<u8>]>,
    used: AtomicUsize,
    free: (Sender<usize>, Receiver<usize>),
    overflow_free: (Sender<usize>, Receiver<usize>),
    /// Records in overflow buffers.
    pub(crate) overflowed: AtomicU64,
    /// Buffers completed to us that were never ours.
    pub(crate) foreign: AtomicU64,
    /// Buffers that CUPTI asked for.
    pub(crate) requests: AtomicU64,
    /// Buffers that CUPTI asked for and gave back: stands still when somebody else took over the callbacks.
    pub(crate) moved: AtomicU64,
    /// Buffers that CUPTI has now.
    pub(crate) lent: AtomicUsize,
}

impl Pool {
    pub(crate) fn new() -> Pool {
        Pool {
            slots: (0..POOL_BUFFERS + OVERFLOW_BUFFERS)
                .map(|_| AtomicPtr::new(ptr::null_mut()))
                .collect(),
            used: AtomicUsize::new(0),
            free: bounded(POOL_BUFFERS),
            overflow_free: bounded(OVERFLOW_BUFFERS),
            overflowed: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            lent: AtomicUsize::new(0),
        }
    }

    /// Lends a zeroed buffer. `None` only when all overflow is lent too, or memory is out.
    pub(crate) fn request(&self) -> Option<*mut u8> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let memory = self.find_free();
        if memory.is_some() {
            self.lent.fetch_add(1, Ordering::Relaxed);
        }
        self.moved.fetch_add(1, Ordering::Relaxed);
        memory
    }

    fn find_free(&self) -> Option<*mut u8> {
        if let Ok(slot) = self.free.1.try_recv() {
            return self.pointer(slot);
        }
        if self.used.load(Ordering::Relaxed) >= POOL_BUFFERS
            && let Ok(slot) = self.overflow_free.1.try_recv()
        {
            return self.pointer(slot);
        }
        let slot = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            (used < self.slots.len()).then_some(used + 1)
        });
        let slot = slot.ok()?;
        let memory = map_buffer()?;
        self.slots.get(slot)?.store(memory, Ordering::Release);
        Some(memory)
    }

    /// Takes a buffer back from CUPTI. `Some` is for the writer.
    pub(crate) fn complete(&self, memory: *mut u8, valid: usize, layout: Option<&Layout>) -> Option<Filled> {
        let used = self.used.load(Ordering::Acquire).min(self.slots.len());
        let slot = self
            .slots
            .iter()
            .take(used)
            .position(|slot| slot.load(Ordering::Acquire) == memory);
        let Some(slot) = slot.filter(|_| !memory.is_null()) else {
            self.foreign.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.lent.fetch_sub(1, Ordering::Relaxed);
        self.moved.fetch_add(1, Ordering::Relaxed);
        let filled = Filled {
            slot,
            valid: valid.min(BUFFER_BYTES),
        };
        if valid == 0 {
            self.recycle(filled);
            return None;
        }
        if slot >= POOL_BUFFERS {
            let records = layout.map_or(0, |layout| decode::count(self.bytes(filled), layout));
            self.overflowed.fetch_add(records, Ordering::Relaxed);
            self.recycle(filled);
            return None;
        }
        Some(filled)
    }

    /// What CUPTI wrote.
    pub(crate) fn bytes(&self, filled: Filled) -> &[u8] {
        match self.pointer(filled.slot) {
            // SAFETY: the slot's mapping is never unmapped, `valid` was bounded by its size, and CUPTI gave it back.
            Some(memory) => unsafe { std::slice::from_raw_parts(memory, filled.valid) },
            None => &[],
        }
    }

    /// Zeroes what was used and lends the buffer again.
    pub(crate) fn recycle(&self, filled: Filled) {
        if let Some(memory) = self.pointer(filled.slot) {
            // SAFETY: as in `bytes`; nobody else holds the buffer.
            unsafe { ptr::write_bytes(memory, 0, filled.valid) };
        }
        let free = if filled.slot < POOL_BUFFERS {
            &self.free.0
        } else {
            &self.overflow_free.0
        };
        // The channel holds every slot there is, so this can't fail.
        let _ = free.try_send(filled.slot);
    }

    /// Gives a filled buffer up, its records counted as lost.
    pub(crate) fn discard(&self, filled: Filled, layout: Option<&Layout>) {
        let records = layout.map_or(0, |layout| decode::count(self.bytes(filled), layout));
        self.overflowed.fetch_add(records, Ordering::Relaxed);
        self.recycle(filled);
    }

    fn pointer(&self, slot: usize) -> Option<*mut u8> {
        let memory = self.slots.get(slot)?.load(Ordering::Acquire);
        (!memory.is_null()).then_some(memory)
    }
}

fn map_buffer() -> Option<*mut u8> {
    // SAFETY: an anonymous private mapping of our own; the kernel gives it zeroed and page-aligned.
    let memory = unsafe {
        libc::mmap(
            ptr::null_mut(),
            BUFFER_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    (memory != libc::MAP_FAILED).then_some(memory.cast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_zeroed() {
        let pool = Pool::new();
        let memory = pool.request().expect("a fresh pool lends");
        // SAFETY: the buffer is ours and larger than one byte.
        unsafe { *memory = 7 };
        let filled = pool.complete(memory, 1, None).expect("it was lent");
        assert_eq!(pool.bytes(filled), [7]);
        pool.recycle(filled);
        let again = pool.request().expect("recycled");
        assert_eq!(again, memory);
        // SAFETY: as above.
        assert_eq!(unsafe { *again }, 0);
    }

    #[test]
    fn what_was_never_lent_is_left_alone() {
        let pool = Pool::new();
        let mut other = [0_u8; 8];
        assert_eq!(pool.complete(other.as_mut_ptr(), 8, None), None);
        assert_eq!(pool.complete(ptr::null_mut(), 8, None), None);
        assert_eq!(pool.foreign.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn beyond_the_pool_records_are_lost_and_beyond_all_refused() {
        let pool = Pool::new();
        let lent: Vec<_> = (0..POOL_BUFFERS)
            .map(|_| pool.request().expect("in the pool"))
            .collect();
        let extra = pool.request().expect("overflow");
        assert_eq!(pool.complete(extra, 64, None), None, "its records go nowhere");
        assert_eq!(
            pool.request(),
            Some(extra),
            "overflow is lent again before more is mapped"
        );
        for _ in 1..OVERFLOW_BUFFERS {
            assert!(pool.request().is_some());
        }
        assert_eq!(pool.request(), None);
        let first = pool.complete(lent[0], 0, None);
        assert_eq!(first, None, "empty buffers need no writer");
        assert_eq!(pool.request(), Some(lent[0]));
    }
}
