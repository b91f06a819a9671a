//! Names as programs give them, as UTF-8 of a bounded length. What is not UTF-8 is replaced, what is too long is cut.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::inject::nvtx::abi::Text;
use crate::schema::ranges::MAX_NAME_BYTES;

static CUT: AtomicU64 = AtomicU64::new(0);

/// Names that were too long, so far.
pub(crate) fn cut() -> u64 {
    CUT.load(Ordering::Relaxed)
}

/// Appends a name.
///
/// # Safety
/// The text is null or ends in a zero, and is not freed during the call.
pub(crate) unsafe fn append(text: Text, to: &mut String) {
    match text {
        // SAFETY: the caller's promise.
        Text::Narrow(text) if !text.is_null() => unsafe {
            // One more than is kept, to see whether there is more.
            let length = libc::strnlen(text, MAX_NAME_BYTES + 1);
            append_bytes(std::slice::from_raw_parts(text.cast::<u8>(), length), to);
        },
        // SAFETY: the caller's promise.
        Text::Wide(text) if !text.is_null() => unsafe { append_wide(text, to) },
        Text::Narrow(_) | Text::Wide(_) => {}
    }
}

fn append_bytes(bytes: &[u8], to: &mut String) {
    let start = to.len();
    match std::str::from_utf8(bytes) {
        Ok(text) => to.push_str(text),
        Err(_) => to.push_str(&String::from_utf8_lossy(bytes)),
    }
    limit(start, to);
}

/// # Safety
/// As of [`append`], and not null.
unsafe fn append_wide(text: *const u32, to: &mut String) {
    let start = to.len();
    for index in 0.. {
        // SAFETY: no zero came before it.
        let unit = unsafe { *text.add(index) };
        if unit == 0 || to.len() - start > MAX_NAME_BYTES {
            break;
        }
        to.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    limit(start, to);
}

fn limit(start: usize, to: &mut String) {
    if to.len() - start > MAX_NAME_BYTES {
        let mut end = start + MAX_NAME_BYTES;
        while !to.is_char_boundary(end) {
            end -= 1;
        }
        to.truncate(end);
        CUT.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrow(bytes: &[u8]) -> String {
        let text = std::ffi::CString::new(bytes).unwrap();
        let mut appended = "a/".to_owned();
        // SAFETY: ends in a zero.
        unsafe { append(Text::Narrow(text.as_ptr()), &mut appended) };
        appended.split_off(2)
    }

    fn wide(units: &[u32]) -> String {
        let mut appended = String::new();
        let units: Vec<u32> = units.iter().copied().chain([0]).collect();
        // SAFETY: ends in a zero.
        unsafe { append(Text::Wide(units.as_ptr()), &mut appended) };
        appended
    }

    #[test]
    fn what_is_not_text_is_replaced() {
        assert_eq!(narrow("façade".as_bytes()), "façade");
        assert_eq!(narrow(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(wide(&[0x4f60, 0x1f600, 0xd800, 0x11_0000]), "你😀\u{fffd}\u{fffd}");
        let mut empty = String::new();
        // SAFETY: null is allowed.
        unsafe { append(Text::Narrow(std::ptr::null()), &mut empty) };
        assert_eq!(empty, "");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let before = cut();
        assert_eq!(narrow(&[b'x'; MAX_NAME_BYTES]).len(), MAX_NAME_BYTES);
        assert_eq!(cut(), before);
        assert_eq!(narrow(&vec![b'x'; 1 << 20]).len(), MAX_NAME_BYTES);
        assert_eq!(narrow("€".repeat(2_000).as_bytes()), "€".repeat(MAX_NAME_BYTES / 3));
        assert_eq!(narrow(&[0xff; MAX_NAME_BYTES]).len(), MAX_NAME_BYTES / 3 * 3);
        assert_eq!(wide(&vec![0x20ac; 1 << 20]), "€".repeat(MAX_NAME_BYTES / 3));
        assert!(cut() >= before + 4);
    }
}
