//! Records and buffers of any bytes: nothing panics, nothing is read beyond the bytes, nothing is invented.
//!
//! Run: cargo test -p cupti-sys --test properties

use cupti_sys::constants::*;
use cupti_sys::layouts::{LAYOUTS, Strides, has_field, record_size};
use cupti_sys::records::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn api_version() -> impl Strategy<Value = u32> {
    prop_oneof![0_u32..32, 130_000_u32..130_600, any::<u32>()]
}

/// Bytes that often hold kinds we know, at places where records of others would end.
fn buffer() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![0_u64..64, any::<u64>()];
    (vec(word, 0..600), 0_usize..8).prop_map(|(words, cut)| {
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
        bytes[..bytes.len().saturating_sub(cut)].to_vec()
    })
}

/// The bytes, and zeros where the record is longer than they.
fn read_is_a_prefix<T: Record>(bytes: &[u8]) -> Result<(), TestCaseError> {
    let record = read::<T>(bytes);
    let mut expected = bytes.to_vec();
    expected.resize(size_of::<T>(), 0);
    prop_assert_eq!(record.as_bytes(), expected);
    match View::<T>::new(bytes) {
        Some(view) => {
            let copy = view.to_record();
            prop_assert_eq!(copy.as_bytes(), record.as_bytes());
        }
        None => prop_assert!(bytes.len() < T::BASE_SIZE),
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_a_prefix_of_any_record(bytes in vec(any::<u8>(), 0..320)) {
        read_is_a_prefix::<Kernel>(&bytes)?;
        read_is_a_prefix::<Memcpy>(&bytes)?;
        read_is_a_prefix::<MemcpyPeer>(&bytes)?;
        read_is_a_prefix::<Memset>(&bytes)?;
        read_is_a_prefix::<Api>(&bytes)?;
        read_is_a_prefix::<Synchronization>(&bytes)?;
        read_is_a_prefix::<Overhead>(&bytes)?;
        read_is_a_prefix::<Device>(&bytes)?;
        read_is_a_prefix::<Context>(&bytes)?;
        read_is_a_prefix::<Stream>(&bytes)?;
        read_is_a_prefix::<Marker>(&bytes)?;
        read_is_a_prefix::<MarkerData>(&bytes)?;
        read_is_a_prefix::<Name>(&bytes)?;
        read_is_a_prefix::<GraphTrace>(&bytes)?;
        read_is_a_prefix::<ExternalCorrelation>(&bytes)?;
    }

    #[test]
    fn a_view_reads_what_the_copy_reads(
        bytes in vec(any::<u8>(), 248),
        shift in 0_usize..8,
        version in prop_oneof![Just(22_u32), Just(130_001), Just(130_101), Just(130_301), Just(130_500)],
    ) {
        // A record of that version, at an address without alignment.
        let size = record_size(KIND_CONCURRENT_KERNEL, version).unwrap();
        let mut room = vec![0xFF; shift];
        room.extend_from_slice(&bytes[..size]);
        let (view, copy) = (View::<Kernel>::new(&room[shift..]).unwrap(), read::<Kernel>(&room[shift..]));
        prop_assert_eq!((view.start(), view.end(), view.name()), (copy.start, copy.end, copy.name));
        prop_assert_eq!((view.grid_x(), view.block_z()), (copy.grid_x, copy.block_z));
        prop_assert_eq!((view.graph_node_id(), view.graph_id()), (copy.graph_node_id, copy.graph_id));
        prop_assert_eq!(view.max_active_clusters(), copy.max_active_clusters);
        prop_assert_eq!((view.is_device_launched(), view.priority()), (copy.is_device_launched, copy.priority));
        prop_assert_eq!(view.source_graph_node_id(), copy.source_graph_node_id);
        if !has_field(KIND_CONCURRENT_KERNEL, "priority", version) {
            prop_assert_eq!(view.priority(), 0);
        }
    }

    #[test]
    fn a_walk_over_any_bytes_ends_and_covers_what_it_passed(bytes in buffer(), version in api_version()) {
        let strides = Strides::new(version);
        let mut rest = &bytes[..];
        let mut passed = 0;
        while let Some((kind, record)) = strides.next(&mut rest) {
            prop_assert_eq!(Some(record.len()), record_size(kind, version));
            prop_assert_eq!(record.as_ptr(), bytes[passed..].as_ptr());
            passed += record.len();
        }
        prop_assert_eq!(passed + rest.len(), bytes.len());
        // It stopped for a reason.
        let next = rest.first_chunk().map(|kind| u32::from_ne_bytes(*kind)).and_then(|kind| strides.get(kind));
        prop_assert!(next.is_none_or(|size| size > rest.len()));
    }

    #[test]
    fn the_table_says_what_the_function_says(version in api_version()) {
        let strides = Strides::new(version);
        for kind in (0..70).chain([u32::MAX]) {
            prop_assert_eq!(strides.get(kind), record_size(kind, version));
        }
        for layout in LAYOUTS {
            let known: Vec<usize> = layout.versions.iter().map(|version| version.size).collect();
            let size = record_size(layout.kind, version);
            prop_assert!(size.is_none_or(|size| known.contains(&size)));
            prop_assert_eq!(size.is_none(), version < layout.versions[0].since);
        }
    }
}
