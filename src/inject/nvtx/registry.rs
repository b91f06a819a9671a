//! What programs register once and name by a handle later: domains, strings, categories. Nothing is ever removed, and
//! nothing is locked, so that a fork's child finds it as it was. Each text is kept once, and all of them have a bound.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use crate::inject::nvtx::abi::Text;
use crate::inject::nvtx::text;

/// Places looked at for a handle before there is none left.
const PROBES: usize = 64;

/// Bytes of all texts.
const MAX_BYTES: usize = 64 << 20;

static REFUSED: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// Registrations for which there was no room, so far.
pub(crate) fn refused() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

/// Texts by handle: hash tables of fixed size.
#[derive(Debug)]
pub(crate) struct Registry<const SIZE: usize> {
    handles: [AtomicUsize; SIZE],
    /// Text of each handle.
    texts: [AtomicPtr<String>; SIZE],
    /// The texts, by themselves: programs may register the same one again and again.
    kept: [AtomicPtr<String>; SIZE],
}

/// Domains by handle.
pub(crate) static DOMAINS: Registry<{ 1 << 12 }> = Registry::new();
/// Registered strings by handle.
pub(crate) static STRINGS: Registry<{ 1 << 17 }> = Registry::new();
/// Names of categories by domain and number.
pub(crate) static CATEGORIES: Registry<{ 1 << 12 }> = Registry::new();

impl<const SIZE: usize> Registry<SIZE> {
    const fn new() -> Self {
        Self {
            handles: [const { AtomicUsize::new(0) }; SIZE],
            texts: [const { AtomicPtr::new(std::ptr::null_mut()) }; SIZE],
            kept: [const { AtomicPtr::new(std::ptr::null_mut()) }; SIZE],
        }
    }

    fn places(&self, handle: usize) -> impl Iterator<Item = (&AtomicUsize, &AtomicPtr<String>)> {
        // Fibonacci hashing: handles are mostly addresses.
        let hash = (handle as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        indices::<SIZE>(hash as usize).filter_map(|index| Some((self.handles.get(index)?, self.texts.get(index)?)))
    }

    /// The kept text that equals a new one, or that one. None: there is no room.
    fn keep(&self, mut text: String) -> Option<&'static String> {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        for place in indices::<SIZE>(hasher.finish() as usize).filter_map(|index| self.kept.get(index)) {
            let mut known = place.load(Ordering::Acquire);
            if known.is_null() {
                if BYTES.load(Ordering::Relaxed) + text.len() > MAX_BYTES {
                    return None;
                }
                let new = Box::into_raw(Box::new(text));
                match place.compare_exchange(known, new, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => {
                        // SAFETY: leaked just now.
                        let kept = unsafe { &*new };
                        BYTES.fetch_add(kept.len(), Ordering::Relaxed);
                        return Some(kept);
                    }
                    Err(others) => {
                        known = others;
                        // SAFETY: made above, and nobody else has seen it.
                        text = *unsafe { Box::from_raw(new) };
                    }
                }
            }
            // SAFETY: null or a leaked string.
            let kept = unsafe { known.as_ref() }.filter(|kept| **kept == text);
            if kept.is_some() {
                return kept;
            }
        }
        None
    }

    /// Text of a handle.
    pub(crate) fn get(&self, handle: usize) -> Option<&'static str> {
        if handle == 0 {
            return None;
        }
        for (known, text) in self.places(handle) {
            match known.load(Ordering::Acquire) {
                0 => return None,
                other if other == handle => {
                    // SAFETY: null or a leaked string.
                    return unsafe { text.load(Ordering::Acquire).as_ref() }.map(String::as_str);
                }
                _ => {}
            }
        }
        None
    }

    /// Keeps a text by a handle of the caller's, or by one of its own: the kept text's address, the same for the same text.
    /// A handle that is known already gets the new text. 0: there is no room.
    pub(crate) fn add(&self, handle: Option<usize>, text: String) -> usize {
        let added = self.keep(text).and_then(|text| {
            let text = std::ptr::from_ref(text).cast_mut();
            let handle = handle.unwrap_or(text as usize);
            let (_, place) = self.places(handle).find(|(known, _)| {
                let taken = known.compare_exchange(0, handle, Ordering::AcqRel, Ordering::Acquire);
                taken.is_ok() || taken == Err(handle)
            })?;
            place.store(text, Ordering::Release);
            Some(handle)
        });
        added.unwrap_or_else(|| {
            REFUSED.fetch_add(1, Ordering::Relaxed);
            0
        })
    }

    /// Keeps a text of the program's, by the handle that a chained tool gave it, if one did.
    ///
    /// # Safety
    /// As of [`text::append`].
    pub(crate) unsafe fn register(&self, theirs: Option<usize>, given: Text) -> usize {
        let mut name = String::new();
        // SAFETY: the caller's promise.
        unsafe { text::append(given, &mut name) };
        match theirs.filter(|handle| *handle != 0) {
            Some(handle) => {
                self.add(Some(handle), name);
                // The tool has it, whether we have or not.
                handle
            }
            None => self.add(None, name),
        }
    }
}

