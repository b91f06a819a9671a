//! How a record is read: field by field in place, or whole. Neither needs alignment, and both take a record of an older
//! library, which is shorter, for one whose later fields are zero.

use std::marker::PhantomData;

/// One field of a record, as the header check and [`layouts`](crate::layouts) need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Name in NVIDIA's header.
    pub c_name: &'static str,
    /// Bytes from the record's start, in all versions that have it.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
    /// First API version that has it; below, its bytes are padding or not there.
    pub since: u32,
}

/// A record's newest layout.
///
/// # Safety
/// The type is `repr(C)`, has no implicit padding, and any bytes make a valid value of it.
pub unsafe trait Record: Copy {
    /// Bytes in the oldest supported version (12.4): a record is never shorter.
    const BASE_SIZE: usize;
    /// Fields in order, padding left out.
    const FIELDS: &'static [Field];

    /// A record with every byte zero.
    fn zeroed() -> Self {
        // SAFETY: all bytes zero is a valid value, by the trait's contract.
        unsafe { std::mem::zeroed() }
    }

    /// The record's bytes, as CUPTI would put them into a buffer.
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: the type has no padding, so each of its bytes is initialized; they live as long as `self`.
        unsafe { std::slice::from_raw_parts((&raw const *self).cast(), size_of::<Self>()) }
    }
}

/// The record that `bytes` begin with, whatever their alignment. What they lack of the newest layout is zero.
#[inline]
pub fn read<T: Record>(bytes: &[u8]) -> T {
    let mut record = T::zeroed();
    let length = bytes.len().min(size_of::<T>());
    // SAFETY: both sides hold `length` bytes and don't overlap, and any bytes are a valid `T`.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut record).cast(), length) };
    record
}

/// A record read in place: a getter for each field, zero for a field that these bytes don't reach.
///
/// Fields of 12.4 cost one load; later ones a comparison more. Nothing is copied.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, T> {
    bytes: &'a [u8],
    record: PhantomData<T>,
}

impl<'a, T: Record> View<'a, T> {
    /// A view of the record that is exactly `bytes`, `None` when shorter than CUPTI 12.4's.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= T::BASE_SIZE).then_some(Self {
            bytes,
            record: PhantomData,
        })
    }

    /// The whole record.
    #[inline]
    pub fn to_record(&self) -> T {
        read(self.bytes)
    }

    /// # Safety
    /// Any bytes are a valid `F`.
    #[inline(always)]
    pub(crate) unsafe fn field<F: Copy>(&self, offset: usize) -> F {
        let end = offset + size_of::<F>();
        if end > T::BASE_SIZE && end > self.bytes.len() {
            // SAFETY: all bytes zero is a valid `F`, by this function's contract.
            return unsafe { std::mem::zeroed() };
        }
        // SAFETY: `end` is within the bytes: `new` checked that they hold `BASE_SIZE`, the test above the rest.
        unsafe { self.bytes.as_ptr().add(offset).cast::<F>().read_unaligned() }
    }
}
