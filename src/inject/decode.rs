//! Bytes of an activity buffer to records. Pure: no FFI, no state; any bytes give records or a stated rest.

use cupti_sys::constants::*;
use cupti_sys::layouts::Strides;
use cupti_sys::records::{Api, Context, Kernel, Memcpy, MemcpyPeer, Memset, Overhead, Stream, Synchronization, View};

// Tests only, as it says itself.
mod golden;

/// How the loaded library lays its records out.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) api_version: u32,
    pub(crate) strides: Strides,
}

impl Layout {
    /// Layout of a version, from the table in `cupti-sys`.
    pub(crate) fn of_version(api_version: u32) -> Layout {
        Layout {
            api_version,
            strides: Strides::new(api_version),
        }
    }
}

/// Takes the records of a buffer, one method a kind.
pub(crate) trait Sink {
    fn kernel(&mut self, record: View<'_, Kernel>);
    fn memcpy(&mut self, record: View<'_, Memcpy>);
    fn memcpy_peer(&mut self, record: View<'_, MemcpyPeer>);
    fn memset(&mut self, record: View<'_, Memset>);
    fn synchronization(&mut self, record: View<'_, Synchronization>);
    fn api(&mut self, record: View<'_, Api>);
    fn overhead(&mut self, record: View<'_, Overhead>);
    fn context(&mut self, record: View<'_, Context>);
    fn stream(&mut self, record: View<'_, Stream>);
}

/// Why the end of a buffer could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// A kind whose size nobody knows.
    UnknownKind(u32),
    /// The last record is cut off.
    Truncated,
}

/// Gives every record of `bytes` to `sink`, in order.
pub(crate) fn decode(mut bytes: &[u8], layout: &Layout, sink: &mut impl Sink) -> Option<Rest> {
    while !bytes.is_empty() {
        let Some((kind, record)) = layout.strides.next(&mut bytes) else {
            return Some(rest(bytes, layout));
        };
        give(kind, record, sink);
    }
    None
}

fn rest(bytes: &[u8], layout: &Layout) -> Rest {
    match bytes.first_chunk().map(|kind| u32::from_ne_bytes(*kind)) {
        Some(kind) if layout.strides.get(kind).is_none() => Rest::UnknownKind(kind),
        _ => Rest::Truncated,
    }
}

fn give(kind: u32, record: &[u8], sink: &mut impl Sink) -> Option<()> {
    match kind {
        KIND_CONCURRENT_KERNEL | KIND_KERNEL => sink.kernel(View::new(record)?),
        KIND_MEMCPY => sink.memcpy(View::new(record)?),
        KIND_MEMCPY2 => sink.memcpy_peer(View::new(record)?),
        KIND_MEMSET => sink.memset(View::new(record)?),
        KIND_SYNCHRONIZATION => sink.synchronization(View::new(record)?),
        KIND_RUNTIME | KIND_DRIVER => sink.api(View::new(record)?),
        KIND_OVERHEAD => sink.overhead(View::new(record)?),
        KIND_CONTEXT => sink.context(View::new(record)?),
        KIND_STREAM => sink.stream(View::new(record)?),
        // Kinds that somebody else enabled: known in size, no table of ours.
        _ => {}
    }
    Some(())
}

/// Records in a buffer, as far as they can be told apart.
pub(crate) fn count(mut bytes: &[u8], layout: &Layout) -> u64 {
    let mut records = 0;
    while !bytes.is_empty() && layout.strides.next(&mut bytes).is_some() {
        records += 1;
    }
    records
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use cupti_sys::records::Record;

    /// Counts what it is given.
    #[derive(Debug, Default, PartialEq, Eq)]
    pub(crate) struct Counter {
        pub(crate) kernels: Vec<u32>,
        pub(crate) others: usize,
    }

    impl Sink for Counter {
        fn kernel(&mut self, record: View<'_, Kernel>) {
            self.kernels.push(record.correlation_id());
        }
        fn memcpy(&mut self, _: View<'_, Memcpy>) {
            self.others += 1;
        }
        fn memcpy_peer(&mut self, _: View<'_, MemcpyPeer>) {
            self.others += 1;
        }
        fn memset(&mut self, _: View<'_, Memset>) {
            self.others += 1;
        }
        fn synchronization(&mut self, _: View<'_, Synchronization>) {
            self.others += 1;
        }
        fn api(&mut self, _: View<'_, Api>) {
            self.others += 1;
        }
        fn overhead(&mut self, _: View<'_, Overhead>) {
            self.others += 1;
        }
        fn context(&mut self, _: View<'_, Context>) {
            self.others += 1;
        }
        fn stream(&mut self, _: View<'_, Stream>) {
            self.others += 1;
        }
    }

    /// A buffer of kernels and memcpys in a version's own strides.
    pub(crate) fn buffer(api_version: u32, kernels: u32) -> Vec<u8> {
        let layout = Layout::of_version(api_version);
        let mut bytes = Vec::new();
        for number in 0..kernels {
            let kernel = Kernel {
                kind: KIND_CONCURRENT_KERNEL,
                correlation_id: number,
                ..Kernel::zeroed()
            };
            let size = layout.strides.get(KIND_CONCURRENT_KERNEL).expect("kernels are known");
            bytes.extend_from_slice(&kernel.as_bytes()[..size]);
            let memcpy = Memcpy {
                kind: KIND_MEMCPY,
                ..Memcpy::zeroed()
            };
            bytes.extend_from_slice(&memcpy.as_bytes()[..layout.strides.get(KIND_MEMCPY).expect("memcpys are known")]);
        }
        bytes
    }

    pub(crate) const VERSIONS: [u32; 9] = [22, 24, 26, 28, 130_001, 130_101, 130_202, 130_301, 130_500];

    #[test]
    fn every_version_gives_every_record_in_order() {
        for version in VERSIONS {
            let mut counter = Counter::default();
            assert_eq!(
                decode(&buffer(version, 5), &Layout::of_version(version), &mut counter),
                None
            );
            assert_eq!(
                counter,
                Counter {
                    kernels: vec![0, 1, 2, 3, 4],
                    others: 5
                },
                "API version {version}"
            );
            assert_eq!(count(&buffer(version, 5), &Layout::of_version(version)), 10);
        }
    }

    #[test]
    fn an_unknown_kind_and_a_cut_end_are_told() {
        let layout = Layout::of_version(130_001);
        let mut bytes = buffer(130_001, 1);
        bytes.extend_from_slice(&4_000_u32.to_ne_bytes());
        bytes.extend_from_slice(&[0; 60]);
        assert_eq!(
            decode(&bytes, &layout, &mut Counter::default()),
            Some(Rest::UnknownKind(4_000))
        );
        let bytes = buffer(130_001, 1);
        assert_eq!(
            decode(&bytes[..bytes.len() - 1], &layout, &mut Counter::default()),
            Some(Rest::Truncated)
        );
        assert_eq!(decode(&[1, 0], &layout, &mut Counter::default()), Some(Rest::Truncated));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(0_u8..24, 0..2_000), version in 0..VERSIONS.len()) {
            let layout = Layout::of_version(VERSIONS[version]);
            let mut counter = Counter::default();
            let rest = decode(&bytes, &layout, &mut counter);
            proptest::prop_assert!(rest.is_some() || counter.kernels.len() + counter.others <= bytes.len() / 24);
        }

        #[test]
        fn a_cut_anywhere_loses_only_the_record_it_cuts(cut in 0_usize..3_000, version in 0..VERSIONS.len()) {
            let version = VERSIONS[version];
            let whole = buffer(version, 8);
            let cut = cut.min(whole.len());
            let layout = Layout::of_version(version);
            let mut counter = Counter::default();
            decode(&whole[..cut], &layout, &mut counter);
            let pair = whole.len() / 8;
            let kernel = layout.strides.get(KIND_CONCURRENT_KERNEL).expect("kernels are known");
            let expected = cut / pair + usize::from(cut % pair >= kernel);
            proptest::prop_assert_eq!(counter.kernels.len(), expected);
        }
    }
}