/// Where to look, from a hash on.
fn indices<const SIZE: usize>(hash: usize) -> impl Iterator<Item = usize> {
    (0..PROBES.min(SIZE)).map(move |probe| hash.wrapping_add(probe) % SIZE)
}

/// Key of a category: its number counts within its domain.
pub(crate) fn category_key(domain: usize, category: u32) -> usize {
    // Handles are addresses, or small: what is shifted out is not needed to tell them apart.
    (domain << 20) ^ (category as usize) ^ (1 << 63)
}

/// Name of a category, or its number where it has none; none of category 0.
pub(crate) fn category(domain: usize, category: u32) -> Option<String> {
    if category == 0 {
        return None;
    }
    let name = CATEGORIES.get(category_key(domain, category));
    Some(name.map_or_else(|| category.to_string(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_registered_is_found_by_its_handle() {
        static TABLE: Registry<256> = Registry::new();
        let first = TABLE.add(None, "first".to_owned());
        assert_eq!(TABLE.add(Some(7), "second".to_owned()), 7);
        assert_eq!((TABLE.get(first), TABLE.get(7)), (Some("first"), Some("second")));
        assert_eq!((TABLE.get(0), TABLE.get(8)), (None, None));
        TABLE.add(Some(7), "again".to_owned());
        assert_eq!(TABLE.get(7), Some("again"));
    }

    #[test]
    fn the_same_again_and_again_takes_no_more_room() {
        static TABLE: Registry<256> = Registry::new();
        let first = TABLE.add(None, "one".to_owned());
        for number in 0..10_000 {
            assert_eq!(TABLE.add(None, "one".to_owned()), first);
            assert_eq!(TABLE.add(Some(7), format!("name {}", number % 2)), 7);
        }
        assert_eq!((TABLE.get(first), TABLE.get(7)), (Some("one"), Some("name 1")));
        let used = TABLE
            .kept
            .iter()
            .filter(|place| !place.load(Ordering::Relaxed).is_null());
        assert_eq!(used.count(), 3);
    }

    #[test]
    fn a_full_table_gives_no_handle() {
        static TABLE: Registry<32> = Registry::new();
        let before = refused();
        let handles: Vec<usize> = (0..40).map(|number: i32| TABLE.add(None, number.to_string())).collect();
        assert!(handles[..32].iter().all(|handle| *handle != 0));
        assert_eq!(handles[32..], [0; 8]);
        assert!(refused() >= before + 8);
        assert_eq!(TABLE.get(handles[31]), Some("31"));
    }

    #[test]
    fn threads_register_at_once() {
        static TABLE: Registry<4096> = Registry::new();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for number in 0..500 {
                        let text = format!("{thread} {number}");
                        let handle = TABLE.add(None, text.clone());
                        assert_eq!(TABLE.get(handle), Some(text.as_str()));
                    }
                });
            }
        });
    }

    #[test]
    fn categories_count_within_their_domain() {
        CATEGORIES.add(Some(category_key(0x7000, 3)), "attention".to_owned());
        assert_eq!(category(0x7000, 3).as_deref(), Some("attention"));
        assert_eq!(category(0x7010, 3).as_deref(), Some("3"));
        assert_eq!(category(0, 3).as_deref(), Some("3"));
        assert_eq!(category(0x7000, 0), None);
    }
}
