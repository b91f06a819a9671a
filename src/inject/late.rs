//! cudaProfilerStart and Stop from a signal handler that came over our own code: the thread may hold a lock that opening
//! a window needs, and waiting for it would be for ever. So they are only noted, and the steward carries them out.

use std::sync::atomic::{AtomicU8, Ordering};

/// What the host calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Start = 1,
    Stop = 2,
}

const BITS: u8 = 2;
const ONE: u8 = 0b11;
const TWO: u8 = 0b1111;

/// The last two calls that were noted, the newest in the lowest bits. Of more only the last two matter: whether a window
/// is to be open, and whether it is a new one.
#[derive(Debug, Default)]
pub(crate) struct Late(AtomicU8);

impl Late {
    /// Notes a call. Waits for nothing and allocates nothing.
    pub(crate) fn note(&self, call: Call) {
        let with = |noted: u8| (noted & ONE != call as u8).then_some((noted << BITS | call as u8) & TWO);
        // An error: the same was noted last.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, with);
    }

    /// What was noted, in order.
    pub(crate) fn take(&self) -> impl Iterator<Item = Call> {
        let noted = self.0.swap(0, Ordering::AcqRel);
        [noted >> BITS, noted & ONE].into_iter().filter_map(|call| match call {
            1 => Some(Call::Start),
            2 => Some(Call::Stop),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Call::{Start, Stop};
    use super::*;

    #[test]
    fn calls_are_given_once_and_in_order_and_of_many_the_last_two() {
        let given = |calls: &[Call]| {
            let late = Late::default();
            calls.iter().for_each(|call| late.note(*call));
            let first: Vec<Call> = late.take().collect();
            assert_eq!(late.take().count(), 0);
            first
        };
        assert_eq!(given(&[]), []);
        assert_eq!(given(&[Start]), [Start]);
        assert_eq!(given(&[Start, Start, Stop]), [Start, Stop]);
        assert_eq!(given(&[Start, Stop, Stop, Start]), [Stop, Start]);
    }
}
