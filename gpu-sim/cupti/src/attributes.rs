//! Attributes of the activity interface: kept and given back; only that for per-thread buffers changes anything.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cupti_sys::constants::*;

use crate::version::api_version;

/// Attributes from this one on came with 13.2 or later and are not played.
const FIRST_UNPLAYED: usize = ATTR_USER_DEFINED_RECORDS as usize;

/// Bytes and default of each attribute, from NVIDIA's headers.
const KNOWN: [(usize, u64); FIRST_UNPLAYED] = [
    (8, 3_200_000),
    (8, 8 << 20),
    (8, 250),
    (8, 25_000),
    (8, 250),
    (1, 0),
    (8, 3),
    (8, 3),
    (1, 0),
    (1, 0), // per-thread buffers: 1 from 13.0, see `value`
    (8, 16 << 20),
];

/// Values set by the client, one above what was set; 0 means the default.
static SET: [AtomicU64; FIRST_UNPLAYED] = [const { AtomicU64::new(0) }; FIRST_UNPLAYED];

fn value(attribute: usize) -> u64 {
    match SET[attribute].load(Ordering::Acquire) {
        0 if attribute == ATTR_PER_THREAD_ACTIVITY_BUFFER as usize => u64::from(api_version() >= API_VERSION_13_0),
        0 => KNOWN[attribute].1,
        set => set - 1,
    }
}

/// Whether each thread is to have a buffer of its own.
pub(crate) fn per_thread_buffers() -> bool {
    value(ATTR_PER_THREAD_ACTIVITY_BUFFER as usize) != 0
}

static SYSTEM_THREADS: AtomicBool = AtomicBool::new(false);

/// Says how records number threads.
pub(crate) fn number_threads(kind: u32) -> Result<(), u32> {
    if kind > THREAD_ID_TYPE_SYSTEM {
        return Err(ERROR_INVALID_PARAMETER);
    }
    SYSTEM_THREADS.store(kind == THREAD_ID_TYPE_SYSTEM, Ordering::Release);
    Ok(())
}

/// The calling thread as records have it: by default the low half of its pthread id.
pub(crate) fn thread_id() -> u32 {
    if SYSTEM_THREADS.load(Ordering::Acquire) {
        // SAFETY: no preconditions.
        return unsafe { libc::gettid() }.cast_unsigned();
    }
    // SAFETY: no preconditions.
    unsafe { libc::pthread_self() as u32 }
}

/// The attribute's number and bytes, once `size` and `place` were found good.
fn checked(attribute: u32, size: *mut usize, place: *mut c_void) -> Result<(usize, usize), u32> {
    let attribute = attribute as usize;
    let (needed, _) = KNOWN.get(attribute).ok_or(ERROR_INVALID_PARAMETER)?;
    // SAFETY: null or the caller's.
    let given = unsafe { size.as_ref() }
        .filter(|_| !place.is_null())
        .ok_or(ERROR_INVALID_PARAMETER)?;
    if given < needed {
        Err(ERROR_PARAMETER_SIZE_NOT_SUFFICIENT)
    } else {
        Ok((attribute, *needed))
    }
}

pub(crate) fn get(attribute: u32, size: *mut usize, place: *mut c_void) -> Result<(), u32> {
    let (attribute, bytes) = checked(attribute, size, place)?;
    let value = value(attribute).to_ne_bytes();
    // SAFETY: the caller has `size` bytes at `place`, which are enough. Little-endian: the low bytes come first.
    unsafe {
        std::ptr::copy_nonoverlapping(value.as_ptr(), place.cast(), bytes);
        size.write(bytes);
    }
    Ok(())
}

pub(crate) fn set(attribute: u32, size: *mut usize, place: *mut c_void) -> Result<(), u32> {
    let (attribute, bytes) = checked(attribute, size, place)?;
    let mut value = [0; 8];
    // SAFETY: as above.
    unsafe { std::ptr::copy_nonoverlapping(place.cast(), value.as_mut_ptr(), bytes) };
    SET[attribute].store(u64::from_ne_bytes(value).saturating_add(1), Ordering::Release);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_set_is_read_back_in_its_own_size() {
        let (mut limit, mut size) = (8_u64, 8_usize);
        set(ATTR_DEVICE_BUFFER_POOL_LIMIT, &raw mut size, (&raw mut limit).cast()).unwrap();
        limit = 0;
        get(ATTR_DEVICE_BUFFER_POOL_LIMIT, &raw mut size, (&raw mut limit).cast()).unwrap();
        assert_eq!((limit, size), (8, 8));

        let mut byte = 7_u8;
        get(
            ATTR_MEM_ALLOCATION_TYPE_HOST_PINNED,
            &raw mut size,
            (&raw mut byte).cast(),
        )
        .unwrap();
        assert_eq!((byte, size), (0, 1));
        let too_small = get(ATTR_DEVICE_BUFFER_SIZE, &raw mut size, (&raw mut limit).cast());
        assert_eq!(too_small, Err(ERROR_PARAMETER_SIZE_NOT_SUFFICIENT));
        assert_eq!(
            get(99, &raw mut size, (&raw mut limit).cast()),
            Err(ERROR_INVALID_PARAMETER)
        );
    }
}
